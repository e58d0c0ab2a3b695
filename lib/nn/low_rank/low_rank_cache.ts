import { checkObject, checkOptions } from '../../arguments.js';
import { argumentError } from '../../errors.js';
import { type KVFormat, kvFormats } from '../../generated.js';
import type { ModelConfig } from '../config.js';
import type { CacheStep, DecoderCache } from '../decoder_cache.js';
import { wholeNumber } from '../paged/checks.js';
import type { LowRankFactors } from './fit_low_rank.js';
import { checkFactors, LowRankLayer, LowRankMemory } from './low_rank_layer.js';

/** Options of {@link LowRankDecoderCache}. */
export interface LowRankCacheOptions {
  /** By layer, from {@link fitLowRank} or of your own. */
  factors: readonly LowRankFactors[];
  /** How features are kept, or those of keys and values: `'i4'` for channel shrinking and quantization. Default `'f16'`. */
  format?: KVFormat | { keys: KVFormat; values: KVFormat };
  /** The newest tokens, which stay as they are, at least. Default 32. */
  recent?: number;
  /** How they are kept. Default `'f16'`. */
  recentFormat?: 'f16' | 'bf16' | 'f32';
  /** Tokens that become features at a time: a multiple of 8, 8 to 256. Default 64. */
  pageSize?: number;
  /** Tokens of a text. Default: the decoder's contextLength. */
  capacity?: number;
}

const known = new Set(['factors', 'format', 'recent', 'recentFormat', 'pageSize', 'capacity']);

// Tokens of a step at most: chunkTokens of decoder.ts.
const stepTokens = 256;

/**
 * Keys and values of one text for a {@link Decoder} in two branches (CSKV, Wang et al. 2024): the newest `recent` tokens (and
 * those that do not fill a page yet) as they are, older ones as `keyRank` and `valueRank` features for all heads together,
 * which may be quantized as well. Keys are kept before the rotary embedding. To be read, all features of a layer are
 * multiplied up again, and keys rotated, in every step: memory is saved, not time. In the authors' code (wln20/CSKV) the branches are the
 * same; the window there grows to 32 tokens and is then emptied, its features quantized by channel (keys) and by token (values), and a
 * prompt is computed with its own keys and values whatever its length; here that holds for the tokens of one step.
 *
 * Memory: `layers * (tokens * (keyRank + valueRank) + (recent + pageSize + 256) * numKvHeads * (headDim + valueDim))` elements,
 * and one layer's keys and values of all tokens in f32 to work in.
 *
 * @example
 * ```ts
 * const factors = cacheSamples(decoder, calibrationText).map((layer) => fitLowRank(layer, { keyRank: 256 }));
 * const cache = decoder.createLowRankCache({ factors, format: 'i4' });
 * for await (const text of decoder.generate(prompt, { cache })) process.stdout.write(text);
 * ```
 */
export class LowRankDecoderCache implements DecoderCache {
  readonly capacity: number;
  readonly recent: number;
  readonly pageSize: number;
  readonly #layers: LowRankLayer[] = [];
  readonly #memory: LowRankMemory;
  #length = 0;
  #compressed = 0;
  #busy = false;
  #disposed = false;

