// What a GGUF file's metadata says about the network, checked: later code divides and allocates by it.
import type { GGUFFile, GGUFValue } from '../io/index.js';
import { invalidModel, unsupportedModel } from './model_error.js';
import { type MoEConfig, readMoE } from './moe/config.js';
import { type RopeConfig, readRope } from './rope_config.js';

/** Shape of a llama-family decoder. */
export interface ModelConfig {
  /** `general.architecture`, e.g. `llama`, `qwen3`. */
  readonly architecture: Architecture;
  readonly name: string | undefined;
  readonly numLayers: number;
  /** Width of the residual stream. */
  readonly hiddenSize: number;
  /** Width of the MLP. */
  readonly intermediateSize: number;
  readonly numHeads: number;
  readonly numKvHeads: number;
  /** Channels of a query or key head; of a value head. */
  readonly headDim: number;
  readonly valueDim: number;
  /** Tokens the model was trained for. */
  readonly contextLength: number;
  /** Rows of the embedding table. */
  readonly vocabSize: number;
  /** Of the norms. */
  readonly epsilon: number;
  /** Keys that a query sees at most; 0: all. */
  readonly window: number;
  readonly rope: RopeConfig;
  /** Of models with experts. */
  readonly moe: MoEConfig | undefined;
}

// How each architecture lays out rotary pairs: GGUF converters permute the rows of llama's q and k so that pairs are
// neighbours; qwen's are left as they are trained, halves.
const architectures = {
  llama: 'interleaved',
  mistral: 'interleaved',
  qwen2: 'half',
  qwen3: 'half',
  qwen2moe: 'half',
  qwen3moe: 'half',
  olmoe: 'half',
  deepseek: 'interleaved',
} as const;
export type Architecture = keyof typeof architectures;

// Far above any model; keeps products of two of them exact and loops bounded.
const maxSize = 2 ** 24;
const maxLayers = 4096;

/** Reads metadata values under `<architecture>.`, with checks. */
export class MetadataReader {
  constructor(
    private readonly metadata: ReadonlyMap<string, GGUFValue>,
    readonly architecture: string,
  ) {}

  /** Whole number in [least, most]; `fallback` where the key is absent, an error without one. */
  integer(key: string, least: number, most: number, fallback?: number): number {
    const name = `${this.architecture}.${key}`;
    const value = this.metadata.get(name);
    if (value === undefined && fallback !== undefined) return fallback;
    if (typeof value !== 'number' || !Number.isInteger(value) || value < least || value > most) {
      throw invalidModel(
        `metadata ${name} is ${show(value)}, expected a whole number from ${least} to ${most}`,
      );
    }
    return value;
  }

  /** Finite number in [least, most]. */
  number(key: string, least: number, most: number, fallback?: number): number {
    const name = `${this.architecture}.${key}`;
    const value = this.metadata.get(name);
    if (value === undefined && fallback !== undefined) return fallback;
    if (typeof value !== 'number' || !(value >= least && value <= most)) {
      throw invalidModel(
        `metadata ${name} is ${show(value)}, expected a number from ${least} to ${most}`,
      );
    }
    return value;
  }

  boolean(key: string, fallback: boolean): boolean {
    const name = `${this.architecture}.${key}`;
    const value = this.metadata.get(name) ?? fallback;
    if (typeof value === 'boolean') return value;
    throw invalidModel(`metadata ${name} is ${show(value)}, expected true or false`);
  }

  text(key: string): string | undefined {
    const name = `${this.architecture}.${key}`;
    const value = this.metadata.get(name);
    if (value === undefined || typeof value === 'string') return value;
    throw invalidModel(`metadata ${name} is ${show(value)}, expected a string`);
  }

  has(key: string): boolean {
    return this.metadata.has(`${this.architecture}.${key}`);
  }
}

function show(value: GGUFValue | undefined): string {
  if (value === undefined) return 'missing';
  if (Array.isArray(value)) return `an array of ${value.length}`;
  return typeof value === 'string' ? JSON.stringify(value.slice(0, 80)) : String(value);
}

