// The formats, each with what a test needs to make a matrix in it.

import type { QuantizeMethod } from '../../lib/index.js';
import { type Format, formats, type QuantizedTensor, quantize, Tensor } from '../../lib/index.js';

export const formatNames = Object.keys(formats) as Format[];

/**
 * All formats; with BITLOOM_TEST_SHARE=n one of n, from a place in the list that the seed of the run chooses. For products
 * in every format, which take minutes where sanitizers or a forced level slow them down.
 */
export const sampledFormats = formatNames.filter((_, index) => {
  const share = Number(process.env.BITLOOM_TEST_SHARE ?? 1);
  return (index + Number(process.env.BITLOOM_SEED ?? 0)) % share === 0;
});

/**
 * Neither ascending nor symmetric, with one entry twice. Several tables: three for cbs2, five for cbs4_g64, else the
 * built-in ones.
 */
export function codebookOf(format: Format): Float32Array | undefined {
  const { kind, bits } = formats[format];
  if (kind === 'codebooks') {
    if (bits === 2) return tables(3, 4);
    return format.startsWith('cbs4_g64') ? tables(5, 16) : undefined;
  }
  if (kind !== 'codebook') return undefined;
  const size = 2 ** bits;
  const table = Float32Array.from({ length: size }, (_, i) => ((i * 37) % size) / size - 0.45);
  if (size > 4) table[size - 1] = table[1] as number;
  return table;
}

/** `count` tables of `size` values, no two alike. */
export function tables(count: number, size: number): Float32Array {
  return Float32Array.from({ length: count * size }, (_, i) => {
    const table = Math.floor(i / size);
    return ((((i % size) * 5 + table) % size) / size - 0.45) * (1 + table / 3);
  });
}

/** Row lengths worth testing: around groups and bytes where the format takes them. */
export function colsOf(format: Format): number[] {
  const { kind, blockElements } = formats[format];
  if (kind === 'block') return [blockElements, 3 * blockElements];
  return [1, 31, 33, 257];
}

export function quantized(
  format: Format,
  values: Float32Array,
  shape: [number, number],
  method: QuantizeMethod = 'minmax',
): QuantizedTensor {
  const codebook = codebookOf(format);
  return quantize(new Tensor('f32', values, shape), format, {
    method,
    ...(codebook === undefined ? {} : { codebook }),
  });
}
