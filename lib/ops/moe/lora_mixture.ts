import { checkObject, checkOptions, checkTensor, described } from '../../arguments.js';
import { argumentError } from '../../errors.js';
import { type AsyncOptions, isRecording, type RunOptions, sequence } from '../../run.js';
import { Tensor } from '../../tensor.js';
import { groupedMatmul } from '../block_sparse/grouped_matmul.js';
import { moePermute } from '../block_sparse/moe_permute.js';
import { moeUnpermute } from '../block_sparse/moe_unpermute.js';
import { add } from '../elementwise/add.js';
import { mul } from '../elementwise/mul.js';
import type { MoERoutes } from './moe_route.js';
import { indicesOf } from './values.js';

/** Low-rank experts of one product. */
export interface LoraExperts {
  /** Shape `[experts, rank, K]` */
  down: Tensor<'f32'>;
  /** Shape `[experts, N, rank]` */
  up: Tensor<'f32'>;
  /** Default 1. */
  scale?: number;
}

/** Options of {@link loraMixture}. */
export interface LoraMixtureOptions extends RunOptions {
  /** Shape `[tokens, N]`: the shared product, to which experts are added. Default: zeros. */
  base?: Tensor<'f32'>;
  /** Shape `[tokens, N]`; may be `base`. Default: a new tensor. */
  out?: Tensor<'f32'>;
}

const known = new Set(['base', 'out', 'isa', 'threads']);

/**
 * Experts of low rank on a product that all tokens share, whose weights may be of any low-bit format:
 *
 * `out[t] = base[t] + scale * sum over k of weights[t, k] * up_e (down_e x[t])`, e = indices[t, k]
 *
 * | system | how |
 * | --- | --- |
 * | MoLA (Gao et al. 2024) | a number of experts of its own for each layer, routed by `moeRoute` |
 * | LoRA-Mixer (Li et al. 2025) | for the products of attention, query, key, value and output, each with routes of its own |
 * | SMoRA (Zhao et al. 2025) | every rank is an expert: `down` [ranks, 1, K], `up` [ranks, N, 1], `topK` ranks of a token |
 *
 * Each expert multiplies the rows of its tokens together; experts that no token goes to are not read.
 *
 * @param x [tokens, K] f32
 * @param routes indices [tokens, topK], -1: nowhere; weights [tokens, topK]
 * @throws `BL_OUT_OF_RANGE` (an index that is no expert's; in a sequence, where indices are read when it runs, in the name of
 *   {@link moePermute}), `BL_INVALID_SHAPE`, `BL_INVALID_DTYPE`, `BL_INVALID_ARGUMENT`, before anything is written
 *
 * @example
 * ```ts
 * const base = matmul(x, w, { compute: 'i8' }); // w in 4 bits
 * const routes = moeRoute(matmul(x, router), { topK: 2, normalize: true });
 * const y = loraMixture(x, routes, { down, up, scale: 2 }, { base });
 * ```
 */
export function loraMixture(
  x: Tensor<'f32'>,
  routes: MoERoutes,
  experts: LoraExperts,
  options: LoraMixtureOptions = {},
): Tensor<'f32'> {
  checkArguments(x, routes, experts, options);
  return compute(x, routes, experts, options);
}

/** {@link loraMixture} on a worker thread. */
export async function loraMixtureAsync(
  x: Tensor<'f32'>,
  routes: MoERoutes,
  experts: LoraExperts,
  options: LoraMixtureOptions & AsyncOptions = {},
): Promise<Tensor<'f32'>> {
  const { signal, ...rest } = options;
  checkArguments(x, routes, experts, rest);
  return sequence(() => compute(x, routes, experts, rest), signal === undefined ? {} : { signal });
}

function compute(
  x: Tensor<'f32'>,
  routes: MoERoutes,
  { down, up, scale = 1 }: LoraExperts,
  { base, out, ...run }: LoraMixtureOptions,
): Tensor<'f32'> {
  const [count = 0] = down.shape;
  const permuted = moePermute(x, routes.indices, { ...run, experts: count });
  const narrow = groupedMatmul(permuted.rows, down, permuted.offsets, run);
  const wide = groupedMatmul(narrow, up, permuted.offsets, run);
  const sums = moeUnpermute(wide, permuted.inverse, { ...run, weights: routes.weights });
  if (scale !== 1) mul(sums, new Tensor('f32', [scale], []), { ...run, out: sums });
  const start = base ?? Tensor.zeros('f32', sums.shape);
  return add(start, sums, { ...run, ...(out === undefined ? {} : { out }) });
}

function checkArguments(
  x: Tensor<'f32'>,
  routes: MoERoutes,
  experts: LoraExperts,
  options: LoraMixtureOptions,
): void {
  const op = 'loraMixture';
  checkTensor(op, 'x', x);
  checkObject(op, 'routes', routes);
  checkObject(op, 'experts', experts);
  checkOptions(op, options, known);
  const { down, up, scale = 1 } = experts;
  const { base, out } = options;
  const { indices, weights } = routes;
  const given = {
    ...{ x, 'experts.down': down, 'experts.up': up },
    ...{ 'routes.indices': indices, 'routes.weights': weights },
    ...(base && { base }),
    ...(out && { out }),
  };
  for (const [name, tensor] of Object.entries(given)) {
    checkTensor(op, name, tensor);
    const dtype = name === 'routes.indices' ? 'i32' : 'f32';
    if (tensor.dtype === dtype) continue;
    throw argumentError(
      'BL_INVALID_DTYPE',
      `${op}: ${name}.dtype is ${tensor.dtype}, expected ${dtype}`,
    );
  }
  const [count = 0, rank = 0, columns = 0] = down.shape;
  const [upCount, rows = 0, upRank] = up.shape;
  const [tokens = 0] = x.shape;
  const sizes: [string, unknown, unknown, string][] = [
    ['experts.down.rank', down.rank, 3, '[experts, rank, K]'],
    ['experts.up.rank', up.rank, 3, '[experts, N, rank]'],
    ['experts.up.shape[0]', upCount, count, 'experts.down.shape[0]'],
    ['experts.up.shape[2]', upRank, rank, 'experts.down.shape[1]'],
    ['x.rank', x.rank, 2, '[tokens, K]'],
    ['x.shape[1]', x.shape[1], columns, 'experts.down.shape[2]'],
    ['routes.indices.rank', indices.rank, 2, '[tokens, topK]'],
    ['routes.indices.shape[0]', indices.shape[0], tokens, 'x.shape[0]'],
    ['routes.weights.shape', `[${weights.shape}]`, `[${indices.shape}]`, 'indices.shape'],
  ];
  for (const [name, tensor] of Object.entries({ base, out })) {
    if (tensor === undefined) continue;
    sizes.push([`${name}.shape`, `[${tensor.shape}]`, `[${[tokens, rows]}]`, '[tokens, N]']);
  }
  for (const [name, actual, expected, source] of sizes) {
    if (actual === expected) continue;
    throw argumentError(
      'BL_INVALID_SHAPE',
      `${op}: ${name} is ${actual}, expected ${expected} (= ${source})`,
    );
  }
  if (typeof scale !== 'number' || !Number.isFinite(scale)) {
    throw argumentError(
      'BL_INVALID_ARGUMENT',
      `${op}: experts.scale is ${described(scale)}, expected a finite number`,
    );
  }
  // Values that a sequence has yet to compute are checked where they are read.
  if (!isRecording()) indicesOf(op, 'routes.indices', indices, count);
}
