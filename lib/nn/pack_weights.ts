import { packAsync } from '../ops/quantize/pack.js';
import { QuantizedTensor, weightsBytes } from '../quantized_tensor.js';
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
  const { format, rows, cols, shape, layout, codebook, tensorScale } = weights;
  if (rows < 16 || layout !== 'canonical') return weights;
  if (weightsBytes(format, rows, cols) !== weightsBytes(format, rows, cols, 'lanes16'))
    return weights;
  const out = new QuantizedTensor(
    format,
    weights.bytes,
    shape,
    codebook === undefined
      ? { layout: 'lanes16', tensorScale }
      : { layout: 'lanes16', tensorScale, codebook },
  );
  return packAsync(weights, { ...options, out });
}
