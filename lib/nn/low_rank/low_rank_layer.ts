// One layer of a cache of low rank: where its tokens stand, and the operators of a step.
import { argumentError } from '../../errors.js';
import type { KVFormat } from '../../generated.js';
import { attention } from '../../ops/attention/attention.js';
import { kvAppend } from '../../ops/kv/kv_append.js';
import { kvGather } from '../../ops/kv/kv_gather.js';
import { KVPages } from '../../ops/kv/kv_pages.js';
import { matmul } from '../../ops/matmul/matmul.js';
import { rope } from '../../ops/rope/rope.js';
import { QuantizedTensor } from '../../quantized_tensor.js';
import type { RunOptions } from '../../run.js';
import { Tensor } from '../../tensor.js';
import type { ModelConfig } from '../config.js';
import type { UnrotatedStep } from '../decoder_cache.js';
import type { LowRankFactors, LowRankPair } from './fit_low_rank.js';

/** Memory that all layers work in, one after the other. */
export class LowRankMemory {
  /** [capacity, numKvHeads, headDim], [capacity, numKvHeads, valueDim] */
  readonly keys: Tensor<'f32'>;
  readonly values: Tensor<'f32'>;
  /** Of capacity * the largest rank. */
  readonly keyFeatures: Tensor<'f32'>;
  readonly valueFeatures: Tensor<'f32'>;
  /** 0, 1, 2, ... */
  readonly numbers: Tensor<'i32'>;

  constructor(
    { numKvHeads, headDim, valueDim }: ModelConfig,
    capacity: number,
    factors: readonly LowRankFactors[],
  ) {
    const most = (of: (layer: LowRankFactors) => LowRankPair): number =>
      capacity * Math.max(...factors.map((layer) => rankOf(of(layer))));
    this.keys = Tensor.empty('f32', [capacity, numKvHeads, headDim]);
    this.values = Tensor.empty('f32', [capacity, numKvHeads, valueDim]);
    this.keyFeatures = Tensor.empty('f32', [most(({ keys }) => keys)]);
    this.valueFeatures = Tensor.empty('f32', [most(({ values }) => values)]);
    this.numbers = new Tensor(
      'i32',
      Int32Array.from({ length: capacity }, (_, i) => i),
      [capacity],
    );
  }

  get bytes(): number {
    const { keys, values, keyFeatures, valueFeatures, numbers } = this;
    const all = [keys, values, keyFeatures, valueFeatures, numbers];
    return all.reduce((sum, { size }) => sum + 4 * size, 0);
  }

  dispose(): void {
    const { keys, values, keyFeatures, valueFeatures, numbers } = this;
    for (const tensor of [keys, values, keyFeatures, valueFeatures, numbers]) tensor.dispose();
  }
}

/** Which tokens a step is about: [0, compressed) are features, [compressed, start) as they came, [start, end) new. */
export interface StepRange {
  compressed: number;
  /** Features after the step. */
  toCompress: number;
  start: number;
  end: number;
}

interface LayerPlan {
  formats: { keys: KVFormat; values: KVFormat };
  recentFormat: KVFormat;
  capacity: number;
  pageSize: number;
  /** Tokens that are there as they came, at most. */
  window: number;
}

const rankOf = ({ down }: LowRankPair): number => down.shape[0] as number;

const asWeights = (factor: Tensor<'f32'>): QuantizedTensor =>
  new QuantizedTensor('f32', factor.bytes, factor.shape as [number, number]);

/** Features and recent tokens of a layer. */
export class LowRankLayer {
  /** Slot t: token t; one head of keyRank and valueRank channels. */
  readonly features: KVPages;
  /** A ring: slot t % numSlots: token t, its key not rotated. */
  readonly recent: KVPages;
  readonly #keys: { down: QuantizedTensor; up: QuantizedTensor; rank: number };
  readonly #values: { down: QuantizedTensor; up: QuantizedTensor; rank: number };

  constructor(
    { numKvHeads, headDim, valueDim }: ModelConfig,
    { keys, values }: LowRankFactors,
    readonly memory: LowRankMemory,
    { formats, recentFormat, capacity, pageSize, window }: LayerPlan,
  ) {
    const pair = (of: LowRankPair) => ({
      down: asWeights(of.down),
      up: asWeights(of.up),
      rank: rankOf(of),
    });
    this.#keys = pair(keys);
    this.#values = pair(values);
    this.features = new KVPages({
      keyFormat: formats.keys,
      valueFormat: formats.values,
      pageSize,
      numKvHeads: 1,
      keyDim: this.#keys.rank,
      valueDim: this.#values.rank,
      numPages: Math.ceil(capacity / pageSize),
    });
    this.recent = new KVPages({
      keyFormat: recentFormat,
      pageSize,
      numKvHeads,
      keyDim: headDim,
      valueDim,
      numPages: Math.ceil(window / pageSize),
    });
  }

