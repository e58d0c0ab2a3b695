import { checkObject, checkOptions } from '../../../arguments.js';
import { argumentError } from '../../../errors.js';
import { matmul } from '../../../ops/matmul/matmul.js';
import { QuantizedTensor } from '../../../quantized_tensor.js';
import { Tensor } from '../../../tensor.js';
import { transposed } from '../../low_rank/truncated_svd.js';
import { activate, checkActivation, type ExpertActivation } from '../expert_activation.js';
import { bestAssignment } from './assignment.js';
import {
  checkDense,
  combine,
  type DenseExpert,
  type ExpertLayer,
  permuteNeurons,
  takeBias,
  takeRows,
} from './layer.js';

/** Options of {@link mergeExperts}. */
export interface MergeExpertsOptions {
  /** How often each expert is used: `statistics().counts` of `RouterLoad`. */
  usage: readonly number[];
  /** Experts that are left. */
  groups: number;
  /** Shape `[experts, samples]`: logits of a calibration text; similar experts have similar ones. Default: router rows. */
  features?: readonly ArrayLike<number>[];
  /**
   * Shape `[tokens, hidden]`, at least 2 tokens: what the layer reads in a calibration text, as `expertInputs` gives it. Neurons are
   * matched by what they are for these tokens. Default: by their weights.
   */
  inputs?: Tensor<'f32'>;
  /** Of the experts, for `inputs`. Default `'silu'`. */
  activation?: ExpertActivation;
}

const known = new Set(['usage', 'groups', 'features', 'inputs', 'activation']);

/** What {@link mergeExperts} gives. */
export interface MergedExperts extends ExpertLayer {
  /** Group of each former expert. */
  groupOf: number[];
  /** Former number of each group's most used expert. */
  dominant: number[];
}

/**
 * M-SMoE ("Merge, Then Compress", Li et al. 2024): merges the experts of a layer by its routing statistics.
 *
 * 1. The `groups` most used experts are dominant; each other one joins the dominant one of the highest cosine similarity
 *    of router logits (of router rows where none are given).
 * 2. Inner neurons of a group's experts are permuted to match the dominant one's, by one of the paper's two ways: the
 *    assignment of the highest sum of products of gate and up rows and down columns (weight matching, Ainsworth et al. 2023), or,
 *    with `inputs`, of the highest sum of correlations of `f(gate x) * up x` over tokens (activation matching, Li et al. 2015). The
 *    paper takes the tokens that go to both experts; here all that are given count. Neurons that do not change correlate with none.
 * 3. Weights are averaged with the usage as weight.
 *
 * The paper keeps all router rows and sends all of a group to its one expert: `groupOf` maps indices of routes so.
 * `router` is the smaller form that a model file holds, the dominant experts' rows; a bias likewise.
 *
 * Of equal usage and similarity the lower number comes first.
 *
 * @throws `BL_INVALID_SHAPE`, `BL_OUT_OF_RANGE`, `BL_INVALID_ARGUMENT` (experts in factors, activation), `BL_NON_FINITE` (weights whose
 *   products are no finite numbers)
 *
 * @example
 * ```ts
 * const counts = expertCounts(decoder, tokens);
 * const inputs = expertInputs(decoder, tokens);
 * await compressModel('model.gguf', 'merged.gguf', (layer, i) =>
 *   mergeExperts(layer, { usage: counts[i] as number[], groups: 4, inputs: inputs[i] as Tensor<'f32'> }),
 * );
 * ```
 */
export function mergeExperts(layer: ExpertLayer, options: MergeExpertsOptions): MergedExperts {
  const op = 'mergeExperts';
  const hidden = checkDense(op, layer);
  const { experts, router, bias } = layer;
  checkOptions(op, options, known);
  const { usage, groups } = options;
  checkObject(op, 'usage', usage);
  if (usage.length !== experts.length || !usage.every((x) => x >= 0 && Number.isFinite(x))) {
    throw argumentError(
      'BL_INVALID_SHAPE',
      `${op}: usage is [${usage}], expected a number of at least 0 for each of ${experts.length} experts`,
    );
  }
  if (!Number.isInteger(groups) || groups < 1 || groups > experts.length) {
    throw argumentError(
      'BL_OUT_OF_RANGE',
      `${op}: groups is ${groups}, expected a whole number from 1 to ${experts.length}`,
    );
  }
  const features =
    options.features ?? experts.map((_, e) => router.data.subarray(e * hidden, (e + 1) * hidden));
  if (features.length !== experts.length) {
    throw argumentError(
      'BL_INVALID_SHAPE',
      `${op}: features.length is ${features.length}, expected ${experts.length} (experts)`,
    );
  }
  const { inputs, activation = 'silu' } = options;
  checkActivation(op, activation);
  if (
    inputs !== undefined &&
    (`${inputs.shape.slice(1)}` !== `${hidden}` || (inputs.shape[0] ?? 0) < 2)
  ) {
    throw argumentError(
      'BL_INVALID_SHAPE',
      `${op}: inputs.shape is [${inputs.shape}], expected at least 2 tokens and ${hidden} (= router.shape[1])`,
    );
  }
  const align = (own: DenseExpert, other: DenseExpert): number[] =>
    inputs === undefined
      ? alignNeurons(own, other)
      : alignActivations(own, other, inputs, activation);
  const dominant = experts
    .map((_, e) => e)
    .sort((a, b) => (usage[b] as number) - (usage[a] as number) || a - b)
    .slice(0, groups)
    .sort((a, b) => a - b);
  const groupOf = experts.map((_, e) => {
    const own = dominant.indexOf(e);
    if (own >= 0) return own;
    const similar = dominant.map((d) => cosine(features[e] as [], features[d] as []));
    return similar.indexOf(Math.max(...similar));
  });
  const merged = dominant.map((d, group) => {
    const members = experts.map((_, e) => e).filter((e) => groupOf[e] === group);
    return mergeGroup(
      experts[d] as DenseExpert,
      members.map((e) => experts[e] as DenseExpert),
      members.map((e) => usage[e] as number),
      align,
    );
  });
  return {
    router: takeRows(router, dominant),
    ...takeBias(bias, dominant),
    experts: merged,
    groupOf,
    dominant,
  };
}

