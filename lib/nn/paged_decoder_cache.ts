import { argumentError } from '../errors.js';
import type { AttentionCompute, AttentionScores } from '../ops/attention/options.js';
import { Tensor } from '../tensor.js';
import type { ModelConfig } from './config.js';
import type { CacheStep, DecoderCache, PagedLayer } from './decoder_cache.js';
import {
  type CachedLayer,
  Compaction,
  runStages,
  runStagesAsync,
  type Stages,
} from './paged/compaction.js';
import type { PagedKVBatch } from './paged/paged_kv_batch.js';
import { PagedKVCache } from './paged/paged_kv_cache.js';
import {
  interval,
  type PagedCacheOptions,
  planPagedCache,
  stepTokens,
} from './paged_cache_options.js';
import { observedQueries } from './policies/contract.js';
import type { CachePolicy, LayerContent, ObservedSum } from './policies/index.js';

/**
 * Keys and values of one text for a {@link Decoder}: in pages of any format, and compressed by a policy. Layers are sequences
 * of one pool of pages, so that a policy may give them different lengths.
 *
 * With a policy, memory is bounded by its budget and the tokens of one step (256, or the policy's `block` and `probe`), however
 * long the text: a prompt is computed in steps, and the cache is compressed after each.
 *
 * @example
 * ```ts
 * const cache = decoder.createPagedCache({ format: 'i4', policy: snapKV({ budget: 512 }) });
 * for await (const text of decoder.generate(prompt, { cache })) process.stdout.write(text);
 * ```
 */
export class PagedDecoderCache implements DecoderCache {
  readonly capacity: number;
  readonly policy: CachePolicy | undefined;
  readonly #pool: PagedKVCache;
  readonly #layers: CachedLayer[];
  readonly #compaction: Compaction | undefined;
  readonly #config: ModelConfig;
  readonly #compute: AttentionCompute;
  readonly #keyMeans: readonly Tensor<'f32'>[] | undefined;
  #length = 0;
  #peakKeys = 0;
  #isProbeDue = false;
  #busy = false;
  #disposed = false;