  /** Attention of the new tokens over all; then the tokens that leave the window become features. */
  mix({ compressed, toCompress, start, end }: StepRange, step: UnrotatedStep): void {
    const { keys, values } = this.memory;
    const run = runOf(step.attention);
    kvAppend(step.key, step.value, this.#ring(start, end), this.recent, run);
    this.#expand(compressed, run);
    kvGather(this.#ring(compressed, end), this.recent, {
      ...run,
      k: keys.slice(compressed, end),
      v: values.slice(compressed, end),
    });
    // Before they are rotated.
    this.#compress(compressed, toCompress, run);
    const all = keys.slice(0, end);
    rope(all, this.memory.numbers.slice(0, end), { ...step.rope, out: all });
    rope(step.query, step.positions, { ...step.rope, out: step.query });
    attention(step.query, all, values.slice(0, end), { ...step.attention, out: step.out });
  }

  /** Tokens [0, count) from their features. */
  #expand(count: number, run: RunOptions): void {
    if (count === 0) return;
    const { keys, values, numbers } = this.memory;
    const [k, v] = this.#featureRows(count);
    kvGather(numbers.slice(0, count), this.features, { ...run, k: k.heads, v: v.heads });
    matmul(k.rows, this.#keys.up, { ...run, out: rowsOf(keys, 0, count), compute: 'f32' });
    matmul(v.rows, this.#values.up, { ...run, out: rowsOf(values, 0, count), compute: 'f32' });
  }

  /** Tokens [begin, end) to features. */
  #compress(begin: number, end: number, run: RunOptions): void {
    if (end <= begin) return;
    const { keys, values, numbers } = this.memory;
    const [k, v] = this.#featureRows(end - begin);
    matmul(rowsOf(keys, begin, end), this.#keys.down, { ...run, out: k.rows, compute: 'f32' });
    matmul(rowsOf(values, begin, end), this.#values.down, { ...run, out: v.rows, compute: 'f32' });
    kvAppend(k.heads, v.heads, numbers.slice(begin, end), this.features, run);
  }

  /** Memory for features as [count, rank] and [count, 1, rank]. */
  #featureRows(count: number) {
    const rows = (memory: Tensor<'f32'>, rank: number) => {
      const part = memory.slice(0, count * rank);
      return { rows: part.reshape([count, rank]), heads: part.reshape([count, 1, rank]) };
    };
    const { keyFeatures, valueFeatures } = this.memory;
    return [rows(keyFeatures, this.#keys.rank), rows(valueFeatures, this.#values.rank)] as const;
  }

  #ring(begin: number, end: number): Tensor<'i32'> {
    const { numSlots } = this.recent;
    const slots = Int32Array.from({ length: end - begin }, (_, i) => (begin + i) % numSlots);
    return new Tensor('i32', slots, [end - begin]);
  }

  dispose(): void {
    this.features.dispose();
    this.recent.dispose();
  }
}

const runOf = ({ isa, threads }: RunOptions): RunOptions => ({
  ...(isa === undefined ? {} : { isa }),
  ...(threads === undefined ? {} : { threads }),
});

/** Tokens [begin, end) of [tokens, heads, dim] as [end - begin, heads * dim]. */
function rowsOf(tensor: Tensor<'f32'>, begin: number, end: number): Tensor<'f32'> {
  const [, heads = 0, dim = 0] = tensor.shape;
  return tensor.slice(begin, end).reshape([end - begin, heads * dim]);
}

/** Factors of a layer against the model's shape. */
export function checkFactors(layer: number, factors: LowRankFactors, config: ModelConfig): void {
  const { numKvHeads, headDim, valueDim } = config;
  for (const [name, pair, channels] of [
    ['keys', factors?.keys, numKvHeads * headDim],
    ['values', factors?.values, numKvHeads * valueDim],
  ] as const) {
    const rank = pair?.down?.shape?.[0] ?? 0;
    for (const [side, tensor, expected] of [
      ['down', pair?.down, [rank, channels]],
      ['up', pair?.up, [channels, rank]],
    ] as const) {
      const fits =
        tensor?.dtype === 'f32' &&
        tensor.contiguous &&
        tensor.shape.join() === expected.join() &&
        rank >= 1 &&
        rank <= 1024;
      if (fits) continue;
      throw argumentError(
        'BL_INVALID_SHAPE',
        `LowRankDecoderCache: factors[${layer}].${name}.${side} is ${tensor?.dtype} [${tensor?.shape}], expected contiguous f32 [${expected}], rank 1 to 1024`,
      );
    }
  }
}
