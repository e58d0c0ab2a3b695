import { alignedMemory } from './aligned_memory.js';
import { described, isQuantizedTensor } from './arguments.js';
import { DeviceMemory, type DeviceName, deviceNumber, recordedStream, upload } from './device.js';
import { argumentError } from './errors.js';
import { type Format, formats } from './generated.js';
import { type NativeMemory, native } from './native.js';
import { bytesOf, type TensorSource } from './tensor_source.js';

/** How quantized weights lie in memory: as in a file, or as the kernels of a CPU or of a CUDA device read them. */
export type Layout = 'canonical' | 'lanes16' | 'fragments';
const layoutIds: Record<Layout, number> = { canonical: 0, lanes16: 1, fragments: 2 };

/** Options of {@link QuantizedTensor}. */
export interface QuantizedTensorOptions {
  layout?: Layout;
  /**
   * Tables of 2^bits values: one, required by the cb<bits> formats; 1 to 256, one after the other, for the cbs<bits>
   * formats, whose groups each name one (cbs3, cbs4 without: those of BitMoD). Forbidden for others.
   */
  codebook?: Float32Array | readonly number[];
  /** Times every decoded weight, in any format; positive, rounded to f32. Default: 1. */
  tensorScale?: number;
}

/** Bytes of a `rows` x `cols` matrix in `format`; throws if the format does not take such rows. */
export function weightsBytes(
  format: Format,
  rows: number,
  cols: number,
  layout: Layout = 'canonical',
): number {
  const info = formatInfo(format);
  for (const [name, value] of [
    ['rows', rows],
    ['cols', cols],
  ] as const) {
    if (!Number.isSafeInteger(value) || value < 0) {
      throw argumentError(
        'BL_INVALID_SHAPE',
        `QuantizedTensor: ${name} is ${value}, expected a whole number of at least 0`,
      );
    }
  }
  if (info.kind === 'block' && cols % info.blockElements !== 0) {
    throw argumentError(
      'BL_INVALID_SHAPE',
      `QuantizedTensor: cols is ${cols}, expected a multiple of ${info.blockElements} (the block of ${format})`,
    );
  }
  const bytes = native.weightsBytes(info.id, layoutId(layout), rows, cols);
  if ((bytes === 0 && rows > 0 && cols > 0) || !Number.isSafeInteger(bytes)) {
    throw argumentError(
      'BL_INVALID_SHAPE',
      `QuantizedTensor: ${rows} x ${cols} ${format} is too large`,
    );
  }
  return bytes;
}

function layoutId(layout: string): number {
  if (Object.hasOwn(layoutIds, layout)) return layoutIds[layout as Layout];
  throw argumentError(
    'BL_INVALID_LAYOUT',
    `QuantizedTensor: layout is ${described(layout)}, expected canonical, lanes16 or fragments`,
  );
}

/** Facts of a format; throws `BL_INVALID_FORMAT` for an unknown one. */
export function formatInfo(format: string): (typeof formats)[Format] {
  if (typeof format !== 'string' || !Object.hasOwn(formats, format)) {
    throw argumentError(
      'BL_INVALID_FORMAT',
      `QuantizedTensor: format is ${described(format)}, expected e.g. q4_0, u4_g128, i8_row, t2_g256, nf4_g64`,
    );
  }
  return formats[format as Format];
}

/**
 * A weight matrix [rows, cols] in a weight format: a row per output feature. A view of its bytes, which
 * it does not copy.
 *
 * @typeParam F the format, e.g. `'u4_g128'`.
 *
 * @example
 * ```ts
 * const w = quantize(new Tensor('f32', weights, [4096, 4096]), 'u4_g128');
 * w.bits; // bytes * 8 / weights, with scales: 4.125
 * ```
 */
