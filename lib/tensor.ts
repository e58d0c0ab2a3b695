import { alignedMemory } from './aligned_memory.js';
import { checkTensor, isTensor } from './arguments.js';
import { DeviceMemory, type DeviceName, deviceNumber, recordedStream, upload } from './device.js';
import {
  type DataTypes,
  type DTypeName,
  dtypeOf,
  type FloatDType,
  type Normalized,
  typedArrays,
} from './dtype.js';
import { readers, valuesToBits } from './elements.js';
import { argumentError } from './errors.js';
import { type DType, dtypes } from './generated.js';
import { type NativeMemory, native } from './native.js';
import { contiguousStrides, elementCount, extentOf, forEachPlace } from './shape.js';
import { bytesOf, checkedBytes, type TensorSource } from './tensor_source.js';

export type { DataTypes, DTypeAliases, DTypeName, FloatDType, Normalized } from './dtype.js';
export type { TensorSource } from './tensor_source.js';

/** How a strided view lies over its memory. */
export interface TensorLayout {
  /** In elements, outermost first; default: contiguous rows. */
  strides?: readonly number[];
}

/**
 * A typed view of memory: dtype, shape and strides over bytes that it does not copy.
 *
 * @typeParam D element type; it decides the type of {@link Tensor.data}.
 *
 * @example
 * ```ts
 * const x = new Tensor('f32', [1, 2, 3, 4, 5, 6], [2, 3]);
 * const zeros = Tensor.zeros('f16', [2, 3]);
 * x.data[0]; // 1, a Float32Array
 * ```
 */
export class Tensor<D extends DType = DType> {
  readonly dtype: D;
  readonly shape: readonly number[];
  readonly strides: readonly number[];
  /** What native calls read: [dtype, rank, shape..., strides...]. */
  readonly descriptor: Float64Array;
  #bytes: Uint8Array;
  readonly #memory: DeviceMemory | undefined;
  #owned: boolean;
  #disposed = false;

  /**
   * Lays a tensor over `data` (typed array, Buffer, DataView, ArrayBuffer or SharedArrayBuffer, at any
   * byte offset) without copying; a plain array of numbers is converted into new memory.
   *
   * @param dtype element type, or ONNX Runtime's name for it ('float32', ...).
   * @param data memory of a device as well: {@link Tensor.to} and {@link Tensor.empty} make it.
   * @param shape sizes, outermost first; at most 6.
   * @throws `BL_INVALID_DTYPE`, `BL_INVALID_SHAPE`, `BL_BUFFER_TOO_SMALL`, `BL_DETACHED`
   */
  constructor(
    dtype: D | (DTypeName & { [K in DTypeName]: Normalized<K> extends D ? K : never }[DTypeName]),
    data: TensorSource | readonly number[] | DeviceMemory,
    shape: readonly number[],
    layout: TensorLayout = {},
  ) {
    this.dtype = dtypeOf(dtype) as D;
    const count = elementCount(shape);
    this.shape = Object.freeze([...shape]);
    this.strides = Object.freeze([...(layout.strides ?? contiguousStrides(shape))]);
    if (this.strides.length !== shape.length) {
      throw argumentError(
        'BL_INVALID_SHAPE',
        `Tensor: strides has ${this.strides.length} entries, expected ${shape.length} (= shape.length)`,
      );
    }
    this.#owned = false;
    this.#memory = data instanceof DeviceMemory ? data : undefined;
    if (data instanceof DeviceMemory) {
      this.#bytes = new Uint8Array(0);
    } else if (Array.isArray(data)) {
      if (data.length !== count) {
        throw argumentError(
          'BL_INVALID_SHAPE',
          `Tensor: data has ${data.length} elements, expected ${count} (shape [${shape}])`,
        );
      }
      this.#bytes = bytesOf(valuesToBits(this.dtype, data as number[]));
      this.#owned = true;
    } else {
      this.#bytes = checkedBytes(data as TensorSource, this.dtype);
    }
    const needed = extentOf(this.shape, this.strides) * dtypes[this.dtype].bytes;
    const available = (this.#memory ?? this.#bytes).byteLength;
    if (available < needed) {
      throw argumentError(
        'BL_BUFFER_TOO_SMALL',
        `Tensor: data has ${available} bytes, expected at least ${needed} ` +
          `(${this.dtype} [${this.shape}], strides [${this.strides}])`,
      );
    }
    // Filled by index: Float64Array.from() takes four times as long, and operators make tensors.
    const rank = shape.length;
    const descriptor = new Float64Array(2 + 2 * rank);
    descriptor[0] = dtypes[this.dtype].id;
    descriptor[1] = rank;
    for (let axis = 0; axis < rank; axis++) {
      descriptor[2 + axis] = this.shape[axis] as number;
      descriptor[2 + rank + axis] = this.strides[axis] as number;
    }
    this.descriptor = descriptor;
  }

  /** New memory, all zero. */
  static zeros<N extends DTypeName>(dtype: N, shape: readonly number[]): Tensor<Normalized<N>> {
    const name = dtypeOf(dtype) as Normalized<N>;
    const bytes = elementCount(shape) * dtypes[name].bytes;
    let memory: Uint8Array;
    try {
      memory = alignedMemory(bytes);
    } catch (cause) {
      throw Object.assign(
        argumentError('BL_OUT_OF_MEMORY', `Tensor: cannot allocate ${bytes} bytes for [${shape}]`),
        { cause },
      );
    }
    const tensor = new Tensor<Normalized<N>>(name, memory, shape);
    tensor.#owned = true;
    return tensor;
  }

  /** New memory, on a device if one is named; there it has no particular content, here it is zero. */
  static empty<N extends DTypeName>(
    dtype: N,
    shape: readonly number[],
    device: DeviceName = 'cpu',
  ): Tensor<Normalized<N>> {
    if (device === 'cpu') return Tensor.zeros(dtype, shape);
    const name = dtypeOf(dtype) as Normalized<N>;
    const bytes = elementCount(shape) * dtypes[name].bytes;
    return Tensor.#owning(name, DeviceMemory.allocate(device, bytes), shape);
  }

  static #owning<D extends DType>(
    dtype: D,
    memory: DeviceMemory | Uint8Array,
    shape: readonly number[],
    layout?: TensorLayout,
  ): Tensor<D> {
    const tensor = new Tensor<D>(dtype as never, memory, shape, layout);
    tensor.#owned = true;
    return tensor;
  }

