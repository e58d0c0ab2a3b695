import { checkNumber, checkObject, checkOptions, checkTensor, described } from '../../arguments.js';
import { argumentError } from '../../errors.js';
import { native } from '../../native.js';
import {
  type AsyncOptions,
  type Call,
  optionalTensorValues,
  type RunOptions,
  run,
  runAsync,
  runValue,
  tensorValues,
} from '../../run.js';
import { type FloatDType, Tensor } from '../../tensor.js';
import type { Algorithm, Compute } from '../matmul/options.js';
import { algorithmId, computeId, defaultCompute } from '../matmul/values.js';
import { checkExperts, type MoEExperts } from './experts.js';
import type { MoERoutes } from './moe_route.js';

const activationIds = { silu: 0, gelu: 1, geluTanh: 2, relu: 3, relu2: 4, swigluOai: 5 };

/** What stands between an expert's projections: see {@link moeForward}. */
export type MoEActivation = keyof typeof activationIds;

/** Options of {@link moeForward}. */
export interface MoEForwardOptions<D extends FloatDType = 'f32'> extends RunOptions {
  /** Default `'silu'`. */
  activation?: MoEActivation;
  /** Bound of gate and up of `'swigluOai'`. Default 7. */
  limit?: number;
  /** How many experts, the last ones, all tokens go to. Default 0. */
  numShared?: number;
  /** Shape `[tokens, numShared]`. Default: 1. */
  sharedWeights?: Tensor<'f32'>;
  /** Shape `[tokens, hidden]`, added to the result; may be `out`. */
  residual?: Tensor<FloatDType>;
  /** As `compute` of {@link matmul}, but for `'e4m3'`. Default `'f32'`. */
  compute?: Compute;
  /** As `algorithm` of {@link matmul}; `'auto'` (default) chooses for each expert by its number of tokens. */
  algorithm?: Algorithm;
  /** Tokens of an expert at a time. Default: as many as 16 MB hold of what stands between the projections. */
  maxRows?: number;
  /** Shape `[tokens, hidden]`, apart from x. Default: a new tensor of f32. */
  out?: Tensor<D>;
  /**
   * Memory of the call, apart from all tensors and weights, {@link moeForwardWorkspaceBytes} bytes: what it has too little is allocated for the call.
   * Calls beside each other need one each.
   */
  workspace?: Tensor<'u8'>;
}

const known = new Set([
  'activation',
  'limit',
  'numShared',
  'sharedWeights',
  'residual',
  'compute',
  'algorithm',
  'maxRows',
  'out',
  'workspace',
  'isa',
  'threads',
]);

/**
 * A mixture of experts over routed tokens, dropless and without padding. With route k of token t going to expert e:
 *
 * `out[t] = residual[t] + sum over k of weights[t, k] * down_e(f(gate_e x[t]) * up_e x[t]) + shared experts of x[t]`
 *
 * | activation | f |
 * | --- | --- |
 * | `silu` | `z / (1 + exp(-z))` (SwiGLU, Shazeer 2020; Mixtral, Qwen, DeepSeek) |
 * | `gelu`, `geluTanh` | by erf, its tanh approximation |
 * | `relu`, `relu2` | `max(z, 0)`, its square (So et al. 2021) |
 * | `swigluOai` | `g / (1 + exp(-1.702 g)) * (u + 1)`, g = min(gate, limit), u = up in [-limit, limit] (gpt-oss) |
 *
 * Sums are taken in the order of the experts' numbers, shared experts last, so that results do not depend on threads.
 * An expert's products are those of {@link matmul} over its tokens: in algorithm `'auto'` the kernel, and with it the
 * last bits, depend on how many there are. Every expert that is used is read once for each `maxRows` of its tokens, and
 * others are not touched.
 *
 * @param x [tokens, hidden] f32, f16 or bf16
 * @param routes what {@link moeRoute} gives: indices [tokens, topK], -1: nowhere; weights [tokens, topK]
 * @throws `BL_OUT_OF_RANGE` (an index that is no expert's, numShared), `BL_INVALID_SHAPE`, `BL_INVALID_DTYPE`,
 *   `BL_INVALID_ARGUMENT`, `BL_UNSUPPORTED` (an algorithm that has no kernel for an expert's format), before
 *   anything is written
 *
 * @example
 * ```ts
 * const w = (rows: number, cols: number) =>
 *   quantize(new Tensor('f32', new Float32Array(rows * cols).fill(0.1), [rows, cols]), 'q8_0');
 * const experts = new MoEExperts(
 *   [1, 2, 3, 4].map(() => ({ gate: w(64, 32), up: w(64, 32), down: w(32, 64) })),
 * );
 * const x = new Tensor('f32', new Float32Array(2 * 32).fill(1), [2, 32]);
 * const routes = moeRoute(new Tensor('f32', [1, 3, 2, 0, 3, 1, 0, 2], [2, 4]), { topK: 2 });
 * const y = moeForward(x, routes, experts); // [2, 32]
 * ```
 */