/**
 * Shape of the network in a GGUF file.
 *
 * @throws BitloomError `BL_UNSUPPORTED` for other architectures, `BL_INVALID_FILE` for values that can not be
 */
export function readConfig(file: Pick<GGUFFile, 'metadata' | 'tensors'>): ModelConfig {
  const architecture = file.metadata.get('general.architecture');
  if (architecture === undefined) {
    throw invalidModel('metadata general.architecture is missing: the file holds no model');
  }
  if (typeof architecture !== 'string' || !Object.hasOwn(architectures, architecture)) {
    throw unsupportedModel(
      `architecture is ${show(architecture)}, expected one of ${Object.keys(architectures).join(', ')}`,
    );
  }
  const reader = new MetadataReader(file.metadata, architecture);
  const moe = readMoE(reader);
  const hiddenSize = reader.integer('embedding_length', 1, maxSize);
  const numHeads = reader.integer('attention.head_count', 1, maxSize);
  const numKvHeads = reader.integer('attention.head_count_kv', 1, maxSize, numHeads);
  if (numHeads % numKvHeads !== 0) {
    throw invalidModel(
      `metadata ${architecture}.attention.head_count is ${numHeads}, ` +
        `expected a multiple of ${numKvHeads} (= attention.head_count_kv)`,
    );
  }
  if (!reader.has('attention.key_length') && hiddenSize % numHeads !== 0) {
    throw invalidModel(
      `metadata ${architecture}.embedding_length is ${hiddenSize}, expected a multiple of ${numHeads} (= attention.head_count)`,
    );
  }
  const headDim = reader.integer(
    'attention.key_length',
    1,
    maxSize,
    Math.floor(hiddenSize / numHeads),
  );
  const name = file.metadata.get('general.name');
  return {
    architecture: architecture as Architecture,
    name: typeof name === 'string' ? name : undefined,
    numLayers: reader.integer('block_count', 1, maxLayers),
    hiddenSize,
    intermediateSize: reader.integer('feed_forward_length', 1, maxSize, moe?.expertSize),
    numHeads,
    numKvHeads,
    headDim,
    valueDim: reader.integer('attention.value_length', 1, maxSize, headDim),
    contextLength: reader.integer('context_length', 1, 2 ** 31 - 1),
    vocabSize: readVocabSize(file, reader),
    epsilon: reader.number('attention.layer_norm_rms_epsilon', 0, 1, 1e-5),
    window: reader.integer('attention.sliding_window', 0, 2 ** 31 - 1, 0),
    rope: readRope(reader, architectures[architecture as Architecture], headDim),
    moe,
  };
}

/** Rows of the embedding table, which metadata and tokenizer must agree with where they say anything. */
function readVocabSize(
  file: Pick<GGUFFile, 'metadata' | 'tensors'>,
  reader: MetadataReader,
): number {
  const bitloomShape = file.metadata.get('bitloom.shape.token_embd.weight');
  const shape = Array.isArray(bitloomShape)
    ? bitloomShape
    : file.tensors.get('token_embd.weight')?.shape;
  const rows = shape?.[0];
  if (shape === undefined || shape.length !== 2 || typeof rows !== 'number') {
    throw invalidModel(
      `tensor token_embd.weight is ${shape === undefined ? 'missing' : `[${shape}]`}, expected [vocabulary, hidden]`,
    );
  }
  const tokens = file.metadata.get('tokenizer.ggml.tokens');
  if (Array.isArray(tokens) && tokens.length !== rows) {
    throw invalidModel(
      `metadata tokenizer.ggml.tokens has ${tokens.length} tokens, expected ${rows} (= token_embd.weight.shape[0])`,
    );
  }
  const stated = reader.integer('vocab_size', 1, maxSize, rows);
  if (stated !== rows) {
    throw invalidModel(
      `metadata ${reader.architecture}.vocab_size is ${stated}, expected ${rows} (= token_embd.weight.shape[0])`,
    );
  }
  return rows;
}
