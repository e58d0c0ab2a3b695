import { checkOptions, described } from '../../arguments.js';
import { argumentError } from '../../errors.js';
import { expertParts, type MoEExpert, MoEExperts } from '../../ops/moe/experts.js';
import { packAsync } from '../../ops/quantize/pack.js';
import { packWeightsAsync } from '../../ops/quantize/pack_weights.js';
import { QuantizedTensor } from '../../quantized_tensor.js';
import type { RunOptions } from '../../run.js';

/** Options of {@link ExpertCache}. */
export interface ExpertCacheOptions extends RunOptions {
  /** Memory for experts, in bytes. */
  bytes: number;
}

const known = new Set(['bytes', 'isa', 'threads']);

/** What an {@link ExpertCache} has done. */
export interface ExpertCacheStats {
  /** Uses of experts that were in memory, and of those that were not. */
  hits: number;
  misses: number;
  /** Experts that were brought into memory, and that had to go. */
  loaded: number;
  evicted: number;
  /** Experts in memory, and their bytes. */
  resident: number;
  bytes: number;
}

/**
 * Experts of a model that is larger than memory, or on a slow disk: they stay in their file, which is mapped, and those in use
 * are kept in memory, in the order that kernels read (the least recently used goes first). An expert that is not in memory
 * works too: it is read from the file by the call that needs it.
 *
 * `note` tells which experts were used; `prefetch` brings experts into memory on a worker thread, before a call needs them if
 * their routes are known (Read-ME, Cai et al. 2024: one router for all layers), or after it for the next.
 *
 * @example
 * ```ts
 * const cache = new ExpertCache(stored, { bytes: 2e9 });
 * const routes = moeRoute(logits, { topK: 8 });
 * await cache.prefetch(routes.indices.data);
 * const y = moeForward(x, routes, cache.experts);
 * cache.note(routes.indices.data);
 * ```
 */
export class ExpertCache {
  readonly #stored: readonly MoEExpert[];
  readonly #limit: number;
  readonly #run: RunOptions;
  /** By number; the least recently used first. */
  readonly #resident = new Map<number, MoEExpert>();
  readonly #stats = { hits: 0, misses: 0, loaded: 0, evicted: 0, bytes: 0 };
  #experts: MoEExperts;
  #queue: Promise<void> = Promise.resolve();
  #running = 0;

  /** @throws as {@link MoEExperts}; `BL_OUT_OF_RANGE` */
  constructor(experts: readonly MoEExpert[], options: ExpertCacheOptions) {
    checkOptions('ExpertCache', options, known);
    const { bytes, ...run } = options;
    if (typeof bytes !== 'number' || !(bytes >= 0)) {
      throw argumentError(
        'BL_OUT_OF_RANGE',
        `ExpertCache: bytes is ${described(bytes)}, expected at least 0`,
      );
    }
    this.#experts = new MoEExperts(experts);
    this.#stored = this.#experts.experts;
    this.#limit = bytes;
    this.#run = run;
  }

  /** The mixture as it is now, for `moeForward`. */
  get experts(): MoEExperts {
    return this.#experts;
  }

