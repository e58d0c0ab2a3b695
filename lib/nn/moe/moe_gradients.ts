import { checkNumber, checkObject, checkOptions, checkTensor } from '../../arguments.js';
import { argumentError } from '../../errors.js';
import { groupedMatmul, groupedOuter } from '../../ops/block_sparse/grouped_matmul.js';
import { moePermute, type PermutedRows } from '../../ops/block_sparse/moe_permute.js';
import { moeUnpermute } from '../../ops/block_sparse/moe_unpermute.js';
import { type MoERoutes, type MoEScoring, moeRoute } from '../../ops/moe/moe_route.js';
import { checkNotRecording } from '../../run.js';
import { type FloatDType, Tensor } from '../../tensor.js';
import {
  activate,
  activateBackward,
  checkActivation,
  type ExpertActivation,
} from './expert_activation.js';
import {
  blockSparseProducts,
  type ExpertProducts,
  type ExpertRun,
  groupedProducts,
} from './expert_products.js';
import { addRouteGradient, routeRule, routerLosses } from './router_gradient.js';

/** Weights of a mixture's feed-forward layer; contiguous, experts in f32, f16 or bf16. */
export interface MoELayerWeights {
  /** Shape `[experts, hidden]` */
  router: Tensor<'f32'>;
  /** Shape `[experts, ffn, hidden]`; without it an expert is `down(activation(up(x)))`. */
  gate?: Tensor<FloatDType>;
  /** Shape `[experts, ffn, hidden]` */
  up: Tensor<FloatDType>;
  /** Shape `[experts, hidden, ffn]` */
  down: Tensor<FloatDType>;
}

/** Options of {@link moeLayerForward}. */
export interface MoETrainingOptions extends ExpertRun {
  /** Experts of a token. */
  topK: number;
  /** What logits become, as in `moeRoute`. Default `'softmax'`. */
  scoring?: MoEScoring;
  /** Whether weights are divided by their sum. Default false. */
  normalize?: boolean;
  /** Multiplies the weights. Default 1. */
  scale?: number;
  /** Default `'silu'`. */
  activation?: ExpertActivation;
  /** Products as those of a block-sparse matrix with blocks of 16, 32, 64 or 128. Default: a product per expert. */
  blockSize?: number;
  /** Weight of the load-balancing loss in gradients. Default 0. */
  balanceWeight?: number;
  /**
   * Shape `[experts]`: routes of the global batch, for the balance between all that machines and steps saw together (Qiu et al. 2025;
   * `RouterLoad`). Default: those of this batch.
   */
  balanceCounts?: readonly number[];
  /** Weight of the z-loss in gradients. Default 0. */
  zWeight?: number;
}

/** What {@link moeLayerBackward} needs of a forward pass; the tensors are those of the call, not copies. */
export interface MoELayerState {
  readonly x: Tensor<'f32'>;
  readonly weights: MoELayerWeights;
  readonly options: MoETrainingOptions;
  readonly logits: Tensor<'f32'>;
  /** Where each token went. */
  readonly routes: MoERoutes;
  readonly permuted: PermutedRows<'f32'>;
  readonly products: ExpertProducts;
  readonly gate: Tensor<'f32'> | undefined;
  readonly up: Tensor<'f32'>;
  readonly hidden: Tensor<'f32'>;
  readonly rows: Tensor<'f32'>;
}

/** Gradients of a layer, f32, of the shapes of what they belong to. */
export interface MoELayerGradients {
  x: Tensor<'f32'>;
  router: Tensor<'f32'>;
  gate?: Tensor<'f32'>;
  up: Tensor<'f32'>;
  down: Tensor<'f32'>;
  /** The load-balancing loss, experts * sum of f * p, p of the batch and f of it or of `balanceCounts`, not weighted. */
  balanceLoss: number;
  /** The z-loss of the batch, not weighted. */
  zLoss: number;
}

const known = new Set([
  'topK',
  'scoring',
  'normalize',
  'scale',
  'activation',
  'blockSize',
  'balanceWeight',
  'balanceCounts',
  'zWeight',
  'compute',
  'isa',
  'threads',
]);
const floats: readonly string[] = ['f32', 'f16', 'bf16'];

