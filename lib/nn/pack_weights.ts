import { type Isa, isas } from '../generated.js';
import { machine } from '../machine.js';
import { packAsync } from '../ops/quantize/pack.js';
import { QuantizedTensor } from '../quantized_tensor.js';
import type { AsyncOptions, RunOptions } from '../run.js';

/**
 * The matrix in the layout that products with one token read fastest, packed in place: the bytes of `weights` are
 * rearranged, and only the matrix that is returned may be used after. Gives `weights` back where nothing is to be
 * gained: for formats other than q4_0 and q8_0, fewer than 16 rows, and levels below avx512.
 */
export async function packInPlace(
  weights: QuantizedTensor,
  options: RunOptions & AsyncOptions = {},
): Promise<QuantizedTensor> {
  const level: Isa = options.isa ?? machine().isa;
  const { format, rows, shape, layout, tensorScale } = weights;
  if (isas[level] < isas.avx512 || rows < 16 || layout !== 'canonical') return weights;
  if (format !== 'q4_0' && format !== 'q8_0') return weights;
  const out = new QuantizedTensor(format, weights.bytes, shape, {
    layout: 'lanes16',
    tensorScale,
  });
  return packAsync(weights as QuantizedTensor<typeof format>, { ...options, out });
}
