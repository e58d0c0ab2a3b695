import type { DeviceName } from '../device.js';
import { argumentError } from '../errors.js';
import { Tensor } from '../tensor.js';
import type { CacheStep, DecoderCache } from './decoder_cache.js';
import type { RecordedStep } from './recorded_step.js';

/** Shape of a {@link KVCache}. */
export interface KVCacheOptions {
  numLayers: number;
  numKvHeads: number;
  /** Channels of a key head. */
  headDim: number;
  /** Channels of a value head; default: headDim. */
  valueDim?: number;
  /** Tokens it can hold. */
  capacity: number;
  /** Default: `'f32'`; `'f16'` takes half the memory. */
  dtype?: 'f32' | 'f16';
  /** Where it lies. Default: `'cpu'`. */
  device?: DeviceName;
}

/** Keys and values of one layer. */
export interface LayerCache {
  /** [capacity, num_kv_heads, head_dim] */
  readonly keys: Tensor<'f32' | 'f16'>;
  /** [capacity, num_kv_heads, value_dim] */
  readonly values: Tensor<'f32' | 'f16'>;
  /** The values as [capacity, num_kv_heads * value_dim], where the value projection writes. */
  readonly valueRows: Tensor<'f32' | 'f16'>;
}

/**
 * Keys and values of the tokens a decoder has seen, for each layer [capacity, num_kv_heads, head_dim]. Memory is
 * reserved for the whole capacity; the operating system provides it page by page as tokens come.
 *
 * @example
 * ```ts
 * const cache = decoder.createCache();
 * decoder.forward(promptIds, { cache });
 * cache.rewind(4); // forget all but the first four tokens
 * ```
 */
export class KVCache implements DecoderCache {
  readonly capacity: number;
  readonly dtype: 'f32' | 'f16';
  readonly bytes: number;
  readonly #layers: LayerCache[] = [];
  /** Of the decoder that made its last step of one token with this cache. */
  #recorded: { readonly owner: object; readonly step: RecordedStep } | undefined;
  #length = 0;
  #disposed = false;
  #busy = false;

  /** @throws `BL_INVALID_SHAPE` for sizes that can not be, `BL_OUT_OF_MEMORY` */
  constructor(options: KVCacheOptions) {
    const { numLayers, numKvHeads, headDim, valueDim = headDim, capacity } = options;
    const { dtype = 'f32', device = 'cpu' } = options;
    for (const [name, value] of Object.entries({
      numLayers,
      numKvHeads,
      headDim,
      valueDim,
      capacity,
    })) {
      if (!Number.isInteger(value) || value < 1) {
        throw argumentError(
          'BL_INVALID_SHAPE',
          `KVCache: ${name} is ${value}, expected a whole number of at least 1`,
        );
      }
    }
    if (dtype !== 'f32' && dtype !== 'f16') {
      throw argumentError(
        'BL_INVALID_DTYPE',
        `KVCache: dtype is ${JSON.stringify(dtype)}, expected f32 or f16`,
      );
    }
    this.capacity = capacity;
    this.dtype = dtype;
    const elementBytes = dtype === 'f32' ? 4 : 2;
    this.bytes = numLayers * capacity * numKvHeads * (headDim + valueDim) * elementBytes;
    if (!Number.isSafeInteger(this.bytes)) {
      throw argumentError('BL_INVALID_SHAPE', `KVCache: ${this.bytes} bytes, expected below 2^53`);
    }
    try {
      for (let i = 0; i < numLayers; i++) {
        const keys = Tensor.empty(dtype, [capacity, numKvHeads, headDim], device);
        const values = Tensor.empty(dtype, [capacity, numKvHeads, valueDim], device);
        const valueRows = values.reshape([capacity, numKvHeads * valueDim]);
        this.#layers.push({ keys, values, valueRows });
      }
    } catch (error) {
      this.dispose();
      throw error;
    }
  }

  /** Tokens it holds. */
  get length(): number {
    return this.#length;
  }

  get numLayers(): number {
    return this.#layers.length;
  }

  get disposed(): boolean {
    return this.#disposed;
  }

  /** Memory of one layer, whole. */
  layer(index: number): LayerCache {
    this.#check('layer');
    const layer = this.#layers[index];
    if (layer !== undefined) return layer;
    throw argumentError(
      'BL_OUT_OF_RANGE',
      `KVCache: layer is ${index}, expected 0 to ${this.#layers.length - 1}`,
    );
  }

  /** Throws `BL_OUT_OF_RANGE` unless `count` more tokens have room. */
  need(count: number): void {
    this.#check('need');
    if (this.#length + count > this.capacity) {
      throw argumentError(
        'BL_OUT_OF_RANGE',
        `KVCache: ${this.#length} tokens and ${count} more exceed the context of ${this.capacity}`,
      );
    }
  }

  /** Counts `count` tokens that have been written behind the others. */
  advance(count: number): void {
    this.need(count);
    this.#length += count;
  }

  /** New tokens, which are written behind the others and counted by `commit()`. */
  begin(count: number): CacheStep {
    this.need(count);
    return {
      position: this.#length,
      layer: (index) => this.layer(index),
      commit: () => this.advance(count),
      abort: () => undefined,
    };
  }

  /**
   * Forgets all tokens but the first `length`.
   *
   * @throws `BL_OUT_OF_RANGE` unless it holds that many
   */
  rewind(length: number): void {
    this.#check('rewind');
    if (!Number.isInteger(length) || length < 0 || length > this.#length) {
      throw argumentError(
        'BL_OUT_OF_RANGE',
        `KVCache: rewind to ${length}, expected 0 to ${this.#length} (= length)`,
      );
    }
    this.#length = length;
  }

  /**
   * Takes the cache for one step; the returned function gives it back.
   *
   * @throws `BL_INVALID_ARGUMENT` while another step writes to it
   */
  acquire(): () => void {
    this.#check('acquire');
    if (this.#busy) {
      throw argumentError(
        'BL_INVALID_ARGUMENT',
        'KVCache: another step is using the cache; await it, or give each generation its own cache',
      );
    }
    this.#busy = true;
    return () => {
      this.#busy = false;
    };
  }

  /**
   * What a decoder keeps for its next step over this cache, until another decoder uses it or it is disposed of.
   *
   * @internal
   */
  recordedStep(owner: object, make: () => RecordedStep): RecordedStep {
    this.#check('recordedStep');
    if (this.#recorded?.owner !== owner) {
      this.#recorded?.step.dispose();
      this.#recorded = { owner, step: make() };
    }
    return this.#recorded.step;
  }

  /** Lets go of the memory. A step that is running keeps it until it is done. */
  dispose(): void {
    this.#disposed = true;
    this.#recorded?.step.dispose();
    this.#recorded = undefined;
    for (const { keys, values, valueRows } of this.#layers.splice(0)) {
      keys.dispose();
      values.dispose();
      valueRows.dispose();
    }
  }

  /** {@link dispose}, for `using`. */
  [Symbol.dispose](): void {
    this.dispose();
  }

  #check(what: string): void {
    if (this.#disposed) throw argumentError('BL_DETACHED', `KVCache: ${what} after dispose()`);
  }
}
