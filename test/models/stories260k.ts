import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type GGUFContent, type GGUFTensorInput, ggufBytes } from '../../lib/io/index.js';

/** The folder of test data that is not part of the project; tests that need it skip when it is absent. */
export const SHARED = process.env.BITLOOM_SHARED ?? join(import.meta.dirname, '../../../shared');

const MODEL = join(SHARED, 'models/stories260K.bin');
const TOKENIZER = join(SHARED, 'models/tok512.bin');

/** Whether the model is there. */
export const hasStories260k = existsSync(MODEL) && existsSync(TOKENIZER);

/** Turns the values of a tensor into the bytes of a type; rows have `cols` values. */
export type Encode = (values: Float32Array, cols: number) => Uint8Array;

const f32: Encode = (values) => new Uint8Array(values.buffer, values.byteOffset, values.byteLength);

/** A vocabulary in the order of the token numbers. */
export interface Vocabulary {
  readonly tokens: string[];
  readonly scores: number[];
  /** 1 normal, 2 unknown, 3 control, 6 byte. */
  readonly types: number[];
}

/**
 * The tokens of tok512.bin as llama.cpp wants them. The file writes spaces as spaces, `▁` in SentencePiece and GGUF;
 * tokens 0 to 2 are unknown, begin and end, 3 to 258 the bytes `<0x00>` to `<0xFF>`.
 */
export function stories260kVocabulary(): Vocabulary {
  const file = readFileSync(TOKENIZER);
  const vocabulary: Vocabulary = { tokens: [], scores: [], types: [] };
  for (let at = 4; at < file.length; ) {
    const score = file.readFloatLE(at);
    const length = file.readInt32LE(at + 4);
    const text = file.toString('utf8', at + 8, at + 8 + length);
    const id = vocabulary.tokens.length;
    const special = ['<unk>', '<s>', '</s>'][id];
    vocabulary.tokens.push(special ?? text.replaceAll(' ', '▁'));
    vocabulary.scores.push(score);
    vocabulary.types.push(id === 0 ? 2 : id < 3 ? 3 : id < 259 ? 6 : 1);
    at += 8 + length;
  }
  return vocabulary;
}

/**
 * stories260K as the content of a GGUF file: a llama model with a SentencePiece tokenizer.
 *
 * Queries and keys keep their order: this model and the llama architecture of GGUF both rotate neighbours (x0, x1).
 *
 * @param type Type of the weight matrices whose rows are whole blocks of it; norms and the rest stay f32.
 * @param encode Makes the bytes of `type`; not needed for `f32`.
 */
export function stories260kContent(type = 'f32', encode: Encode = f32, block = 1): GGUFContent {
  const file = readFileSync(MODEL);
  const [dim = 0, hidden = 0, layers = 0, heads = 0, kvHeads = 0, vocab = 0, context = 0] =
    Array.from({ length: 7 }, (_, i) => file.readInt32LE(4 * i));
  const floats = new Float32Array(
    file.buffer.slice(file.byteOffset + 28, file.byteOffset + file.length),
  );
  let at = 0;
  const take = (count: number) => {
    at += count;
    return floats.subarray(at - count, at);
  };
  const tensors: GGUFTensorInput[] = [];
  const add = (name: string, values: Float32Array, ...shape: number[]) => {
    const cols = shape.at(-1) ?? 1;
    const packed = shape.length === 2 && cols % block === 0;
    tensors.push({
      name,
      type: packed ? type : 'f32',
      shape,
      data: () => (packed ? encode : f32)(values, cols),
    });
  };
  const perLayer = (name: string, ...shape: number[]) => {
    const count = shape.reduce((product, length) => product * length, 1);
    for (let i = 0; i < layers; i++) add(`blk.${i}.${name}.weight`, take(count), ...shape);
  };
  const kvDim = (dim / heads) * kvHeads;
  add('token_embd.weight', take(vocab * dim), vocab, dim);
  perLayer('attn_norm', dim);
  perLayer('attn_q', dim, dim);
  perLayer('attn_k', kvDim, dim);
  perLayer('attn_v', kvDim, dim);
  perLayer('attn_output', dim, dim);
  perLayer('ffn_norm', dim);
  perLayer('ffn_gate', hidden, dim);
  perLayer('ffn_down', dim, hidden);
  perLayer('ffn_up', hidden, dim);
  add('output_norm.weight', take(dim), dim);
  const { tokens, scores, types } = stories260kVocabulary();
  const metadata = new Map<string, string | number | boolean | string[] | number[]>([
    ['general.architecture', 'llama'],
    ['general.name', 'stories260K'],
    ['llama.block_count', layers],
    ['llama.context_length', context],
    ['llama.embedding_length', dim],
    ['llama.feed_forward_length', hidden],
    ['llama.attention.head_count', heads],
    ['llama.attention.head_count_kv', kvHeads],
    ['llama.attention.layer_norm_rms_epsilon', 1e-5],
    ['llama.rope.dimension_count', dim / heads],
    ['llama.rope.freq_base', 10000],
    ['llama.vocab_size', vocab],
    ['tokenizer.ggml.model', 'llama'],
    ['tokenizer.ggml.tokens', tokens],
    ['tokenizer.ggml.scores', scores],
    ['tokenizer.ggml.token_type', types],
    ['tokenizer.ggml.bos_token_id', 1],
    ['tokenizer.ggml.eos_token_id', 2],
    ['tokenizer.ggml.unknown_token_id', 0],
    ['tokenizer.ggml.add_bos_token', true],
    ['tokenizer.ggml.add_eos_token', false],
  ]);
  return {
    metadata,
    types: {
      'llama.attention.layer_norm_rms_epsilon': 'f32',
      'llama.rope.freq_base': 'f32',
      'tokenizer.ggml.scores': 'f32[]',
      'tokenizer.ggml.token_type': 'i32[]',
    },
    tensors,
  };
}

/** {@link stories260kContent} as the bytes of a file. */
export function stories260kGGUF(type = 'f32', encode?: Encode, block?: number): Uint8Array {
  return ggufBytes(stories260kContent(type, encode, block));
}