/** Products read rows as they lie, some of them in JavaScript. */
function checkDense(
  op: string,
  name: string,
  tensor: unknown,
  expected: string,
  dtypes: readonly string[],
): void {
  checkTensor(op, name, tensor);
  const wrong: [boolean, 'BL_INVALID_SHAPE' | 'BL_INVALID_DTYPE', string][] = [
    [
      `[${tensor.shape}]` !== expected.split(' ')[0],
      'BL_INVALID_SHAPE',
      `shape is [${tensor.shape}], expected ${expected}`,
    ],
    [
      !dtypes.includes(tensor.dtype),
      'BL_INVALID_DTYPE',
      `dtype is ${tensor.dtype}, expected ${dtypes.join(' or ')}`,
    ],
    [
      !tensor.contiguous,
      'BL_INVALID_SHAPE',
      `strides is [${tensor.strides}], expected those of contiguous rows`,
    ],
  ];
  for (const [isWrong, code, problem] of wrong) {
    if (isWrong) throw argumentError(code, `${op}: ${name}.${problem}`);
  }
}

function checkArguments(
  x: Tensor<'f32'>,
  weights: MoELayerWeights,
  options: MoETrainingOptions,
): void {
  const op = 'moeLayerForward';
  checkNotRecording(op);
  checkTensor(op, 'x', x);
  checkObject(op, 'weights', weights);
  checkOptions(op, options, known);
  const { router, gate, up, down } = weights;
  checkTensor(op, 'weights.up', up);
  const [experts = 0, ffn = 0, hidden = 0] = up.shape;
  const wide = `[${[experts, ffn, hidden]}]`;
  checkDense(op, 'x', x, `[${[x.shape[0] ?? 0, hidden]}]`, ['f32']);
  checkDense(op, 'weights.router', router, `[${[experts, hidden]}]`, ['f32']);
  if (gate !== undefined) checkDense(op, 'weights.gate', gate, wide, floats);
  checkDense(op, 'weights.up', up, wide, floats);
  checkDense(op, 'weights.down', down, `[${[experts, hidden, ffn]}]`, floats);
  checkActivation(op, options.activation ?? 'silu');
  for (const name of ['balanceWeight', 'zWeight'] as const) {
    checkNumber(op, name, options[name] ?? 0, 'a finite number', Number.isFinite);
  }
}

/** Rows of a matrix that all belong to one expert. */
const oneExpert = (rows: number) => new Tensor('i32', [0, rows], [2]);
const stacked = (matrix: Tensor<'f32'>) => new Tensor('f32', matrix.bytes, [1, ...matrix.shape]);

/**
 * A mixture's feed-forward layer with float weights, dropless and without padding, for training: routes, gathers rows
 * by expert, `down(activation(gate(x)) * up(x))` of each expert, brings rows back weighted. For inference with low-bit
 * experts see `moeForward`.
 *
 * @param x [tokens, hidden], contiguous
 * @returns `out` [tokens, hidden], and what {@link moeLayerBackward} needs
 * @throws `BL_INVALID_SHAPE` (strides, too), `BL_INVALID_DTYPE`, `BL_INVALID_ARGUMENT` (within a sequence, too), and what `moeRoute`
 *   throws (`BL_NON_FINITE`)
 *
 * @example
 * ```ts
 * const { out, state } = moeLayerForward(x, { router, gate, up, down }, { topK: 2, normalize: true });
 * const gradients = moeLayerBackward(state, outGradient);
 * ```
 */
export function moeLayerForward(
  x: Tensor<'f32'>,
  weights: MoELayerWeights,
  options: MoETrainingOptions,
): { out: Tensor<'f32'>; state: MoELayerState } {
  checkArguments(x, weights, options);
  const { router, up: upWeights, down, gate: gateWeights } = weights;
  const { scoring, normalize, scale } = routeRule(options);
  const { topK, activation = 'silu', blockSize } = options;
  const run = runOf(options);
  const [experts = 0, ffn = 0] = upWeights.shape;
  // The router always in f32: a choice must not turn on the rounding of bf16.
  const logits = groupedMatmul(x, stacked(router), oneExpert(x.shape[0] as number), {
    ...run,
    compute: 'f32',
  });
  const routes = moeRoute(logits, { topK, scoring, normalize, scale });
  const permuted = moePermute(x, routes.indices, { experts });
  const products =
    blockSize === undefined
      ? groupedProducts(permuted.offsets, run)
      : blockSparseProducts(permuted.offsets, ffn, blockSize, run);
  const gate = gateWeights && products.expand(permuted.rows, gateWeights);
  const up = products.expand(permuted.rows, upWeights);
  const hidden = activate(activation, gate, up);
  const rows = products.contract(hidden, down);
  const out = moeUnpermute(rows, permuted.inverse, { weights: routes.weights });
  const state = { x, weights, options, logits, routes, permuted, products, gate, up, hidden, rows };
  return { out, state };
}

