import { checkOptions, checkTensor, described } from '../../arguments.js';
import { argumentError } from '../../errors.js';
import { Tensor } from '../../tensor.js';

/** Options of {@link unsmoothedLse}. */
export interface UnsmoothedLseOptions {
  /** That of the attention. Default, also for 0: 1 / sqrt(headDim). */
  scale?: number;
}

/**
 * The log-sum-exp of attention over keys whose mean was taken off (`keyMean` of `kvAppend`), as it is over the keys
 * themselves: every score of query t and head h lacks `scale * q[t, h] . mean[g]`, so that
 *
 *     lse'[t, h] = lse[t, h] + scale * q[t, h] . mean[g]        g = h / (num_heads / num_kv_heads)
 *
 * The output needs no correction; `mergeStates` with results over other keys needs this one. Exact for scores without a soft
 * cap and without learned sinks, which do not shift along. Sums in float64. -infinity (no keys) stays.
 *
 * @param lse [queries, numHeads] f32
 * @param q [queries, numHeads, headDim] f32, as attention had it
 * @param keyMean [numKvHeads, headDim] f32
 * @returns [queries, numHeads], a new tensor
 * @throws `BL_INVALID_SHAPE`, `BL_INVALID_DTYPE`, `BL_INVALID_ARGUMENT`
 *
 * @example
 * ```ts
 * const lse = Tensor.empty('f32', [1, 8]);
 * decodeAttention(q, segments, { lse }); // pages that kvAppend filled with { keyMean }
 * unsmoothedLse(lse, q, keyMean);
 * ```
 */
export function unsmoothedLse(
  lse: Tensor<'f32'>,
  q: Tensor<'f32'>,
  keyMean: Tensor<'f32'>,
  options: UnsmoothedLseOptions = {},
): Tensor<'f32'> {
  checkOptions('unsmoothedLse', options, new Set(['scale']));
  checkInput('lse', lse, 2);
  checkInput('q', q, 3);
  checkInput('keyMean', keyMean, 2);
  const [queries = 0, numHeads = 0, headDim = 0] = q.shape;
  const [numKvHeads = 0, dim = 0] = keyMean.shape;
  expectShape('lse', lse, [queries, numHeads]);
  if (dim !== headDim || numKvHeads === 0 || numHeads % numKvHeads !== 0) {
    throw argumentError(
      'BL_INVALID_SHAPE',
      `unsmoothedLse: keyMean has shape [${keyMean.shape}], expected [a divisor of ${numHeads}, ${headDim}] (q.shape)`,
    );
  }
  const { scale: given = 0 } = options;
  const scale = given === 0 ? 1 / Math.sqrt(headDim) : given;
  if (typeof scale !== 'number' || !Number.isFinite(scale)) {
    throw argumentError(
      'BL_INVALID_ARGUMENT',
      `unsmoothedLse: scale is ${described(scale)}, expected a finite number`,
    );
  }
  const group = numHeads / numKvHeads;
  const [from, query, mean] = [lse.data, q.data, keyMean.data];
  const result = Float32Array.from({ length: queries * numHeads }, (_, row) => {
    const g = Math.floor((row % numHeads) / group);
    let sum = 0;
    for (let c = 0; c < headDim; c++) {
      sum += (query[row * headDim + c] as number) * (mean[g * headDim + c] as number);
    }
    return (from[row] as number) + scale * sum;
  });
  return new Tensor('f32', result, [queries, numHeads]);
}

function checkInput(name: string, tensor: unknown, rank: number): void {
  checkTensor('unsmoothedLse', name, tensor);
  if (tensor.dtype !== 'f32') {
    throw argumentError(
      'BL_INVALID_DTYPE',
      `unsmoothedLse: ${name}.dtype is ${tensor.dtype}, expected f32`,
    );
  }
  if (tensor.rank === rank && tensor.contiguous) return;
  throw argumentError(
    'BL_INVALID_SHAPE',
    `unsmoothedLse: ${name} has shape [${tensor.shape}], expected ${rank} axes, contiguous`,
  );
}

function expectShape(name: string, { shape }: Tensor, expected: readonly number[]): void {
  if (shape.join() === expected.join()) return;
  throw argumentError(
    'BL_INVALID_SHAPE',
    `unsmoothedLse: ${name} has shape [${shape}], expected [${expected}] (= q.shape)`,
  );
}
