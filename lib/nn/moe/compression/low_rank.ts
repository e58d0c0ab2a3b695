import { checkObject } from '../../../arguments.js';
import { argumentError } from '../../../errors.js';
import type { Tensor } from '../../../tensor.js';
import { type TruncatedSVD, truncatedSVD } from '../../low_rank/truncated_svd.js';
import { above, expandedExpert, rowsBetween } from './factors.js';
import {
  checkDense,
  type DenseExpert,
  type ExpertLayer,
  type ExpertMatrices,
  takeColumns,
  takeRows,
} from './layer.js';

/** Options of {@link lowRankExperts}: one of `rank`, `energy` and `size`. */
export interface LowRankExpertsOptions {
  /** Of both products of an expert, at most what they have. */
  rank?: number;
  /** In (0, 1]: the least rank that keeps this part of the squares of the weights; a matrix that would grow stays whole. */
  energy?: number;
  /** In (0, 1): what an expert may have of its former number of weights; ranks are shared out so that most squares are kept. */
  size?: number;
  /** `energy` and `size`: ranks are multiples of it, so that rows fit the blocks of formats. Default 32. */
  multiple?: number;
  /** Inner neurons of each expert that stay as they are: those that the factors lose the most of. Default 0. */
  neurons?: number;
}

/** What {@link lowRankExperts} gives. */
export interface LowRankExperts extends ExpertLayer {
  /** Ranks of each expert's products; undefined: whole. */
  ranks: { reduce: number | undefined; expand: number | undefined }[];
  /** Lost of each expert's matrices: squares of the error over squares of the weights, in [0, 1]. */
  loss: number[];
  /** Number of weights of all experts, before and now. */
  weights: { before: number; after: number };
}

/**
 * The second half of MC-SMoE ("Merge, Then Compress", Li et al. 2024: merged experts are of lower dimension, and so are
 * decomposed): each expert as products of lower rank, and a few of its neurons as they are.
 *
 * - gate and up above each other, [2 width, hidden], become `[gate; up] reduce`: one `reduce` [rank, hidden] serves both.
 * - down becomes `expand down`: [hidden, rank] times [rank, width].
 * - Both by the singular value decomposition of the weights: no other matrices of that rank are nearer.
 * - `neurons`: rows of gate and up and columns of down that stay whole and leave the decomposition.
 *
 * The paper decomposes `W = U V + S` matrix by matrix (LoSparse, Li et al. 2023), S of whole rows that a trained importance
 * chooses, and trains all of it again. Here nothing is trained, gate and up share their factor, and S is whole neurons, chosen by
 * the norm of what U V loses of them: a row of S that is kept makes its row of U V needless.
 *
 * `compressModel` writes such experts, in any format; `moeForward` multiplies by the factors, one after the other, so that
 * both bytes and time are saved. Half of the full rank is no smaller than the whole: weights of random models are not worth it.
 *
 * @throws `BL_INVALID_SHAPE`, `BL_OUT_OF_RANGE`, `BL_NON_FINITE`, `BL_INVALID_ARGUMENT` (not one of rank, energy, size)
 *
 * @example
 * ```ts
 * await compressModel('model.gguf', 'small.gguf', (layer, i) => {
 *   const merged = mergeExperts(layer, { usage: counts[i] as number[], groups: 4 });
 *   return lowRankExperts(merged, { size: 0.4, neurons: 32 });
 * });
 * ```
 */
export function lowRankExperts(layer: ExpertLayer, options: LowRankExpertsOptions): LowRankExperts {
  const op = 'lowRankExperts';
  checkDense(op, layer);
  checkObject(op, 'options', options);
  checkOptions(op, options);
  const made = layer.experts.map((expert) => decompose(op, expert, options));
  const sum = (of: (one: Decomposed) => number) => made.reduce((all, one) => all + of(one), 0);
  return {
    ...layer,
    experts: made.map(({ expert }) => expert),
    ranks: made.map(({ reduce, expand }) => ({ reduce: reduce.rank, expand: expand.rank })),
    loss: made.map(({ reduce, expand, squares }) =>
      squares > 0 ? (reduce.lost + expand.lost) / squares : 0,
    ),
    weights: {
      before: sum(({ before }) => before),
      after: sum(({ expert }) => expertSize(expert)),
    },
  };
}

