import { Device, type DeviceName } from '../device.js';
import { argumentError } from '../errors.js';
import type { Format } from '../generated.js';
import { type GGUFFile, readGGUF, type Tokenizer, tokenizerFromGGUF } from '../io/index.js';
import type { QuantizeMethod } from '../ops/quantize/quantize.js';
import { formatInfo, type QuantizedTensor } from '../quantized_tensor.js';
import type { RunOptions } from '../run.js';
import type { ChannelOrder } from './calibration/channel_order.js';
import { type ModelConfig, readConfig } from './config.js';
import { Decoder } from './decoder.js';
import type { DecoderLayer } from './decoder_layer.js';
import { type Activations, computeOf, Linear } from './linear.js';
import { buildLayer, type Packer } from './load_layer.js';
import type { LoraMixture } from './lora_linear.js';
import { type ModelSource, openSource } from './model_source.js';
import { checkLayerCount, type MatrixLoader, ModelTensors } from './model_tensors.js';
import { packInPlace } from './pack_weights.js';
import { requantize, rowsFit } from './requantize.js';
import { RMSNorm } from './rms_norm.js';
import { isRouter, storedShape } from './stored_tensor.js';

/** How far {@link load} or `quantizeModel` is. */
export interface Progress {
  /** Tensor that is done. */
  tensor: string;
  /** Weights done and in all. */
  done: number;
  total: number;
}

/** Options of {@link load}. */
export interface LoadOptions extends RunOptions {
  /** Quantizes matrices to this format on the way; those whose rows do not fit its blocks, and routers, stay as they are. */
  format?: Format;
  /** How to quantize. Default: `'minmax'`. */
  method?: QuantizeMethod;
  /** Table of the cb<bits> formats. */
  codebook?: Float32Array | readonly number[];
  /**
   * By layer: an order for the channels of keys and values, folded into the projections (`fitChannelOrder`): a cache in blocks
   * (bfp4, bfp8, values of i4 and i2) loses less. The logits stay, but for rounding.
   */
  channelOrders?: readonly ChannelOrder[];
  /** Default: `'auto'`; see {@link Linear}. */
  activations?: Activations;
  /**
   * Where the model shall be, `'cuda:0'` for example: as {@link Decoder.to} after loading; what was loaded on the way is
   * disposed of. Default: `'cpu'`.
   */
  device?: DeviceName;
  /** Tokens a cache holds by default. Default: the model's own context, at most 4096. */
  contextLength?: number;
  /** Records steps of one token. Default: true; see {@link DecoderOptions}. */
  graphs?: boolean;
  /**
   * For models with experts that are larger than memory: experts stay in the file, which is mapped, and as many as `bytes` hold
   * of those in use, in all layers together, are kept in memory ({@link ExpertCache}).
   */
  expertCache?: { bytes: number };
  /**
   * Experts of low rank, by the name of the product that they are added to: `blk.N.attn_q`, `attn_k`, `attn_v`, `attn_output`, `ffn_gate`,
   * `ffn_up`, `ffn_down` (MoLA: a number of experts for each layer; SMoRA: every rank one; LoRA-Mixer: for the products of
   * attention). The decoder disposes of them.
   *
   * @example
   * ```ts
   * const router = new Linear(quantize(routerWeights, 'f32'), { activations: 'f32' }); // [4, hidden]
   * const query = { router, experts: { down, up, scale: 2 }, route: { topK: 2, normalize: true } }; // [4, 8, hidden], [4, N, 8]
   * const decoder = await load('model.gguf', { format: 'u4_g128', lora: { 'blk.0.attn_q': query } });
   * ```
   */
  lora?: Readonly<Record<string, LoraMixture>>;
  /**
   * A router over the embeddings that routes all layers, in place of theirs: {@link DecoderParts.preGate}. The decoder disposes of it.
   *
   * @example
   * ```ts
   * const preGate = new Linear(quantize(router, 'f32'), { activations: 'f32' }); // [experts, hidden]
   * const decoder = await load('model.gguf', { preGate, expertCache: { bytes: 2e9 } });
   * ```
   */
  preGate?: Linear;
  /** Called when a matrix is ready. */
  onProgress?: (progress: Progress) => void;
  signal?: AbortSignal;
  /**
   * Rearranges matrices for the kernels (`packWeights`), in place. Default: true for a file that is given by its
   * path (the file itself is not changed), false for bytes that are the caller's.
   */
  pack?: boolean;
}