function cosine(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let [dot, left, right] = [0, 0, 0];
  for (let i = 0; i < a.length; i++) {
    const [x, y] = [a[i] as number, b[i] as number];
    dot += x * y;
    left += x * x;
    right += y * y;
  }
  return left > 0 && right > 0 ? dot / Math.sqrt(left * right) : 0;
}

/** Order of `other`'s neurons in which they fit `own`'s best: see {@link mergeExperts}. */
export function alignNeurons(own: DenseExpert, other: DenseExpert): number[] {
  const [ffn = 0] = own.up.shape;
  return assignmentOf(product(neurons(own), neurons(other)), ffn);
}

/** Order of `other`'s neurons in which they go with `own`'s best over these tokens: see {@link mergeExperts}. */
export function alignActivations(
  own: DenseExpert,
  other: DenseExpert,
  inputs: Tensor<'f32'>,
  activation: ExpertActivation,
): number[] {
  const [a, b] = [own, other].map((expert) => standardized(expert, inputs, activation));
  return assignmentOf(product(a as Tensor<'f32'>, b as Tensor<'f32'>), own.up.shape[0] as number);
}

function assignmentOf({ data }: Tensor<'f32'>, n: number): number[] {
  const odd = data.findIndex((gain) => !Number.isFinite(gain));
  if (odd < 0) return bestAssignment(data, n);
  throw argumentError(
    'BL_NON_FINITE',
    `mergeExperts: the product of neurons ${Math.floor(odd / n)} and ${odd % n} is ${data[odd]}, expected a finite number`,
  );
}

/** a b^T. */
const product = (a: Tensor<'f32'>, b: Tensor<'f32'>): Tensor<'f32'> =>
  matmul(a, new QuantizedTensor('f32', b.bytes, b.shape as [number, number]));

/** Shape [ffn, tokens]: each neuron's values, of mean 0 and length 1; 0 where they are all the same. */
function standardized(
  { gate, up }: DenseExpert,
  inputs: Tensor<'f32'>,
  activation: ExpertActivation,
): Tensor<'f32'> {
  const inner = activate(activation, gate && product(inputs, gate), product(inputs, up));
  const rows = transposed(inner);
  const [ffn = 0, tokens = 0] = rows.shape;
  for (let i = 0; i < ffn; i++) {
    const row = rows.data.subarray(i * tokens, (i + 1) * tokens);
    const mean = row.reduce((sum, x) => sum + x, 0) / tokens;
    const norm = Math.sqrt(row.reduce((sum, x) => sum + (x - mean) ** 2, 0));
    for (let t = 0; t < tokens; t++) {
      row[t] = norm > 1e-6 * Math.abs(mean) ? ((row[t] as number) - mean) / norm : 0;
    }
  }
  return rows;
}

/** Rows of gate and up and column of down of each neuron, beside each other. */
function neurons({ gate, up, down }: DenseExpert): Tensor<'f32'> {
  const [ffn = 0, hidden = 0] = up.shape;
  const width = 3 * hidden;
  const values = new Float32Array(ffn * width);
  const [gates, ups, downs] = [gate?.data, up.data, down.data];
  for (let i = 0; i < ffn; i++) {
    values.set(ups.subarray(i * hidden, (i + 1) * hidden), i * width);
    if (gates !== undefined) {
      values.set(gates.subarray(i * hidden, (i + 1) * hidden), i * width + hidden);
    }
    for (let h = 0; h < hidden; h++) {
      values[i * width + 2 * hidden + h] = downs[h * ffn + i] as number;
    }
  }
  return new Tensor('f32', values, [ffn, width]);
}

function mergeGroup(
  dominant: DenseExpert,
  members: readonly DenseExpert[],
  usage: readonly number[],
  align: (own: DenseExpert, other: DenseExpert) => number[],
): DenseExpert {
  if (members.length === 1) return dominant;
  const total = usage.reduce((a, b) => a + b, 0);
  if (
    members.some(
      ({ up, gate }) =>
        `${up.shape}` !== `${dominant.up.shape}` ||
        (gate === undefined) !== (dominant.gate === undefined),
    )
  ) {
    throw argumentError(
      'BL_INVALID_SHAPE',
      'mergeExperts: experts of a group differ in their shapes, expected the same width and all or none with a gate',
    );
  }
  const weights = usage.map((x) => (total > 0 ? x / total : 1 / usage.length));
  const aligned = members.map((member) =>
    member === dominant ? member : permuteNeurons(member, align(dominant, member)),
  );
  const part = (name: 'gate' | 'up' | 'down') =>
    combine(
      aligned.map((member) => member[name] as DenseExpert['up']),
      weights,
    );
  return {
    ...(dominant.gate === undefined ? {} : { gate: part('gate') }),
    up: part('up'),
    down: part('down'),
  };
}