function checkOptions(op: string, options: LowRankExpertsOptions): void {
  const { rank, energy, size, multiple = 32, neurons = 0 } = options;
  if ([rank, energy, size].filter((value) => value !== undefined).length !== 1) {
    throw argumentError(
      'BL_INVALID_ARGUMENT',
      `${op}: rank is ${rank}, energy ${energy}, size ${size}, expected one of them`,
    );
  }
  const limits: [string, number | undefined, boolean, string][] = [
    ['rank', rank, Number.isInteger(rank) && (rank as number) >= 1, 'a whole number of at least 1'],
    ['energy', energy, (energy as number) > 0 && (energy as number) <= 1, 'above 0 to 1'],
    ['size', size, (size as number) > 0 && (size as number) < 1, 'between 0 and 1'],
    ['multiple', multiple, Number.isInteger(multiple) && multiple >= 1, 'at least 1'],
    ['neurons', neurons, Number.isInteger(neurons) && neurons >= 0, 'at least 0'],
  ];
  for (const [name, value, fits, expected] of limits) {
    if (value === undefined || fits) continue;
    throw argumentError('BL_OUT_OF_RANGE', `${op}: ${name} is ${value}, expected ${expected}`);
  }
}

interface Decomposed {
  expert: DenseExpert;
  reduce: Chosen;
  expand: Chosen;
  /** Of all weights. */
  squares: number;
  before: number;
}

/** Rank of a matrix, and the squares that are lost with it; undefined: it stays whole. */
interface Chosen {
  rank: number | undefined;
  lost: number;
}

const expertSize = ({ kept, ...parts }: DenseExpert): number =>
  Object.values(parts).reduce((sum, part) => sum + (part?.size ?? 0), 0) +
  (kept === undefined ? 0 : expertSize(kept));

const squaresOf = (matrix: Tensor<'f32'> | undefined): number =>
  matrix?.data.reduce((sum, x) => sum + x * x, 0) ?? 0;

function decompose(op: string, whole: DenseExpert, options: LowRankExpertsOptions): Decomposed {
  const { neurons = 0 } = options;
  const [width = 0] = whole.up.shape;
  if (neurons >= width) {
    throw argumentError(
      'BL_OUT_OF_RANGE',
      `${op}: neurons is ${neurons}, expected less than ${width} (the width of an expert)`,
    );
  }
  const before = expertSize(whole);
  const budget = (options.size ?? 1) * before - neurons * (before / width);
  const squares = squaresOf(whole.gate) + squaresOf(whole.up) + squaresOf(whole.down);
  let made = factored(whole, budget, options);
  if (neurons > 0) {
    const lost = neuronLosses(whole, made.expert);
    const order = [...lost.keys()].sort((a, b) => (lost[b] as number) - (lost[a] as number));
    const kept = order.slice(0, neurons).sort((a, b) => a - b);
    const rest = order.slice(neurons).sort((a, b) => a - b);
    made = factored(chosenNeurons(whole, rest), budget, options);
    made.expert = { ...made.expert, kept: chosenNeurons(whole, kept) };
  }
  return { ...made, squares, before };
}

const chosenNeurons = ({ gate, up, down }: ExpertMatrices, chosen: number[]): ExpertMatrices => ({
  ...(gate === undefined ? {} : { gate: takeRows(gate, chosen) }),
  up: takeRows(up, chosen),
  down: takeColumns(down, chosen),
});

/** The expert in factors of at most `budget` weights. */
function factored(whole: ExpertMatrices, budget: number, options: LowRankExpertsOptions) {
  const { gate, up, down } = whole;
  const [width = 0, hidden = 0] = up.shape;
  const inner = gate === undefined ? up : above(gate, up);
  const spectra = [inner, down].map((matrix) => spectrumOf(matrix, budget, options));
  const [reduce, expand] = chooseRanks(spectra, budget, options) as [Chosen, Chosen];
  const expert: DenseExpert = { ...whole };
  if (reduce.rank !== undefined) {
    const { left, right } = (spectra[0] as Spectrum).svd.factors(reduce.rank);
    if (gate !== undefined) expert.gate = rowsBetween(left, 0, width);
    expert.up = gate === undefined ? left : rowsBetween(left, width, 2 * width);
    expert.reduce = right;
  }
  if (expand.rank !== undefined) {
    const { left, right } = (spectra[1] as Spectrum).svd.factors(expand.rank);
    Object.assign(expert, { down: right, expand: left });
  }
  return { expert, reduce, expand, hidden };
}

