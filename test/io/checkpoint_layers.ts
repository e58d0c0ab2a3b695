/**
 * Layers as quantizers write them: encoders from the definitions of the formats, in big integers, and the weights in
 * double precision that the checkpoints stand for.
 */
import type { SafetensorsTensorInput } from '../../lib/io/index.js';
import { randomSource } from '../reference/random.js';

/** A layer before it is written: weight[n][k] = scales[n][g] * (codes[n][k] - zeros[n][g]), g = groupOf[k]. */
export interface Layer {
  readonly rows: number;
  readonly cols: number;
  readonly bits: number;
  /** Columns of a group; cols for one group. */
  readonly groupSize: number;
  readonly groups: number;
  readonly codes: readonly number[][];
  readonly zeros: readonly number[][];
  readonly scaleType: 'f16' | 'bf16' | 'f32';
  readonly scales: readonly number[][];
  readonly groupOf: readonly number[];
}

export interface LayerOptions {
  readonly rows: number;
  readonly cols: number;
  readonly bits: number;
  /** -1: the row. */
  readonly groupSize: number;
  readonly scaleType?: 'f16' | 'bf16' | 'f32';
  /** Zero points from here, inclusive; default: 0 to 2^bits - 1. */
  readonly zeros?: readonly [least: number, most: number];
  /** Groups in the order of activations: columns of a group are strewn over the row. */
  readonly shuffled?: boolean;
  /** Scales near 0.01, as in models; default: any finite ones, denormal and negative too. */
  readonly usual?: boolean;
}

export function randomLayer(options: LayerOptions, seed: number): Layer {
  const { rows, cols, bits, scaleType = 'f16' } = options;
  const random = randomSource(seed);
  const upTo = (most: number) => Math.floor(random() * (most + 1));
  const [least, most] = options.zeros ?? [0, 2 ** bits - 1];
  const groupSize = options.groupSize === -1 ? cols : options.groupSize;
  const groups = Math.ceil(cols / groupSize);
  const table = <T>(height: number, width: number, make: () => T): T[][] =>
    Array.from({ length: height }, () => Array.from({ length: width }, make));
  const scale = (): number => {
    const sign = random() < 0.2 ? -1 : 1;
    const mantissa = scaleType === 'bf16' ? upTo(127) / 128 : upTo(1023) / 1024;
    if (options.usual) return sign * (1 + mantissa) * 2 ** -7;
    // The least exponent without the leading 1 is a denormal.
    const [low, high] = scaleType === 'bf16' ? [-126, 100] : [-14, 15];
    const exponent = low + upTo(high - low);
    return sign * ((exponent === low ? 0 : 1) + mantissa) * 2 ** exponent;
  };
  const groupOf = Array.from({ length: cols }, (_, k) => Math.floor(k / groupSize));
  for (let k = cols - 1; options.shuffled && k > 0; k--) {
    const other = upTo(k);
    [groupOf[k], groupOf[other]] = [groupOf[other] as number, groupOf[k] as number];
  }
  return {
    rows,
    cols,
    bits,
    groupSize,
    groups,
    scaleType,
    groupOf,
    codes: table(rows, cols, () => upTo(2 ** bits - 1)),
    zeros: table(rows, groups, () => least + upTo(most - least)),
    scales: table(rows, groups, scale),
  };
}

/** The weights [rows, cols], each exact in double precision. */
export function layerWeights({ rows, cols, codes, zeros, scales, groupOf }: Layer): Float64Array {
  const weights = new Float64Array(rows * cols);
  for (let n = 0; n < rows; n++) {
    for (let k = 0; k < cols; k++) {
      const g = groupOf[k] as number;
      const code = codes[n]?.[k] as number;
      weights[n * cols + k] = (scales[n]?.[g] as number) * (code - (zeros[n]?.[g] as number));
    }
  }
  return weights;
}

/** Numbers of `width` bits, the first lowest, as words of 32 bits. */
function bitStream(values: readonly number[], width: number): number[] {
  const words: number[] = [];
  // 32 numbers fill `width` words.
  for (let first = 0; first < values.length; first += 32) {
    const some = values.slice(first, first + 32);
    let stream = some.reduceRight((high, value) => (high << BigInt(width)) | BigInt(value), 0n);
    for (let i = 0; i < Math.ceil((some.length * width) / 32); i++) {
      words.push(Number(stream & 0xffffffffn));
      stream >>= 32n;
    }
  }
  return words;
}

/** As many numbers in each word as it holds whole. */
function wholeWords(values: readonly number[], width: number): number[] {
  const each = Math.floor(32 / width);
  const words: number[] = [];
  for (let i = 0; i < values.length; i += each) {
    words.push(bitStream(values.slice(i, i + each), width)[0] as number);
  }
  return words;
}