function runOf({ isa, threads, compute }: MoETrainingOptions): ExpertRun {
  return {
    ...(isa === undefined ? {} : { isa }),
    ...(threads === undefined ? {} : { threads }),
    ...(compute === undefined ? {} : { compute }),
  };
}

/**
 * Gradients of {@link moeLayerForward}: of inputs, experts and router, where the choice of experts counts as constant.
 * The losses of the router that the options weigh are part of the gradients of router and x.
 *
 * @param state of the forward pass; its tensors must be as they were
 * @param gradient [tokens, hidden], contiguous: that of the result
 * @throws as {@link moeLayerForward}
 *
 * @example
 * ```ts
 * const { out, state } = moeLayerForward(x, weights, { topK: 2, balanceWeight: 0.01 });
 * const { router, up, x: xGradient, balanceLoss } = moeLayerBackward(state, outGradient);
 * ```
 */
export function moeLayerBackward(state: MoELayerState, gradient: Tensor<'f32'>): MoELayerGradients {
  const op = 'moeLayerBackward';
  checkNotRecording(op);
  checkObject(op, 'state', state);
  checkTensor(op, 'state.x', state.x);
  checkDense(op, 'gradient', gradient, `[${state.x.shape}] (= x.shape)`, ['f32']);
  const { x, weights, options, routes, permuted, products, rows } = state;
  const { activation = 'silu' } = options;
  const experts = weights.up.shape[0] as number;
  // Each row had its token's gradient times its weight.
  const { rows: rowGradient } = moePermute(gradient, routes.indices, {
    experts,
    weights: routes.weights,
  });
  const down = products.contractWeights(rowGradient, state.hidden);
  const hidden = products.contractHidden(rowGradient, weights.down);
  const inner = activateBackward(activation, state.gate, state.up, hidden);
  const up = products.expandWeights(inner.up, permuted.rows);
  const back = products.expandRows(inner.up, weights.up);
  const gradients = { up, down };
  const gate = inner.gate && products.expandWeights(inner.gate, permuted.rows);
  if (inner.gate !== undefined && weights.gate !== undefined) {
    addTo(back, products.expandRows(inner.gate, weights.gate));
  }
  const xGradient = moeUnpermute(back, permuted.inverse);
  const { logits, balance, z } = logitGradient(state, weightGradient(gradient, rows, permuted));
  const tokens = oneExpert(x.shape[0] as number);
  const run = { ...runOf(options), compute: 'f32' as const };
  const router = groupedOuter(logits, x, tokens, run);
  addTo(
    xGradient,
    groupedMatmul(logits, stacked(weights.router), tokens, { ...run, transposeB: true }),
  );
  return {
    ...gradients,
    ...(gate === undefined ? {} : { gate }),
    x: xGradient,
    router: new Tensor('f32', router.bytes, weights.router.shape),
    balanceLoss: balance,
    zLoss: z,
  };
}

function addTo(sum: Tensor<'f32'>, other: Tensor<'f32'>): void {
  const [a, b] = [sum.data, other.data];
  for (let i = 0; i < a.length; i++) a[i] = (a[i] as number) + (b[i] as number);
}

/** Of the weight of each route: its row times its token's gradient. */
function weightGradient(
  gradient: Tensor<'f32'>,
  rows: Tensor<'f32'>,
  { inverse }: PermutedRows,
): Float64Array {
  const hidden = gradient.shape[1] as number;
  const topK = inverse.shape[1] as number;
  const [from, row] = [gradient.data, rows.data];
  return Float64Array.from(inverse.data, (place, route) => {
    const at = Math.floor(route / topK) * hidden;
    let sum = 0;
    for (let i = 0; place >= 0 && i < hidden; i++) {
      sum += (from[at + i] as number) * (row[place * hidden + i] as number);
    }
    return sum;
  });
}

function logitGradient(state: MoELayerState, ofWeights: Float64Array) {
  const { logits, routes, options } = state;
  const { balanceWeight = 0, zWeight = 0, balanceCounts } = options;
  const { balance, z, gradient } = routerLosses(
    logits,
    routes.indices,
    balanceWeight,
    zWeight,
    balanceCounts,
  );
  addRouteGradient(logits, routes, ofWeights, routeRule(options), gradient);
  return { logits: new Tensor('f32', Float32Array.from(gradient), logits.shape), balance, z };
}
