import type { DeviceName } from '../device.js';
import { argumentError } from '../errors.js';
import type { Tokenizer } from '../io/index.js';
import { embedding } from '../ops/embedding/embedding.js';
import { packAsync } from '../ops/quantize/pack.js';
import type { QuantizedTensor } from '../quantized_tensor.js';
import { type RunOptions, sequence } from '../run.js';
import { Tensor } from '../tensor.js';
import type { ModelConfig } from './config.js';
import { logitsTensor, tokenIds } from './decoder_arguments.js';
import type { CacheStep, DecoderCache } from './decoder_cache.js';
import { type DecoderLayer, StepMemory, type StepTensors } from './decoder_layer.js';
import { ForwardSteps, type StepModel } from './forward_steps.js';
import { type GenerateOptions, Generation } from './generation.js';
import { KVCache, type KVCacheOptions } from './kv_cache.js';
import type { Linear } from './linear.js';
import { type LowRankCacheOptions, LowRankDecoderCache } from './low_rank/low_rank_cache.js';
import { MoELayer } from './moe/moe_layer.js';
import { PreGate } from './moe/pre_gate.js';
import type { PagedCacheOptions } from './paged_cache_options.js';
import { PagedDecoderCache } from './paged_decoder_cache.js';
import { RecordedSteps } from './recorded_step.js';
import type { RMSNorm } from './rms_norm.js';

/** The parts of a {@link Decoder}; it disposes of them all. */
export interface DecoderParts {
  /** [vocabulary, hidden] */
  embedding: QuantizedTensor;
  layers: readonly DecoderLayer[];
  norm: RMSNorm;
  /** hidden -> vocabulary */
  output: Linear;
  /**
   * hidden -> experts, or the experts of all mixtures one after the other: routes of all layers, from the embeddings, in place of their
   * own routers' (pre-gating: Read-ME, Cai et al. 2024). With a cache of experts `forwardAsync` and `generate` bring all that a step
   * needs into memory before it runs. Best with `activations: 'f32'`.
   */
  preGate?: Linear | undefined;
}

/** Options of {@link Decoder}. */
export interface DecoderOptions extends RunOptions {
  tokenizer?: Tokenizer | undefined;
  /** Tokens that a cache of this decoder holds by default. */
  contextLength?: number;
  /**
   * Records the step of a single token with a {@link KVCache}, as a `RecordedSequence` or on a device as a `Graph`, and runs that for
   * each token. Default: true; never with a cache of experts, whose memory changes between steps.
   */
  graphs?: boolean;
  /** Called by {@link Decoder.dispose}, e.g. to close the file that the weights lie in. */
  onDispose?: () => void;
}

/** Options of {@link Decoder.forward}. */
export interface ForwardOptions {
  /** Where the tokens before these stand, and where these are added; default: none before, kept nowhere. */
  cache?: DecoderCache;
  /** Logits after the last token (default), or after each. */
  logits?: 'last' | 'all';
  /** Where to write the logits: [vocabulary] for `'last'`, [tokens, vocabulary] for `'all'`. */
  out?: Tensor<'f32'>;
}

// Tokens of a prompt computed at once: weights are read once for all of them, and the memory of a step grows with
// them (256 tokens of an 8-billion-parameter model: 60 MB).
const chunkTokens = 256;

/**
 * A llama-family language model: tokens in, logits out.
 *
 * @example
 * ```ts
 * const decoder = await load('model.gguf');
 * const cache = decoder.createCache();
 * const logits = decoder.forward(decoder.tokenizer.encode('Once upon'), { cache }); // [vocabulary]
 * for await (const text of decoder.generate('Once upon a time')) process.stdout.write(text);
 * decoder.dispose();
 * ```
 */
export class Decoder {
  readonly tokenizer: Tokenizer | undefined;
  readonly contextLength: number;
  readonly #options: DecoderOptions;
  readonly #memory: StepMemory[] = [];
  readonly #recorded: RecordedSteps | undefined;
  readonly #preGate: PreGate | undefined;
  readonly #model: StepModel;
  #disposed = false;