/**
 * Loads a llama-family model (llama 2 and 3, mistral, qwen2, qwen3; with experts mixtral, qwen2moe, qwen3moe, olmoe, deepseek and deepseek2) from a GGUF file. The file is mapped, and weights
 * are used where they lie; those that kernels want in another order are rearranged there, in memory that replaces the
 * file's pages, so that the model takes its size once. With `format` the weights are decoded and encoded anew into
 * memory, a few rows at a time.
 *
 * @throws BitloomError `BL_INVALID_FILE` for missing or misshapen tensors and metadata that can not be, `BL_UNSUPPORTED`
 *   for other architectures and tensor types, `BL_NOT_FOUND` without such a file or device, `BL_OUT_OF_MEMORY`
 *
 * @example
 * ```ts
 * const decoder = await load('model.gguf', { format: 'u4_g128' });
 * for await (const text of decoder.generate('Once upon a time')) process.stdout.write(text);
 * ```
 */
export async function load(from: ModelSource, options: LoadOptions = {}): Promise<Decoder> {
  const { device = 'cpu' } = options;
  // Before anything is read: whether there is such a device.
  if (device !== 'cpu') new Device(device).info();
  if (options.format !== undefined) formatInfo(options.format);
  computeOf(options.activations);
  const { source, close } = openSource(from);
  const made: QuantizedTensor[] = [];
  try {
    const file = readGGUF(source);
    const config = readConfig(file);
    checkLayerCount(config, file);
    const tensors = new ModelTensors(file, matrixLoader(options, countWeights(file), made));
    // A device has a layout of its own.
    const pack = options.pack ?? (typeof from === 'string' && device === 'cpu');
    const decoder = await build(tensors, config, { ...options, pack }, readTokenizer(file), close);
    tensors.checkAllRead();
    if (device !== 'cpu') return await movedTo(device, decoder);
    return decoder;
  } catch (error) {
    for (const tensor of made) tensor.dispose();
    close();
    throw error;
  }
}

/** The model on a device, which owns nothing of the one on the processor: that is disposed of. */
async function movedTo(device: DeviceName, decoder: Decoder): Promise<Decoder> {
  const moved = await decoder.to(device);
  decoder.dispose();
  return moved;
}

function readTokenizer(file: GGUFFile): Tokenizer | undefined {
  return file.metadata.has('tokenizer.ggml.model') ? tokenizerFromGGUF(file) : undefined;
}

/** Weights in all matrices of the file. */
function countWeights(file: GGUFFile): number {
  let count = 0;
  for (const tensor of file.tensors.values()) {
    const shape = storedShape(file, tensor);
    if (shape.length >= 2) count += shape.reduce((product, size) => product * size, 1);
  }
  return count;
}

function matrixLoader(options: LoadOptions, total: number, made: QuantizedTensor[]): MatrixLoader {
  let done = 0;
  return async (name, stored) => {
    const { format, method, codebook, signal, isa, threads } = options;
    signal?.throwIfAborted();
    let matrix = stored;
    const isKept = isRouter(name) || format === stored.format;
    if (format !== undefined && !isKept && rowsFit(format, stored.cols)) {
      matrix = await requantize(stored, format, {
        ...(method === undefined ? {} : { method }),
        ...(codebook === undefined ? {} : { codebook }),
        ...(signal === undefined ? {} : { signal }),
        ...runOptions({ isa, threads }),
      });
      made.push(matrix);
    }
    done += stored.rows * stored.cols;
    options.onProgress?.({ tensor: name, done, total });
    return matrix;
  };
}

