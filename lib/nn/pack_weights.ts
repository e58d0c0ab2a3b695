import { packsInPlace, packWeightsAsync } from '../ops/quantize/pack_weights.js';
import type { QuantizedTensor } from '../quantized_tensor.js';
import type { AsyncOptions, RunOptions } from '../run.js';

/**
 * The matrix in the layout that {@link matmul} reads, packed in place: the bytes of `weights` are rearranged, and only
 * the matrix that is returned may be used after. Gives `weights` back where that layout has another size or there are
 * fewer than 16 rows.
 */
export async function packInPlace(
  weights: QuantizedTensor,
  options: RunOptions & AsyncOptions = {},
): Promise<QuantizedTensor> {
  if (weights.rows < 16 || !packsInPlace(weights)) return weights;
  return packWeightsAsync(weights, { ...options, inPlace: true });
}