export class QuantizedTensor<F extends Format = Format> {
  readonly format: F;
  readonly layout: Layout;
  readonly rows: number;
  readonly cols: number;
  readonly codebook: Float32Array | undefined;
  /** Times every decoded weight: the second level of scales of `nvfp4_g16`. */
  readonly tensorScale: number;
  /** What native calls read: [format, layout, rows, cols, tensorScale]. */
  readonly descriptor: Float64Array;
  #bytes: Uint8Array;
  readonly #memory: DeviceMemory | undefined;
  #owned = false;
  #disposed = false;

  /**
   * @param data at least `weightsBytes` bytes, at any byte offset.
   * @param shape [rows, cols]
   * @throws `BL_INVALID_FORMAT`, `BL_INVALID_SHAPE`, `BL_BUFFER_TOO_SMALL`, `BL_INVALID_ARGUMENT`
   */
  constructor(
    format: F,
    data: TensorSource | DeviceMemory,
    shape: readonly [rows: number, cols: number],
    options: QuantizedTensorOptions = {},
  ) {
    const info = formatInfo(format);
    const [rows, cols] = shape;
    this.format = format;
    this.layout = options.layout ?? 'canonical';
    const bytes = weightsBytes(format, rows, cols, this.layout);
    this.rows = rows;
    this.cols = cols;
    this.#memory = data instanceof DeviceMemory ? data : undefined;
    this.#bytes = data instanceof DeviceMemory ? new Uint8Array(0) : bytesOf(data);
    const available = (this.#memory ?? this.#bytes).byteLength;
    if (available < bytes) {
      throw argumentError(
        'BL_BUFFER_TOO_SMALL',
        `QuantizedTensor: data has ${available} bytes, expected ${bytes} (${format} [${shape}])`,
      );
    }
    this.codebook = checkedCodebook(format, options.codebook);
    this.tensorScale = checkedTensorScale(options.tensorScale ?? 1);
    this.descriptor = Float64Array.of(
      info.id,
      layoutIds[this.layout],
      rows,
      cols,
      this.tensorScale,
    );
  }

  /** New memory of the right size, all zero. */
  static empty<F extends Format>(
    format: F,
    shape: readonly [rows: number, cols: number],
    options: QuantizedTensorOptions = {},
  ): QuantizedTensor<F> {
    const bytes = weightsBytes(format, shape[0], shape[1], options.layout);
    let memory: Uint8Array;
    try {
      memory = alignedMemory(bytes);
    } catch (cause) {
      throw Object.assign(
        argumentError('BL_OUT_OF_MEMORY', `QuantizedTensor: cannot allocate ${bytes} bytes`),
        { cause },
      );
    }
    const tensor = new QuantizedTensor(format, memory, shape, options);
    tensor.#owned = true;
    return tensor;
  }

  get shape(): readonly [rows: number, cols: number] {
    return [this.rows, this.cols];
  }

  /** Bits per weight, scales included. */
  get bits(): number {
    return ((this.#memory ?? this.bytes).byteLength * 8) / Math.max(this.rows * this.cols, 1);
  }

  get bytes(): Uint8Array {
    if (this.#disposed) throw argumentError('BL_DETACHED', 'QuantizedTensor: used after dispose()');
    if (this.#memory !== undefined) {
      throw argumentError(
        'BL_UNSUPPORTED',
        `QuantizedTensor: the data is on ${this.device}; copy it with to('cpu')`,
      );
    }
    return this.#bytes;
  }

  /** Where the data lies. */
  get device(): DeviceName {
    return this.#memory?.device ?? 'cpu';
  }

  /** @internal */
  get [isQuantizedTensor](): boolean {
    return #bytes in this;
  }

  /** What native calls read. @internal */
  get nativeMemory(): Uint8Array | NativeMemory {
    return this.#memory === undefined ? this.bytes : this.#memory.handle;
  }

  /**
   * A copy on another device, or on the processor, in the same layout; `matmul` on a device wants `fragments`
   * (`packWeights(w, { for: 'cuda' })`). On the same device: the weights themselves.
   *
   * @throws `BL_NOT_FOUND` where there is no such device, `BL_OUT_OF_MEMORY`, `BL_DEVICE_LOST`
   *
   * @example
   * ```ts
   * const w = await packWeights(quantize(weights, 'u4_g128'), { for: 'cuda' }).to('cuda:0');
   * const y = await matmul(await x.to('cuda:0'), w).to('cpu');
   * ```
   */
  async to(device: DeviceName): Promise<QuantizedTensor<F>> {
    if (device === this.device) return this;
    const { format, shape, layout, codebook, tensorScale } = this;
    const options = { layout, tensorScale, ...(codebook === undefined ? {} : { codebook }) };
    const bytes = weightsBytes(format, shape[0], shape[1], layout);
    if (device === 'cpu') {
      const copy = new Uint8Array(bytes);
      const { handle } = this.#memory as DeviceMemory;
      await native.deviceDownloadAsync(copy, handle, recordedStream()?.handle);
      return new QuantizedTensor(format, copy, shape, options);
    }
    deviceNumber(device);
    if (this.#memory !== undefined) return (await this.to('cpu')).to(device);
    const memory = DeviceMemory.allocate(device, bytes);
    await upload(memory, this.bytes.subarray(0, bytes));
    return new QuantizedTensor(format, memory, shape, options);
  }

  get disposed(): boolean {
    return this.#disposed;
  }

  /** Lets go of the memory; memory that the tensor made itself is freed at once. */
  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#memory?.dispose();
    if (this.#owned && this.#bytes.buffer instanceof ArrayBuffer)
      native.detach(this.#bytes.buffer as ArrayBuffer);
    this.#bytes = new Uint8Array(0);
  }

  /** {@link dispose}, for `using`. */
  [Symbol.dispose](): void {
    this.dispose();
  }
}

function checkedTensorScale(given: number): number {
  const scale = Math.fround(given);
  if (typeof given !== 'number' || !(scale > 0) || scale === Number.POSITIVE_INFINITY) {
    throw argumentError(
      'BL_INVALID_ARGUMENT',
      `QuantizedTensor: tensorScale is ${given}, expected a positive number that f32 holds`,
    );
  }
  return scale;
}

/** Whether the weights of a format index tables that are kept beside them. */
export function takesCodebook(format: Format): boolean {
  const { kind } = formatInfo(format);
  return kind === 'codebook' || kind === 'codebooks';
}

function checkedCodebook(
  format: Format,
  given: Float32Array | readonly number[] | undefined,
): Float32Array | undefined {
  const { kind, bits } = formatInfo(format);
  if (!takesCodebook(format)) {
    if (given === undefined) return undefined;
    throw argumentError(
      'BL_INVALID_ARGUMENT',
      `QuantizedTensor: format ${format} takes no codebook`,
    );
  }
  if (given === undefined && kind === 'codebooks' && bits > 2) return undefined;
  const entries = given?.length ?? 0;
  const table = 2 ** bits;
  const fits =
    kind === 'codebook'
      ? entries === table
      : entries > 0 && entries % table === 0 && entries <= 256 * table;
  if (given === undefined || !fits) {
    const expected = kind === 'codebook' ? `${table}` : `1 to 256 tables of ${table}`;
    throw argumentError(
      'BL_INVALID_ARGUMENT',
      `QuantizedTensor: codebook has ${entries} entries, expected ${expected} (format ${format})`,
    );
  }
  return finiteCodebook('QuantizedTensor', given);
}

/** A table as f32; throws `BL_NON_FINITE` where an entry is not finite. */
export function finiteCodebook(op: string, given: Float32Array | readonly number[]): Float32Array {
  const table = given instanceof Float32Array ? given : Float32Array.from(given);
  const bad = table.findIndex((value) => !Number.isFinite(value));
  if (bad >= 0) {
    throw argumentError(
      'BL_NON_FINITE',
      `${op}: codebook[${bad}] is ${table[bad]}, expected a finite number`,
    );
  }
  return table;
}
