import { checkWeights, described } from '../../arguments.js';
import { argumentError } from '../../errors.js';
import type { Format } from '../../generated.js';
import { isMixedTensor, MixedTensor } from '../../mixed_tensor.js';
import {
  QuantizedTensor,
  type QuantizedTensorOptions,
  weightsBytes,
} from '../../quantized_tensor.js';
import type { AsyncOptions, RunOptions } from '../../run.js';
import { type PackOptions, pack, packAsync } from './pack.js';

export interface PackWeightsOptions extends RunOptions {
  /**
   * What the weights will be used for: products of a few rows (`'decode'`), of many (`'prefill'`), or both. One layout,
   * lanes16, is best for all three, so that nothing depends on it today; say what is true. `'cuda'`: for devices, layout
   * fragments; then `to('cuda:0')`. Default: `'both'`.
   */
  for?: 'decode' | 'prefill' | 'both' | 'cuda';
  /**
   * Rearranges the bytes of `weights` where the packed matrix has the same size, and takes new memory only where it has
   * not (rows that end within 32 weights, and tq1_0). `weights` must not be used after.
   */
  inPlace?: boolean;
}

/**
 * Plans and makes the matrix as {@link matmul} reads it best: layout lanes16, the same weights to the last bit. Weights
 * that are packed already come back as they are.
 *
 * matmul takes canonical weights too and packs them as it goes, sixteen rows at a time, at each call.
 *
 * @param weights [rows, cols] in any format; of a {@link MixedTensor} the matrix of each width is packed
 * @returns a matrix [rows, cols] of the same format in layout lanes16 (`'cuda'`: fragments): a view of `weights`' own bytes or new memory
 * @throws `BL_INVALID_ARGUMENT`, `BL_OUT_OF_MEMORY`, `BL_UNSUPPORTED` (a MixedTensor for `'cuda'`: `mixed` runs on the
 *   processor)
 *
 * @example
 * ```ts
 * const w = packWeights(quantize(weights, 'u4_g128'), { for: 'decode', inPlace: true });
 * const y = matmul(x, w);
 * ```
 */
export function packWeights<W extends QuantizedTensor | MixedTensor>(
  weights: W,
  options: PackWeightsOptions = {},
): W {
  const packed = plansOf(weights, options).map(({ matrix, plan }) =>
    plan === undefined ? matrix : pack(matrix, plan),
  );
  return assembled(weights, packed);
}

/** {@link packWeights} on a worker thread. */
export async function packWeightsAsync<W extends QuantizedTensor | MixedTensor>(
  weights: W,
  options: PackWeightsOptions & AsyncOptions = {},
): Promise<W> {
  const { signal } = options;
  const packed: QuantizedTensor[] = [];
  for (const { matrix, plan } of plansOf(weights, options)) {
    signal?.throwIfAborted();
    const call = plan === undefined || signal === undefined ? plan : { ...plan, signal };
    packed.push(call === undefined ? matrix : await packAsync(matrix, call));
  }
  return assembled(weights, packed);
}

/** The matrices of `weights`, each with its call of pack; `undefined`: none. */
function plansOf(
  weights: QuantizedTensor | MixedTensor,
  options: PackWeightsOptions,
): { matrix: QuantizedTensor; plan: PackOptions | undefined }[] {
  if (!isMixedTensor(weights)) return [{ matrix: weights, plan: planPack(weights, options) }];
  if (options.for === 'cuda') {
    throw argumentError(
      'BL_UNSUPPORTED',
      'packWeights: for is "cuda", expected decode, prefill or both (weights is a MixedTensor)',
    );
  }
  return weights.segments.map(({ weights: matrix }) => ({
    matrix,
    plan: planPack(matrix, options),
  }));
}

/** What `weights` is with these matrices for its own; itself if they are. */
function assembled<W extends QuantizedTensor | MixedTensor>(
  weights: W,
  matrices: readonly QuantizedTensor[],
): W {
  if (!isMixedTensor(weights)) return matrices[0] as W;
  if (weights.segments.every((segment, i) => segment.weights === matrices[i])) return weights;
  return new MixedTensor(weights.shape, weights.groupSize, weights.widths, matrices) as W;
}

/** Whether a packed matrix takes the memory that the canonical one had. */
export function packsInPlace({ format, rows, cols }: QuantizedTensor): boolean {
  return weightsBytes(format, rows, cols) === weightsBytes(format, rows, cols, 'lanes16');
}

/** The call of pack that it takes; `undefined`: none. */
function planPack<F extends Format>(
  weights: QuantizedTensor<F>,
  options: PackWeightsOptions,
): PackOptions<F> | undefined {
  checkWeights('packWeights', 'weights', weights);
  const { for: use = 'both', inPlace = false, isa, threads } = options;
  if (!['decode', 'prefill', 'both', 'cuda'].includes(use)) {
    throw argumentError(
      'BL_INVALID_ARGUMENT',
      `packWeights: for is ${described(use)}, expected decode, prefill, both or cuda`,
    );
  }
  const layout = use === 'cuda' ? 'fragments' : 'lanes16';
  if (weights.layout === layout) return undefined;
  const run: RunOptions = {};
  if (isa !== undefined) run.isa = isa;
  if (threads !== undefined) run.threads = threads;
  if (!inPlace || layout !== 'lanes16' || !packsInPlace(weights)) return { ...run, layout };
  const { format, bytes, shape, codebook, tensorScale } = weights;
  const held: QuantizedTensorOptions = { layout, tensorScale };
  if (codebook !== undefined) held.codebook = codebook;
  return { ...run, out: new QuantizedTensor(format, bytes, shape, held) };
}