/** A matrix's singular values, and what its factors would cost. */
interface Spectrum {
  svd: TruncatedSVD;
  /** Weights of the matrix, and of its factors by rank. */
  size: number;
  cost: number;
  /** The highest rank that may be chosen. */
  most: number;
}

function spectrumOf(
  matrix: Tensor<'f32'>,
  budget: number,
  { rank, size }: LowRankExpertsOptions,
): Spectrum {
  const [rows = 0, cols = 0] = matrix.shape;
  const cost = rows + cols;
  const full = Math.min(rows, cols);
  const saving = Math.min(full, Math.ceil(matrix.size / cost) - 1);
  const affordable = size === undefined ? saving : Math.min(saving, Math.floor(budget / cost));
  const most = Math.max(1, rank === undefined ? affordable : Math.min(rank, full));
  return { svd: truncatedSVD(matrix, most), size: matrix.size, cost, most };
}

function chooseRanks(
  spectra: readonly Spectrum[],
  budget: number,
  { rank, energy, multiple = 32 }: LowRankExpertsOptions,
): Chosen[] {
  const keptBy = ({ svd }: Spectrum, r: number) =>
    svd.squares.subarray(0, r).reduce((sum, x) => sum + x, 0);
  const chosen = (spectrum: Spectrum, r: number): Chosen => ({
    rank: r,
    lost: Math.max(spectrum.svd.total - keptBy(spectrum, r), 0),
  });
  if (rank !== undefined) return spectra.map((one) => chosen(one, one.most));
  if (energy !== undefined) {
    return spectra.map((one) => {
      let r = Math.min(multiple, one.most);
      const wanted = energy * one.svd.total;
      while (r < one.most && keptBy(one, r) < wanted) r = Math.min(r + multiple, one.most);
      const saves = keptBy(one, r) >= wanted && r * one.cost < one.size;
      return saves ? chosen(one, r) : { rank: undefined, lost: 0 };
    });
  }
  // What brings most, of its matrix's squares, for a weight comes first.
  const ranks = spectra.map((one) => Math.min(multiple, one.most));
  const spent = () => spectra.reduce((sum, { cost }, i) => sum + cost * (ranks[i] as number), 0);
  for (;;) {
    const gains = spectra.map((one, i) => {
      const [r, next] = [ranks[i] as number, (ranks[i] as number) + multiple];
      if (next > one.most || spent() + multiple * one.cost > budget) return -1;
      return (keptBy(one, next) - keptBy(one, r)) / (one.svd.total * one.cost);
    });
    const best = gains.indexOf(Math.max(...gains));
    if (!((gains[best] as number) > 0)) break;
    ranks[best] = (ranks[best] as number) + multiple;
  }
  return spectra.map((one, i) => chosen(one, ranks[i] as number));
}

/** Squares that each neuron loses, as parts of those of its matrices. */
function neuronLosses(whole: ExpertMatrices, made: DenseExpert): Float64Array {
  const [width = 0] = whole.up.shape;
  const lost = new Float64Array(width);
  const add = (matrix: Tensor<'f32'>, by: Tensor<'f32'>, neuron: (i: number) => number): void => {
    const scale = 1 / (squaresOf(matrix) || 1);
    for (let i = 0; i < matrix.size; i++) {
      const n = neuron(i);
      const difference = (matrix.data[i] as number) - (by.data[i] as number);
      lost[n] = (lost[n] as number) + scale * difference ** 2;
    }
  };
  const now = expandedExpert(made);
  const hidden = whole.up.shape[1] as number;
  const byRow = (i: number) => Math.floor(i / hidden);
  if (whole.gate !== undefined) add(whole.gate, now.gate as Tensor<'f32'>, byRow);
  add(whole.up, now.up, byRow);
  add(whole.down, now.down, (i) => i % width);
  return lost;
}