const transpose = (table: readonly (readonly number[])[]): number[][] =>
  (table[0] ?? []).map((_, column) => table.map((line) => line[column] as number));

const bytesOf = (array: ArrayBufferView) =>
  new Uint8Array(array.buffer, array.byteOffset, array.byteLength);

export function i32(name: string, table: readonly (readonly number[])[]): SafetensorsTensorInput {
  const shape = [table.length, table[0]?.length ?? 0];
  return { name, type: 'i32', shape, data: bytesOf(Uint32Array.from(table.flat())) };
}

export function i32Vector(name: string, values: readonly number[]): SafetensorsTensorInput {
  return { name, type: 'i32', shape: [values.length], data: bytesOf(Int32Array.from(values)) };
}

/** Values that the type holds exactly. */
export function floats(
  name: string,
  type: 'f16' | 'bf16' | 'f32',
  table: readonly (readonly number[])[],
): SafetensorsTensorInput {
  const values = Float32Array.from(table.flat());
  const shape = [table.length, table[0]?.length ?? 0];
  const high = new Uint32Array(values.buffer);
  const data = { f32: values, bf16: Uint16Array.from(high, (bits) => bits >>> 16) };
  if (type !== 'f16') return { name, type, shape, data: bytesOf(data[type]) };
  const half = Uint16Array.from(values, (value) => {
    const magnitude = Math.abs(value);
    const exponent = magnitude < 2 ** -14 ? -14 : Math.floor(Math.log2(magnitude));
    // A denormal has the exponent field 0 but counts in the steps of 1.
    const code = magnitude / 2 ** (exponent - 10) + (exponent + 14) * 1024;
    return (value < 0 ? 0x8000 : 0) + code;
  });
  return { name, type, shape, data: bytesOf(half) };
}

export function gptqTensors(layer: Layer, prefix: string, version: 1 | 2) {
  const { bits, codes, zeros, scales, scaleType, groupOf } = layer;
  const stored = transpose(zeros).map((line) => line.map((zero) => zero - (version === 1 ? 1 : 0)));
  return [
    i32(`${prefix}.qweight`, transpose(codes.map((row) => bitStream(row, bits)))),
    i32(
      `${prefix}.qzeros`,
      stored.map((line) => bitStream(line, bits)),
    ),
    floats(`${prefix}.scales`, scaleType, transpose(scales)),
    i32Vector(`${prefix}.g_idx`, groupOf),
  ];
}

const awqOrder = [0, 2, 4, 6, 1, 3, 5, 7];

/** Eight outputs in a word. */
function awqWords(line: readonly number[]): number[] {
  const words: number[] = [];
  for (let n = 0; n < line.length; n += 8) {
    const nibbles = awqOrder.map((output) => line[n + output] as number);
    words.push(bitStream(nibbles, 4)[0] as number);
  }
  return words;
}

export function awqTensors(layer: Layer, prefix: string) {
  const { codes, zeros, scales, scaleType } = layer;
  return [
    i32(`${prefix}.qweight`, transpose(codes).map(awqWords)),
    i32(`${prefix}.qzeros`, transpose(zeros).map(awqWords)),
    floats(`${prefix}.scales`, scaleType, transpose(scales)),
  ];
}

/** How zero points are stored, and whether there is an order of columns. */
export interface CompressedOptions {
  readonly zeros: 'none' | 'packed' | 'i8';
  readonly gIdx?: 'none' | 'given' | 'unused';
}

export function compressedTensors(layer: Layer, prefix: string, options: CompressedOptions) {
  const { rows, cols, bits, codes, zeros, scales, scaleType, groupOf } = layer;
  const tensors: SafetensorsTensorInput[] = [
    i32(
      `${prefix}.weight_packed`,
      codes.map((row) => wholeWords(row, bits)),
    ),
    floats(`${prefix}.weight_scale`, scaleType, scales),
    {
      name: `${prefix}.weight_shape`,
      type: 'i64',
      shape: [2],
      data: bytesOf(BigInt64Array.of(BigInt(rows), BigInt(cols))),
    },
  ];
  const name = `${prefix}.weight_zero_point`;
  if (options.zeros === 'packed') {
    tensors.push(i32(name, transpose(transpose(zeros).map((line) => wholeWords(line, bits)))));
  } else if (options.zeros === 'i8') {
    const signed = zeros.flat().map((zero) => zero - 2 ** (bits - 1));
    const data = bytesOf(Int8Array.from(signed));
    tensors.push({ name, type: 'i8', shape: [rows, layer.groups], data });
  }
  if (options.gIdx === 'given' || options.gIdx === 'unused') {
    const indices = options.gIdx === 'given' ? groupOf : groupOf.map(() => -1);
    tensors.push(i32Vector(`${prefix}.weight_g_idx`, indices));
  }
  return tensors;
}