function runOptions({
  isa,
  threads,
}: {
  isa?: RunOptions['isa'];
  threads?: number | undefined;
}): RunOptions {
  if (threads !== undefined && !(Number.isInteger(threads) && threads >= 1 && threads <= 256)) {
    throw argumentError('BL_INVALID_ARGUMENT', `load: threads is ${threads}, expected 1 to 256`);
  }
  return { ...(isa === undefined ? {} : { isa }), ...(threads === undefined ? {} : { threads }) };
}

async function build(
  tensors: ModelTensors,
  config: ModelConfig,
  options: LoadOptions,
  tokenizer: Tokenizer | undefined,
  onDispose: () => void,
): Promise<Decoder> {
  const { activations = 'auto', contextLength, graphs } = options;
  const run = runOptions(options);
  const { hiddenSize, vocabSize, epsilon } = config;
  const norm = (name: string): RMSNorm =>
    new RMSNorm(tensors.vector(`${name}.weight`, hiddenSize, 'embedding_length'), {
      epsilon,
      ...run,
    });
  const embedding = await tensors.matrix(
    'token_embd.weight',
    [vocabSize, hiddenSize],
    'vocabulary, embedding_length',
  );
  // Without a matrix of its own the output is the embedding's: tied.
  const head = tensors.has('output.weight')
    ? await tensors.matrix('output.weight', [vocabSize, hiddenSize], 'vocabulary, embedding_length')
    : embedding;
  const packed = packer(options);
  const outputWeight = await packed(head);
  const headBias = tensors.optionalVector('output.bias', vocabSize, 'vocabulary');
  const freqFactors = tensors.optionalVector(
    'rope_freqs.weight',
    config.rope.rotaryDim / 2,
    'rope.dimension_count / 2',
  );
  const { channelOrders } = options;
  if (channelOrders !== undefined && channelOrders.length !== config.numLayers) {
    throw argumentError(
      'BL_INVALID_SHAPE',
      `load: channelOrders.length is ${channelOrders.length}, expected ${config.numLayers} (= numLayers)`,
    );
  }
  const withoutPlace = new Set(Object.keys(options.lora ?? {}));
  const lora = (name: string): LoraMixture | undefined => {
    withoutPlace.delete(name);
    return options.lora?.[name];
  };
  const layers: DecoderLayer[] = [];
  for (let i = 0; i < config.numLayers; i++) {
    layers.push(
      await buildLayer(tensors, config, i, {
        ...{ norm, activations, run, freqFactors, packed, lora },
        order: options.channelOrders?.[i],
        expertBytes: expertBytes(config, options),
      }),
    );
  }
  const [name] = withoutPlace;
  if (name !== undefined) {
    throw argumentError(
      'BL_INVALID_ARGUMENT',
      `load: lora has ${JSON.stringify(name)}, expected a product of the model, such as blk.0.attn_q`,
    );
  }
  return new Decoder(
    config,
    {
      embedding: head === embedding ? outputWeight : embedding,
      layers,
      norm: norm('output_norm'),
      output: new Linear(outputWeight, { bias: headBias, activations, ...run }),
      preGate: options.preGate,
    },
    {
      tokenizer,
      onDispose,
      ...run,
      ...(contextLength === undefined ? {} : { contextLength }),
      ...(graphs === undefined ? {} : { graphs }),
    },
  );
}

/** Of a layer. */
function expertBytes(config: ModelConfig, { expertCache }: LoadOptions): number | undefined {
  if (expertCache === undefined || config.moe === undefined) return undefined;
  return expertCache.bytes / Math.max(config.numLayers - config.moe.denseLayers, 1);
}

/** Packs a matrix of the model's own memory, if that is wanted. */
function packer({ pack = false, signal, isa, threads }: LoadOptions): Packer {
  if (!pack) return async (weights) => weights;
  const run = { ...runOptions({ isa, threads }), ...(signal === undefined ? {} : { signal }) };
  return (weights) => packInPlace(weights, run);
}