export function moeForward<D extends FloatDType = 'f32'>(
  x: Tensor<FloatDType>,
  routes: MoERoutes,
  experts: MoEExperts,
  options: MoEForwardOptions<D> = {},
): Tensor<D> {
  return run(prepare(x, routes, experts, options));
}

/** {@link moeForward} on a worker thread. */
export function moeForwardAsync<D extends FloatDType = 'f32'>(
  x: Tensor<FloatDType>,
  routes: MoERoutes,
  experts: MoEExperts,
  options: MoEForwardOptions<D> & AsyncOptions = {},
): Promise<Tensor<D>> {
  const { signal, ...rest } = options;
  return runAsync(
    () => prepare(x, routes, experts, rest as MoEForwardOptions<D>),
    signal === undefined ? {} : { signal },
  );
}

/**
 * Bytes with which {@link moeForward} of such arguments allocates nothing, wherever the tokens go: of the routes only the shapes count.
 * It looks at all experts, so ask once. For one token it is what is used, for many an upper bound.
 *
 * @returns 0 where `moeForward` would refuse
 *
 * @example
 * ```ts
 * const workspace = Tensor.zeros('u8', [moeForwardWorkspaceBytes(x, routes, experts)]);
 * for (const token of tokens) moeForward(token, moeRoute(logits, { topK: 2 }), experts, { workspace });
 * ```
 */
export function moeForwardWorkspaceBytes<D extends FloatDType = 'f32'>(
  x: Tensor<FloatDType>,
  routes: MoERoutes,
  experts: MoEExperts,
  options: MoEForwardOptions<D> = {},
): number {
  return native.moeForwardWorkspaceBytes(...prepare(x, routes, experts, options).values) ?? 0;
}

function checkWhole(op: string, name: string, value: number, most: number): void {
  if (Number.isInteger(value) && value >= 0 && value <= most) return;
  throw argumentError(
    'BL_OUT_OF_RANGE',
    `${op}: ${name} is ${described(value)}, expected a whole number from 0 to ${most}`,
  );
}

function prepare<D extends FloatDType>(
  x: Tensor<FloatDType>,
  routes: MoERoutes,
  experts: MoEExperts,
  options: MoEForwardOptions<D>,
): Call<Tensor<D>> {
  const op = 'moeForward';
  checkTensor(op, 'x', x);
  checkObject(op, 'routes', routes);
  checkTensor(op, 'routes.indices', routes.indices);
  checkTensor(op, 'routes.weights', routes.weights);
  checkExperts(op, experts);
  checkOptions(op, options, known);
  const { activation = 'silu', limit = 0, numShared = 0, maxRows = 0 } = options;
  if (!Object.hasOwn(activationIds, activation)) {
    throw argumentError(
      'BL_INVALID_ARGUMENT',
      `${op}: activation is ${described(activation)}, expected ${Object.keys(activationIds).join(', ')}`,
    );
  }
  if (options.compute === 'e4m3') {
    throw argumentError('BL_UNSUPPORTED', `${op}: compute is "e4m3", expected f32, i8, bf16 or i1`);
  }
  checkNumber(op, 'limit', limit, 'a number', () => true); // which, the native call checks
  checkWhole(op, 'numShared', numShared, experts.count);
  checkWhole(op, 'maxRows', maxRows, 2 ** 31 - 1);
  const shared = optionalTensorValues(op, 'sharedWeights', options.sharedWeights);
  const residual = optionalTensorValues(op, 'residual', options.residual);
  const out = options.out ?? (Tensor.empty('f32', x.shape, x.device) as Tensor as Tensor<D>);
  checkTensor(op, 'out', out);
  const { workspace } = options;
  if (workspace !== undefined) {
    checkTensor(op, 'workspace', workspace);
    if ((workspace.dtype as string) !== 'u8') {
      throw argumentError(
        'BL_INVALID_DTYPE',
        `${op}: workspace.dtype is ${workspace.dtype}, expected u8`,
      );
    }
  }
  return {
    op,
    values: [
      ...tensorValues(x),
      ...tensorValues(routes.indices),
      ...tensorValues(routes.weights),
      experts.handle,
      numShared,
      ...shared,
      ...residual,
      ...tensorValues(out),
      activationIds[activation],
      limit,
      computeId(options.compute ?? defaultCompute(options.algorithm), op),
      algorithmId(options.algorithm ?? 'auto', op),
      maxRows,
      workspace?.bytes,
      runValue(options),
    ],
    result: out,
  };
}