  get stats(): ExpertCacheStats {
    return { ...this.#stats, resident: this.#resident.size };
  }

  /** Whether a prefetch is running. */
  get busy(): boolean {
    return this.#running > 0;
  }

  /** Counts the experts of a call (-1: none), each once, as used just now. */
  note(indices: Iterable<number>): void {
    for (const number of new Set(indices)) {
      const expert = this.#resident.get(number);
      if (expert !== undefined) {
        this.#stats.hits++;
        this.#resident.delete(number);
        this.#resident.set(number, expert);
      } else if (number in this.#stored) {
        this.#stats.misses++;
      }
    }
  }

  /**
   * Brings experts into memory, as far as they fit beside each other; others go. Prefetches run one after the other.
   *
   * @throws `BL_OUT_OF_RANGE` for a number that is no expert's, `BL_OUT_OF_MEMORY`
   */
  async prefetch(indices: Iterable<number>): Promise<void> {
    const wanted = [...new Set(indices)].filter((number) => number !== -1);
    const isExpert = (number: unknown) =>
      Number.isInteger(number) &&
      (number as number) >= 0 &&
      (number as number) < this.#stored.length;
    const bad = wanted.findIndex((number) => !isExpert(number));
    if (bad >= 0) {
      throw argumentError(
        'BL_OUT_OF_RANGE',
        `ExpertCache: indices has ${described(wanted[bad])}, expected -1 to ${this.#stored.length - 1}`,
      );
    }
    this.#running++;
    const done = this.#queue
      .then(() => this.#load(wanted))
      .finally(() => {
        this.#running--;
      });
    this.#queue = done.catch(() => undefined);
    await done;
  }

  /** Lets go of the experts in memory and, with `weights: true`, of those that were given. */
  dispose({ weights = false }: { weights?: boolean } = {}): void {
    this.#experts.dispose();
    for (const expert of this.#resident.values()) disposeWeights(expert);
    this.#resident.clear();
    this.#stats.bytes = 0;
    if (weights) for (const expert of this.#stored) disposeWeights(expert);
  }

  async #load(wanted: number[]): Promise<void> {
    if (this.#experts.disposed) return;
    const changes = new Map<number, MoEExpert>();
    const isWanted = new Set(wanted);
    let bytes = wanted.reduce(
      (sum, number) => sum + (this.#resident.has(number) ? this.#bytesOf(number) : 0),
      0,
    );
    const fitting: number[] = [];
    for (const number of wanted) {
      if (this.#resident.has(number)) continue;
      if (bytes + this.#bytesOf(number) > this.#limit) break;
      bytes += this.#bytesOf(number);
      fitting.push(number);
    }
    const evicted: MoEExpert[] = [];
    let free = this.#limit - this.#stats.bytes;
    const needed = fitting.reduce((sum, number) => sum + this.#bytesOf(number), 0);
    for (const [number, expert] of this.#resident) {
      if (free >= needed) break;
      if (isWanted.has(number)) continue;
      free += this.#bytesOf(number);
      this.#resident.delete(number);
      this.#stats.bytes -= this.#bytesOf(number);
      this.#stats.evicted++;
      evicted.push(expert);
      changes.set(number, this.#stored[number] as MoEExpert);
    }
    try {
      for (const number of fitting) {
        const expert = await this.#packed(this.#stored[number] as MoEExpert);
        changes.set(number, expert);
        this.#resident.set(number, expert);
        this.#stats.bytes += this.#bytesOf(number);
        this.#stats.loaded++;
      }
    } finally {
      if (this.#experts.disposed) {
        this.dispose(); // of what came after the cache was
      } else if (changes.size > 0) {
        const old = this.#experts;
        this.#experts = old.with(changes);
        old.dispose();
      }
      for (const expert of evicted) disposeWeights(expert);
    }
  }

  /** What an expert takes in memory: as much as in the file, but for what its layout pads. */
  #bytesOf(number: number): number {
    const parts = matricesOf(this.#stored[number] as MoEExpert);
    return parts.reduce((sum, weight) => sum + weight.bytes.byteLength, 0);
  }

  async #packed(expert: MoEExpert): Promise<MoEExpert> {
    const copy = async (weight: QuantizedTensor): Promise<QuantizedTensor> => {
      const packed = await packWeightsAsync(weight, this.#run);
      return packed === weight
        ? packAsync(weight, { ...this.#run, layout: weight.layout })
        : packed;
    };
    return {
      ...expert,
      ...(expert.gate === undefined ? {} : { gate: await copy(expert.gate) }),
      up: await copy(expert.up),
      down: await copy(expert.down),
      ...(expert.reduce === undefined ? {} : { reduce: await copy(expert.reduce) }),
      ...(expert.expand === undefined ? {} : { expand: await copy(expert.expand) }),
    };
  }
}

const matricesOf = (expert: MoEExpert): QuantizedTensor[] =>
  expertParts(expert).filter((part) => part instanceof QuantizedTensor);

function disposeWeights(expert: MoEExpert): void {
  for (const weight of matricesOf(expert)) weight.dispose();
}