  /** Where the data lies. */
  get device(): DeviceName {
    return this.#memory?.device ?? 'cpu';
  }

  /**
   * A copy on another device, or on the processor; the strides stay. What is queued on the device's default stream by
   * now is done before. On the same device: the tensor itself.
   *
   * @throws `BL_NOT_FOUND` where there is no such device, `BL_OUT_OF_MEMORY`, `BL_DEVICE_LOST`
   *
   * @example
   * ```ts
   * const x = await new Tensor('f32', [1, 2, 3, 4], [2, 2]).to('cuda:0');
   * const y = await softmax(x).to('cpu');
   * ```
   */
  async to(device: DeviceName): Promise<Tensor<D>> {
    if (device === this.device) return this;
    if (device === 'cpu') {
      const memory = this.#memory as DeviceMemory;
      const bytes = new Uint8Array(this.#neededBytes());
      await native.deviceDownloadAsync(bytes, memory.handle, recordedStream()?.handle);
      return Tensor.#owning(this.dtype, bytes, this.shape, { strides: this.strides });
    }
    deviceNumber(device);
    if (this.#memory !== undefined) return (await this.to('cpu')).to(device);
    const memory = DeviceMemory.allocate(device, this.#neededBytes());
    await upload(memory, this.bytes.subarray(0, memory.byteLength));
    return Tensor.#owning(this.dtype, memory, this.shape, { strides: this.strides });
  }

  /** {@link to}, blocking. */
  toSync(device: DeviceName): Tensor<D> {
    if (device === this.device) return this;
    if (device === 'cpu') {
      const bytes = new Uint8Array(this.#neededBytes());
      native.deviceDownload(bytes, (this.#memory as DeviceMemory).handle, recordedStream()?.handle);
      return Tensor.#owning(this.dtype, bytes, this.shape, { strides: this.strides });
    }
    deviceNumber(device);
    if (this.#memory !== undefined) return this.toSync('cpu').toSync(device);
    const memory = DeviceMemory.allocate(device, this.#neededBytes());
    native.deviceUpload(
      memory.handle,
      this.bytes.subarray(0, memory.byteLength),
      recordedStream()?.handle,
    );
    return Tensor.#owning(this.dtype, memory, this.shape, { strides: this.strides });
  }

  /**
   * Copies elements over the tensor's, from its first one on, in order: a way to give a tensor on a device new values.
   *
   * @throws `BL_BUFFER_TOO_SMALL` if the tensor has less memory
   */
  write(data: TensorSource): void {
    const bytes = bytesOf(data);
    if (this.#memory !== undefined) {
      native.deviceUpload(this.#memory.handle, bytes, recordedStream()?.handle);
    } else if (bytes.byteLength > this.bytes.byteLength) {
      throw argumentError(
        'BL_BUFFER_TOO_SMALL',
        `write: the tensor has ${this.bytes.byteLength} bytes, expected at least ${bytes.byteLength}`,
      );
    } else {
      this.bytes.set(bytes);
    }
  }

  /** @internal */
  get [isTensor](): boolean {
    return #bytes in this;
  }

  /** What native calls read. @internal */
  get nativeMemory(): Uint8Array | NativeMemory {
    return this.#memory === undefined ? this.bytes : this.#memory.handle;
  }

  /** Elements, the product of the shape. */
  get size(): number {
    return this.shape.reduce((product, size) => product * size, 1);
  }

  get rank(): number {
    return this.shape.length;
  }

  get disposed(): boolean {
    return this.#disposed;
  }

  /** The bytes under the tensor, from its first element on. */
  get bytes(): Uint8Array {
    if (this.#disposed) throw argumentError('BL_DETACHED', 'Tensor: used after dispose()');
    if (this.#memory !== undefined) {
      throw argumentError(
        'BL_UNSUPPORTED',
        `Tensor: the data is on ${this.device}; copy it with to('cpu')`,
      );
    }
    return this.#bytes;
  }

  /**
   * The elements as a typed array over the same memory (f16, bf16 and f8 as raw bits), for a contiguous
   * tensor at an aligned address; {@link Tensor.toArray} works for every tensor.
   *
   * @throws `BL_UNSUPPORTED` if the bytes are not aligned to the element size.
   */
  get data(): DataTypes[D] {
    const bytes = this.bytes;
    const { array, bytes: size } = dtypes[this.dtype];
    if (bytes.byteOffset % size !== 0) {
      throw argumentError(
        'BL_UNSUPPORTED',
        `Tensor: data at byte offset ${bytes.byteOffset} is not aligned to ${size}; use toArray()`,
      );
    }
    const View = typedArrays[array];
    return new View(
      // A typed array takes a SharedArrayBuffer as well; the union of their constructors says otherwise.
      bytes.buffer as ArrayBuffer,
      bytes.byteOffset,
      Math.floor(bytes.byteLength / size),
    ) as unknown as DataTypes[D];
  }

  /** The elements in row-major order as numbers, converted exactly; a copy. */
  toArray(): number[] {
    const { bytes } = this;
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const read = readers[this.dtype];
    const size = dtypes[this.dtype].bytes;
    const values: number[] = [];
    forEachPlace(this.shape, this.strides, (place) => values.push(read(view, place * size)));
    return values;
  }

  /** The same memory under another shape; the tensor must be contiguous. */
  reshape(shape: readonly number[]): Tensor<D> {
    if (elementCount(shape, 'reshape') !== this.size) {
      throw argumentError(
        'BL_INVALID_SHAPE',
        `reshape: shape [${shape}] does not have the ${this.size} elements of [${this.shape}]`,
      );
    }
    if (!this.contiguous) {
      throw argumentError('BL_INVALID_SHAPE', 'reshape: the tensor is not contiguous');
    }
    return new Tensor<D>(this.dtype, this.#memory?.from(0) ?? this.bytes, shape);
  }

  /** Rows [begin, end) of the first axis, over the same memory. */
  slice(begin: number, end: number): Tensor<D> {
    const rows = this.shape[0] ?? 0;
    if (
      !Number.isInteger(begin) ||
      !Number.isInteger(end) ||
      begin < 0 ||
      end < begin ||
      end > rows
    ) {
      throw argumentError(
        'BL_OUT_OF_RANGE',
        `slice: [${begin}, ${end}) is not within [0, ${rows}]`,
      );
    }
    const first = begin * (this.strides[0] ?? 0) * dtypes[this.dtype].bytes;
    const memory = this.#memory;
    const bytes =
      memory !== undefined
        ? memory.from(begin === rows ? memory.byteLength : first)
        : begin === rows
          ? this.bytes.subarray(0, 0)
          : this.bytes.subarray(first);
    return new Tensor<D>(this.dtype, bytes, [end - begin, ...this.shape.slice(1)], {
      strides: this.strides,
    });
  }

  get contiguous(): boolean {
    const expected = contiguousStrides(this.shape);
    return this.shape.every((size, axis) => size === 1 || this.strides[axis] === expected[axis]);
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

  #neededBytes(): number {
    return extentOf(this.shape, this.strides) * dtypes[this.dtype].bytes;
  }
}

/**
 * `out`, or a new f32 tensor of that shape where `input` lies: where an operator writes.
 *
 * @throws `BL_INVALID_ARGUMENT` for an `out` that is no Tensor
 */
export function outputTensor<D extends FloatDType>(
  op: string,
  out: Tensor<D> | undefined,
  shape: readonly number[],
  input: { readonly device: DeviceName },
): Tensor<D> {
  if (out === undefined || out === null) {
    return Tensor.empty('f32', shape, input.device) as Tensor<DType> as Tensor<D>;
  }
  checkTensor(op, 'out', out);
  return out;
}