  /** @throws `BL_INVALID_ARGUMENT`, `BL_INVALID_FORMAT`, `BL_OUT_OF_RANGE`, `BL_OUT_OF_MEMORY` */
  constructor(config: ModelConfig, contextLength: number, options: PagedCacheOptions = {}) {
    const plan = planPagedCache(config, contextLength, options);
    const { policy, compute = 'f32' } = options;
    const { numKvHeads, numLayers } = config;
    this.capacity = plan.capacity;
    this.policy = policy;
    this.#config = config;
    this.#compute = compute;
    this.#keyMeans = plan.keyMeans;
    this.#pool = new PagedKVCache(plan.pool);
    this.#layers = Array.from({ length: numLayers }, () => ({
      sequence: this.#pool.create(),
      positions: Array.from({ length: numKvHeads }, () => new Int32Array(0)),
      scores: Array.from({ length: numKvHeads }, () => new Float32Array(0)),
      observed: undefined,
    }));
    if (policy !== undefined) this.#compaction = new Compaction(policy, this.#pool, this.#layers);
  }

  get numLayers(): number {
    return this.#layers.length;
  }

  get length(): number {
    return this.#length;
  }

  get disposed(): boolean {
    return this.#disposed;
  }

  /** Keys that each layer has. */
  get keys(): number[] {
    return this.#layers.map(({ sequence }) => sequence.length);
  }

  get stepTokens(): number {
    return Math.min(this.policy?.block ?? stepTokens, stepTokens);
  }

  get probeTokens(): number {
    return this.policy?.probe?.length ?? 0;
  }

  /** The most keys that all layers have had together, those of a probe included. */
  get peakKeys(): number {
    return this.#peakKeys;
  }

  /** Memory of all pages; of those in use. */
  get stats(): { bytes: number; usedBytes: number } {
    const { bytes, usedBytes } = this.#pool.stats;
    return { bytes, usedBytes };
  }

  need(count: number): void {
    this.#check('need');
    if (this.#length + count > this.capacity) {
      throw argumentError(
        'BL_OUT_OF_RANGE',
        `PagedDecoderCache: ${this.#length} tokens and ${count} more exceed the context of ${this.capacity}`,
      );
    }
  }

  /** Forgets all tokens but the first `length`; not with a policy, which may have let go of them. */
  rewind(length: number): void {
    this.#check('rewind');
    if (this.policy !== undefined) {
      throw argumentError('BL_UNSUPPORTED', 'PagedDecoderCache: rewind with a policy');
    }
    if (!Number.isInteger(length) || length < 0 || length > this.#length) {
      throw argumentError(
        'BL_OUT_OF_RANGE',
        `PagedDecoderCache: rewind to ${length}, expected 0 to ${this.#length} (= length)`,
      );
    }
    for (const { sequence } of this.#layers) sequence.trim(length);
    this.#length = length;
  }

  acquire(): () => void {
    this.#check('acquire');
    if (this.#busy) {
      throw argumentError(
        'BL_INVALID_ARGUMENT',
        'PagedDecoderCache: another step is using the cache; await it, or give each generation its own cache',
      );
    }
    this.#busy = true;
    return () => {
      this.#busy = false;
    };
  }

  /** Room for `count` more tokens, which are there after the step's commit. */
  begin(count: number): CacheStep {
    this.#check('begin');
    this.need(count);
    const observed = this.policy === undefined ? 0 : observedQueries(this.policy, count);
    const { batches, layers, abort } = this.#take(count, observed, false);
    const written = (): Stages => {
      for (const batch of batches) batch.commit();
      return this.#added(count, layers);
    };
    return {
      position: this.#length,
      layer: (index) => layers[index] as PagedLayer,
      commit: () => runStages(written()),
      commitAsync: () => runStagesAsync(written()),
      abort,
    };
  }

  probe(): { tokens: readonly number[]; step: CacheStep } | undefined {
    const tokens = this.policy?.probe;
    if (!this.#isProbeDue || tokens === undefined) return undefined;
    this.#isProbeDue = false;
    const { layers, abort } = this.#take(tokens.length, tokens.length, true);
    this.#countKeys();
    const scored = (): Stages => {
      abort();
      return this.#probed(layers);
    };
    const step: CacheStep = {
      position: this.#length,
      layer: (index) => layers[index] as PagedLayer,
      commit: () => runStages(scored()),
      commitAsync: () => runStagesAsync(scored()),
      abort,
    };
    return { tokens, step };
  }

  /** Keys and values of a layer, decoded, and where in the text they stand, by head. */
  read(layer: number): LayerContent & { positions: readonly Int32Array[] } {
    this.#check('read');
    const cached = this.#layers[layer];
    if (cached === undefined) {
      throw argumentError(
        'BL_OUT_OF_RANGE',
        `PagedDecoderCache: layer is ${layer}, expected 0 to ${this.numLayers - 1}`,
      );
    }
    const { k, v } = cached.sequence.gather(0);
    const all = Int32Array.from({ length: cached.sequence.length }, (_, i) => i);
    const positions =
      this.policy === undefined ? cached.positions.map(() => all) : cached.positions;
    return { keys: k, values: v as Tensor<'f32'>, positions };
  }

  /** Frees the pages; any later use but this throws `BL_DETACHED`. */
  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#pool.dispose();
  }

  /** {@link dispose}, for `using`. */
  [Symbol.dispose](): void {
    this.dispose();
  }

  /** Pages for `count` tokens in all layers, or in none; those of a probe are not kept. */
  #take(
    count: number,
    observed: number,
    isProbe: boolean,
  ): { batches: readonly PagedKVBatch[]; layers: readonly PagedLayer[]; abort: () => void } {
    const batches: PagedKVBatch[] = [];
    const abort = (): void => {
      for (const batch of batches) batch.abort();
    };
    try {
      const layers = this.#layers.map(({ sequence }, i) => {
        const batch = this.#pool.batch([sequence], count);
        batches.push(isProbe ? batch.hold() : batch);
        return this.#pagedLayer(i, batch, sequence.length, isProbe ? 0 : count, observed);
      });
      return { batches, layers, abort };
    } catch (error) {
      abort();
      throw error;
    }
  }

  #pagedLayer(
    index: number,
    batch: PagedKVBatch,
    keys: number,
    count: number,
    observed: number,
  ): PagedLayer {
    const { numHeads, hiddenSize } = this.#config;
    const sums = observed === 0 ? undefined : this.policy?.sums;
    const latest = sums === undefined ? undefined : this.policy?.latest;
    return {
      // Taken off once: what is gathered and written again lacks it already, in all tokens alike.
      append: (k, v) => batch.append(0, k, v, this.#keyMeans?.[index]),
      segments: () => batch.segments(0),
      compute: this.#compute,
      probabilities:
        observed === 0 || sums !== undefined
          ? undefined
          : Tensor.empty('f32', [numHeads, observed, keys]),
      scores: sums === undefined ? undefined : scoresRoom(sums, observed, numHeads, keys),
      // Of no more queries than are observed anyway, the sums of these.
      latest:
        latest === undefined || latest >= observed
          ? undefined
          : scoresRoom(['sums'], latest, numHeads, keys),
      hidden:
        this.policy?.hidden === true && count > 0
          ? Tensor.empty('f32', [count, hiddenSize])
          : undefined,
    };
  }

  #countKeys(): number {
    const total = this.#layers.reduce((sum, { sequence }) => sum + sequence.length, 0);
    this.#peakKeys = Math.max(this.#peakKeys, total);
    return total;
  }

  /** After a step: scores, and what the policy lets go of. */
  *#added(count: number, steps: readonly PagedLayer[]): Stages {
    const first = this.#length;
    this.#length += count;
    const total = this.#countKeys();
    const { policy } = this;
    if (policy === undefined) return;
    const compaction = this.#compaction as Compaction;
    yield* compaction.score(count, first, observedOf(steps));
    const numLayers = this.#layers.length;
    const most = policy.budget * numLayers + (count > 1 ? 0 : (interval - 1) * numLayers);
    const isOver = total > most;
    this.#isProbeDue = isOver && count > 1 && policy.probe !== undefined;
    if (isOver && !this.#isProbeDue) yield* compaction.compress();
    if (!this.#isProbeDue) this.#forgetObserved();
  }

  *#probed(steps: readonly PagedLayer[]): Stages {
    const compaction = this.#compaction as Compaction;
    yield* compaction.scoreProbe(observedOf(steps));
    yield* compaction.compress();
    this.#forgetObserved();
  }

  #forgetObserved(): void {
    for (const layer of this.#layers) layer.observed = undefined;
  }

  #check(what: string): void {
    if (this.#disposed) {
      throw argumentError('BL_DETACHED', `PagedDecoderCache: ${what} after dispose()`);
    }
  }
}

const observedOf = (steps: readonly PagedLayer[]) =>
  steps.map(({ probabilities, scores, latest, hidden }) => ({
    probabilities,
    scores,
    latest,
    hidden,
  }));

function scoresRoom(
  sums: readonly ObservedSum[],
  queries: number,
  numHeads: number,
  keys: number,
): AttentionScores {
  const shape = (name: ObservedSum): number[] =>
    name === 'sums' || name === 'squares' ? [1, numHeads, keys] : [1, numHeads];
  const tensors = sums.map((name) => [name, Tensor.empty('f32', shape(name))]);
  return { queries, ...Object.fromEntries(tensors) };
}