  constructor(
    readonly config: ModelConfig,
    readonly parts: DecoderParts,
    options: DecoderOptions = {},
  ) {
    this.#options = options;
    this.tokenizer = options.tokenizer;
    const { contextLength = Math.min(config.contextLength, 4096) } = options;
    if (
      !Number.isInteger(contextLength) ||
      contextLength < 1 ||
      contextLength > config.contextLength
    ) {
      throw argumentError(
        'BL_OUT_OF_RANGE',
        `Decoder: contextLength is ${contextLength}, expected 1 to ${config.contextLength} (= config.contextLength)`,
      );
    }
    this.contextLength = contextLength;
    const mixtures = parts.layers.flatMap(({ mlp }) => (mlp instanceof MoELayer ? [mlp] : []));
    this.#preGate = parts.preGate && new PreGate(parts.preGate, mixtures);
    this.#model = {
      run: (...step) => this.#run(...step),
      prefetch: this.#preGate?.prefetches ? (tensors) => this.#prefetch(tensors) : undefined,
      settle: (memory, rows) => this.#settle(memory, rows),
    };
    const isRecorded =
      options.graphs !== false && !mixtures.some(({ replacesExperts }) => replacesExperts);
    this.#recorded = isRecorded ? new RecordedSteps(config, this.device) : undefined;
  }

  get disposed(): boolean {
    return this.#disposed;
  }

  /** Where the weights lie, and where it computes. */
  get device(): DeviceName {
    return this.parts.embedding.device;
  }

  /**
   * The same model on a device: a copy, which is disposed of by itself; this one stays as it is. On the same device: the
   * model itself. Logits come back to the processor.
   *
   * @throws `BL_NOT_FOUND` where there is no such device, `BL_OUT_OF_MEMORY`, `BL_UNSUPPORTED` for a format that
   *   devices do not take
   */
  async to(device: DeviceName): Promise<Decoder> {
    this.#check('to');
    if (device === this.device) return this;
    const { embedding: table, layers, norm, output, preGate } = this.parts;
    const canonical =
      table.layout === 'canonical' ? table : await packAsync(table, { layout: 'canonical' });
    const moved: DecoderLayer[] = [];
    for (const layer of layers) moved.push(await layer.to(device));
    const parts = {
      embedding: await canonical.to(device),
      layers: moved,
      norm: await norm.to(device),
      output: await output.to(device),
      preGate: await preGate?.to(device),
    };
    const { tokenizer, contextLength } = this;
    const { onDispose, ...run } = this.#options;
    return new Decoder(this.config, parts, { ...run, tokenizer, contextLength });
  }

  /**
   * A cache of this decoder's shape, for {@link contextLength} tokens if not told otherwise; of f32, or of f16 on a
   * device, where attention reads half the bytes.
   */
  createCache(options: Partial<Pick<KVCacheOptions, 'capacity' | 'dtype'>> = {}): KVCache {
    this.#check('createCache');
    const { numKvHeads, headDim, valueDim } = this.config;
    const { capacity = this.contextLength } = options;
    const { dtype = this.device === 'cpu' ? 'f32' : 'f16' } = options;
    const numLayers = this.parts.layers.length;
    if (!Number.isInteger(capacity) || capacity < 1 || capacity > this.config.contextLength) {
      throw argumentError(
        'BL_OUT_OF_RANGE',
        `Decoder: a cache for ${capacity} tokens, expected 1 to ${this.config.contextLength} (= config.contextLength)`,
      );
    }
    const { device } = this;
    return new KVCache({ numLayers, numKvHeads, headDim, valueDim, capacity, dtype, device });
  }

  /**
   * A cache in pages: quantized, and compressed by a policy.
   *
   * @throws `BL_UNSUPPORTED` on a device
   */
  createPagedCache(options: PagedCacheOptions = {}): PagedDecoderCache {
    this.#check('createPagedCache');
    if (this.device !== 'cpu') {
      throw argumentError(
        'BL_UNSUPPORTED',
        `Decoder: a cache in pages on ${this.device}, expected cpu`,
      );
    }
    const { layers } = this.parts;
    const config = { ...this.config, numLayers: layers.length };
    return new PagedDecoderCache(config, this.contextLength, options);
  }

  /**
   * A cache of low rank: older tokens as features, the newest as they are.
   *
   * @throws `BL_UNSUPPORTED` on a device
   */
  createLowRankCache(options: LowRankCacheOptions): LowRankDecoderCache {
    this.#check('createLowRankCache');
    if (this.device !== 'cpu') {
      throw argumentError(
        'BL_UNSUPPORTED',
        `Decoder: a cache of low rank on ${this.device}, expected cpu`,
      );
    }
    const { layers } = this.parts;
    const config = { ...this.config, numLayers: layers.length };
    return new LowRankDecoderCache(config, this.contextLength, options);
  }

  /**
   * Logits after `tokens`, which follow those in the cache.
   *
   * @returns `out`, or a new tensor [vocabulary] (`'last'`) or [tokens, vocabulary] (`'all'`)
   * @throws `BL_OUT_OF_RANGE` for token ids outside the vocabulary or more tokens than the cache has room for,
   *   before anything is computed
   */
  forward(tokens: ArrayLike<number>, options: ForwardOptions = {}): Tensor<'f32'> {
    const steps = this.#plan(tokens, options);
    try {
      for (const step of steps.chunks) {
        step.begin();
        const recorded = step.recorded();
        if (recorded === undefined) step.compute();
        else recorded.run();
        step.commit();
        const probe = steps.probe();
        if (probe === undefined) continue;
        probe.compute();
        probe.commit();
      }
      return steps.finish();
    } finally {
      steps.release();
    }
  }

  /** {@link forward} on a worker thread: one visit per 256 tokens (or what the cache takes at once). */
  async forwardAsync(
    tokens: ArrayLike<number>,
    options: ForwardOptions & { signal?: AbortSignal } = {},
  ): Promise<Tensor<'f32'>> {
    const { signal, ...rest } = options;
    const run = signal === undefined ? {} : { signal };
    const steps = this.#plan(tokens, rest);
    try {
      for (const step of steps.chunks) {
        step.begin();
        signal?.throwIfAborted();
        if (step.prefetch !== undefined) await step.prefetch();
        const recorded = step.recorded();
        if (recorded === undefined) await sequence(step.compute, run);
        else await recorded.runAsync(run);
        await step.commitAsync();
        const probe = steps.probe();
        if (probe === undefined) continue;
        await sequence(probe.compute, run);
        await probe.commitAsync();
      }
      return await steps.finishAsync();
    } finally {
      steps.release();
    }
  }

  /**
   * Text that follows `prompt`, piece by piece: `for await (const text of decoder.generate('Once'))`.
   * See {@link Generation} for statistics and token ids.
   */
  generate(prompt: string | readonly number[], options: GenerateOptions = {}): Generation {
    this.#check('generate');
    return new Generation(this, prompt, options);
  }

  /** Lets go of weights, tokenizer and file. Calls that are running keep what they need until they are done. */
  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    const { embedding: table, layers, norm, output, preGate } = this.parts;
    table.dispose();
    for (const layer of layers) layer.dispose();
    norm.dispose();
    output.dispose();
    preGate?.dispose();
    this.#memory.length = 0;
    this.#recorded?.dispose();
    this.#options.onDispose?.();
  }

  /** {@link dispose}, for `using`. */
  [Symbol.dispose](): void {
    this.dispose();
  }

  #check(what: string): void {
    if (this.#disposed) throw argumentError('BL_DETACHED', `Decoder: ${what} after dispose()`);
  }

  /** Checks everything, takes memory and cache, and cuts the tokens into chunks. */
  #plan(tokens: ArrayLike<number>, options: ForwardOptions) {
    this.#check('forward');
    const ids = tokenIds(tokens, this.config.vocabSize);
    const { logits: which = 'last' } = options;
    const cache: DecoderCache = options.cache ?? this.createCache({ capacity: ids.length });
    if (cache.numLayers !== this.parts.layers.length) {
      throw argumentError(
        'BL_INVALID_SHAPE',
        `Decoder: cache.numLayers is ${cache.numLayers}, expected ${this.parts.layers.length}`,
      );
    }
    cache.need(ids.length);
    const result = logitsTensor(which, [ids.length, this.config.vocabSize], options.out);
    const isHere = this.device === 'cpu';
    const isOne = ids.length === 1 && which === 'last' && cache === options.cache;
    const recorded = isOne ? this.#recorded?.of(cache) : undefined;
    const logits =
      recorded?.logits ?? (isHere ? result : Tensor.empty('f32', result.shape, this.device));
    const releaseCache = cache.acquire();
    const most = Math.min(chunkTokens, cache.stepTokens ?? chunkTokens);
    const probeTokens = ids.length > 1 ? (cache.probeTokens ?? 0) : 0;
    const memory =
      recorded?.memory ?? this.#takeMemory(Math.max(Math.min(ids.length, most), probeTokens));
    const steps = new ForwardSteps(this.#model, cache, memory, recorded);
    const release = (): void => {
      steps.abort();
      releaseCache();
      if (cache !== options.cache) cache.dispose();
      if (!this.#disposed && recorded === undefined) this.#memory.push(memory);
    };
    // Logits of a device or a recorded step are copied to the tensor that the caller gets.
    const finish = (): Tensor<'f32'> => {
      if (logits !== result) result.write(logits.toSync('cpu').data);
      return result;
    };
    const finishAsync = async (): Promise<Tensor<'f32'>> => {
      if (logits !== result) result.write((await logits.to('cpu')).data);
      return result;
    };
    return {
      chunks: steps.chunks(ids, most, logits),
      probe: () => steps.probe(),
      finish,
      finishAsync,
      release,
    };
  }

  /** Calls the operators of a step; without `start` as {@link Attention.forward} does. */
  #run(
    tensors: StepTensors,
    cache: CacheStep,
    start: number | undefined,
    logits?: Tensor<'f32'>,
  ): void {
    const { layers, norm, output } = this.parts;
    this.#embed(tensors);
    const isRouted = this.#preGate !== undefined;
    for (const [i, layer] of layers.entries()) {
      layer.forward(tensors, cache.layer(i), start, isRouted);
    }
    if (logits === undefined) return;
    if (logits.rank === 2) {
      output.forward(norm.forward(tensors.residual, tensors.normed), logits);
    } else {
      norm.forward(tensors.lastResidual, tensors.lastNormed);
      output.forward(tensors.lastNormed, logits.reshape([1, logits.size]));
    }
  }

  /** The tokens' embeddings, and all that follows from them alone: the routes of a {@link PreGate}. */
  #embed(tensors: StepTensors): void {
    const { isa, threads } = this.#options;
    embedding(this.parts.embedding, tensors.ids, {
      ...(isa === undefined ? {} : { isa }),
      ...(threads === undefined ? {} : { threads }),
      out: tensors.residual,
    });
    this.#preGate?.forward(tensors.residual, tensors);
  }

  async #prefetch(tensors: StepTensors): Promise<void> {
    await sequence(() => this.#embed(tensors));
    await this.#preGate?.prefetch(tensors);
  }

  /** Which experts a step has used. */
  #settle(memory: StepMemory, rows: number): void {
    const key = memory.tensors(rows);
    for (const { mlp } of this.parts.layers) if (mlp instanceof MoELayer) mlp.settle(key);
  }

  /** Memory for a step that no running step uses: one sync and several async ones may be on their way. */
  #takeMemory(rows: number): StepMemory {
    const at = this.#memory.findIndex((memory) => memory.rows >= rows);
    if (at >= 0) return this.#memory.splice(at, 1)[0] as StepMemory;
    this.#memory.length = 0; // all too small
    return new StepMemory(this.config, rows, this.device);
  }
}