  /** @throws `BL_INVALID_ARGUMENT`, `BL_INVALID_FORMAT`, `BL_INVALID_SHAPE` (factors), `BL_OUT_OF_RANGE`, `BL_OUT_OF_MEMORY` */
  constructor(config: ModelConfig, contextLength: number, options: LowRankCacheOptions) {
    checkOptions('LowRankDecoderCache', options, known);
    const { factors, format = 'f16', recent = 32, recentFormat = 'f16', pageSize = 64 } = options;
    const { capacity = contextLength } = options;
    const check = (name: string, value: number, min: number, max: number): number =>
      wholeNumber('LowRankDecoderCache', name, value, min, max);
    this.capacity = check('capacity', capacity, 1, config.contextLength);
    this.recent = check('recent', recent, 0, 2 ** 30);
    this.pageSize = check('pageSize', pageSize, 8, 256);
    if (pageSize % 8 !== 0) {
      throw argumentError(
        'BL_OUT_OF_RANGE',
        `LowRankDecoderCache: pageSize is ${pageSize}, expected a multiple of 8`,
      );
    }
    if (!['f16', 'bf16', 'f32'].includes(recentFormat)) {
      throw argumentError(
        'BL_INVALID_FORMAT',
        `LowRankDecoderCache: recentFormat is ${JSON.stringify(recentFormat)}, expected f16, bf16 or f32`,
      );
    }
    checkObject('LowRankDecoderCache', 'factors', factors);
    if (factors.length !== config.numLayers) {
      throw argumentError(
        'BL_INVALID_SHAPE',
        `LowRankDecoderCache: factors.length is ${factors.length}, expected ${config.numLayers} (= numLayers)`,
      );
    }
    const formats = typeof format === 'string' ? { keys: format, values: format } : format;
    for (const name of [formats.keys, formats.values]) {
      if (Object.hasOwn(kvFormats, name)) continue;
      throw argumentError(
        'BL_INVALID_FORMAT',
        `LowRankDecoderCache: format is ${JSON.stringify(name)}, expected one of ${Object.keys(kvFormats).join(', ')}`,
      );
    }
    for (const [i, layer] of factors.entries()) checkFactors(i, layer, config);
    this.#memory = new LowRankMemory(config, capacity, factors);
    const window = Math.min(capacity, recent + stepTokens) + pageSize;
    for (const layer of factors) {
      this.#layers.push(
        new LowRankLayer(config, layer, this.#memory, {
          ...{ formats, recentFormat, capacity, pageSize, window },
        }),
      );
    }
  }

  get numLayers(): number {
    return this.#layers.length;
  }

  get length(): number {
    return this.#length;
  }

  /** Tokens that are features; the others are as they came. */
  get compressed(): number {
    return this.#compressed;
  }

  get disposed(): boolean {
    return this.#disposed;
  }

  /** Memory of features and of recent tokens of all layers; what all layers work in. */
  get stats(): { featureBytes: number; recentBytes: number; workBytes: number } {
    const sum = (of: (layer: LowRankLayer) => number): number =>
      this.#layers.reduce((total, layer) => total + of(layer), 0);
    return {
      featureBytes: sum(({ features }) => features.bytes),
      recentBytes: sum(({ recent }) => recent.bytes),
      workBytes: this.#memory.bytes,
    };
  }

  need(count: number): void {
    this.#check('need');
    if (this.#length + count <= this.capacity) return;
    throw argumentError(
      'BL_OUT_OF_RANGE',
      `LowRankDecoderCache: ${this.#length} tokens and ${count} more exceed the context of ${this.capacity}`,
    );
  }

  acquire(): () => void {
    this.#check('acquire');
    if (this.#busy) {
      throw argumentError(
        'BL_INVALID_ARGUMENT',
        'LowRankDecoderCache: another step is using the cache; await it, or give each generation its own cache',
      );
    }
    this.#busy = true;
    return () => {
      this.#busy = false;
    };
  }

  /** Room for `count` more tokens (256 at most), which are there after the step's commit. */
  begin(count: number): CacheStep {
    this.#check('begin');
    this.need(count);
    wholeNumber('LowRankDecoderCache', 'count', count, 0, stepTokens);
    const { recent, pageSize } = this;
    const start = this.#length;
    const end = start + count;
    const before = this.#compressed;
    const pages = Math.floor(Math.max(0, end - recent) / pageSize);
    const after = Math.max(before, pages * pageSize);
    const range = { compressed: before, toCompress: after, start, end };
    return {
      position: start,
      layer: (index) => ({ mix: (step) => (this.#layers[index] as LowRankLayer).mix(range, step) }),
      commit: () => {
        this.#length = end;
        this.#compressed = after;
      },
      // What was written stands beyond the tokens that there are.
      abort: () => undefined,
    };
  }

  /** Frees the memory; any later use but this throws `BL_DETACHED`. */
  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    for (const layer of this.#layers) layer.dispose();
    this.#memory.dispose();
  }

  /** {@link dispose}, for `using`. */
  [Symbol.dispose](): void {
    this.dispose();
  }

  #check(what: string): void {
    if (!this.#disposed) return;
    throw argumentError('BL_DETACHED', `LowRankDecoderCache: ${what} after dispose()`);
  }
}
