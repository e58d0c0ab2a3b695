// Makes a llama-architecture GGUF file of any size with random weights, for timing on real shapes: the
// text it generates means nothing. Memory holds one matrix at a time.
import { statSync } from 'node:fs';
import { pathToFileURL } from 'node:url';
import { Command } from 'commander';
import { gaussian, uniform } from './data.mjs';
import { bitloom } from './native.mjs';

const { writeGGUF } = await import('../dist/esm/io/index.js');

const vocabularySize = 32000;
/** Channels whose weights are 20 times the others', as trained models have a few. */
const outlierChannels = 6;
const outlierFactor = 20;

/**
 * Shape of a model of about `parameters` weights: hidden size, feed-forward size (11/4 of it, as llama),
 * heads of 64 or 128 channels with a key head for every 4, and as many layers as fit.
 */
export function modelShape(parameters) {
  const fitting = [256, 512, 768, 1024, 1536, 2048, 2560, 4096].map((hidden) => {
    const feedForward = Math.round((hidden * 11) / 4 / 256) * 256;
    const headChannels = hidden >= 2048 ? 128 : 64;
    const heads = hidden / headChannels;
    const keyHeads = Math.max(1, Math.floor(heads / 4));
    const perLayer = 2 * hidden * hidden * (1 + keyHeads / heads) + 3 * hidden * feedForward;
    const layers = Math.max(1, Math.round((parameters - 2 * vocabularySize * hidden) / perLayer));
    const total = 2 * vocabularySize * hidden + layers * perLayer;
    return { hidden, feedForward, headChannels, heads, keyHeads, layers, parameters: total };
  });
  // About 80 channels a layer: 22 layers at 2048, as TinyLlama.
  const unfit = (shape) =>
    Math.abs(Math.log((shape.layers * 80) / shape.hidden)) +
    4 * Math.abs(Math.log(shape.parameters / parameters));
  return fitting.reduce((best, shape) => (unfit(shape) < unfit(best) ? shape : best));
}

/** Gaussian rows by table: two draws of 65536 precomputed numbers from each step of a xorshift generator. */
function gaussianRows(seed) {
  const table = gaussian(65536, 11);
  let state = Math.floor(uniform(seed)() * 2 ** 32) | 1;
  return (out, scale) => {
    for (let i = 0; i < out.length; i += 2) {
      state ^= state << 13;
      state ^= state >>> 17;
      state ^= state << 5;
      out[i] = table[state & 0xffff] * scale;
      out[i + 1] = table[state >>> 16] * scale;
    }
  };
}

/** Bytes of a random matrix [rows, cols] in `format`, quantized a few rows at a time. */
function randomMatrix(format, rows, cols, seed) {
  const matrix = bitloom.QuantizedTensor.empty(format, [rows, cols]);
  const rowBytes = matrix.bytes.length / rows;
  const fill = gaussianRows(seed);
  const pick = uniform(cols); // the same channels in every matrix of this width
  const outliers = Array.from({ length: outlierChannels }, () => Math.floor(pick() * cols));
  const count = Math.max(1, Math.min(rows, Math.floor(2 ** 20 / cols)));
  const values = new Float32Array(count * cols);
  for (let row = 0; row < rows; row += count) {
    const some = Math.min(count, rows - row);
    const part = values.subarray(0, some * cols);
    fill(part, 1 / Math.sqrt(cols));
    for (let start = 0; start < part.length; start += cols) {
      for (const channel of outliers) part[start + channel] *= outlierFactor;
    }
    const bytes = matrix.bytes.subarray(row * rowBytes, (row + some) * rowBytes);
    bitloom.quantize(new bitloom.Tensor('f32', part, [some, cols]), format, {
      out: new bitloom.QuantizedTensor(format, bytes, [some, cols]),
    });
  }
  return matrix.bytes;
}

/**
 * A SentencePiece-style vocabulary: control tokens, bytes, letters, and made-up words of consonant-vowel
 * syllables, each the join of two others, the more frequent (earlier) first.
 */
function vocabulary() {
  const tokens = ['<unk>', '<s>', '</s>'];
  for (let byte = 0; byte < 256; byte++) {
    tokens.push(`<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`);
  }
  const controls = tokens.length;
  tokens.push('▁', ...'abcdefghijklmnopqrstuvwxyz.,!?');
  const syllables = [...'bcdfghjklmnpqrstvwxz'].flatMap((first) =>
    [...'aeiou'].map((second) => first + second),
  );
  tokens.push(...syllables, ...syllables.map((syllable) => `▁${syllable}`));
  const pairs = syllables.flatMap((first) => syllables.map((second) => first + second));
  tokens.push(...pairs.map((pair) => `▁${pair}`), ...pairs);
  for (const pair of pairs) {
    for (const syllable of syllables)
      if (tokens.length < vocabularySize) tokens.push(`▁${pair}${syllable}`);
  }
  tokens.length = vocabularySize;
  return {
    tokens,
    scores: tokens.map((_, id) => (id < controls ? 0 : controls - id)),
    types: tokens.map((_, id) => (id === 0 ? 2 : id < 3 ? 3 : id < controls ? 6 : 1)),
  };
}

function metadata(shape) {
  const { tokens, scores, types } = vocabulary();
  return {
    'general.architecture': 'llama',
    'general.name': `synthetic ${(shape.parameters / 1e9).toFixed(2)}B`,
    'llama.block_count': shape.layers,
    'llama.context_length': 4096,
    'llama.embedding_length': shape.hidden,
    'llama.feed_forward_length': shape.feedForward,
    'llama.attention.head_count': shape.heads,
    'llama.attention.head_count_kv': shape.keyHeads,
    'llama.attention.layer_norm_rms_epsilon': 1e-5,
    'llama.rope.dimension_count': shape.headChannels,
    'llama.rope.freq_base': 10000,
    'llama.vocab_size': vocabularySize,
    'tokenizer.ggml.model': 'llama',
    'tokenizer.ggml.tokens': tokens,
    'tokenizer.ggml.scores': scores,
    'tokenizer.ggml.token_type': types,
    'tokenizer.ggml.bos_token_id': 1,
    'tokenizer.ggml.eos_token_id': 2,
    'tokenizer.ggml.unknown_token_id': 0,
    'tokenizer.ggml.add_bos_token': true,
    'tokenizer.ggml.add_eos_token': false,
  };
}

function tensors(shape, format, onTensor) {
  const { hidden, feedForward, layers, headChannels, keyHeads } = shape;
  const list = [];
  const matrix = (name, rows, cols) => {
    const seed = list.length + 1;
    const data = () => {
      onTensor(name);
      return randomMatrix(format, rows, cols, seed);
    };
    list.push({ name: `${name}.weight`, type: format, shape: [rows, cols], data });
  };
  const norm = (name) =>
    list.push({
      name: `${name}.weight`,
      type: 'f32',
      shape: [hidden],
      data: () => new Uint8Array(new Float32Array(hidden).fill(1).buffer),
    });
  matrix('token_embd', vocabularySize, hidden);
  for (let layer = 0; layer < layers; layer++) {
    const block = `blk.${layer}`;
    norm(`${block}.attn_norm`);
    matrix(`${block}.attn_q`, hidden, hidden);
    matrix(`${block}.attn_k`, keyHeads * headChannels, hidden);
    matrix(`${block}.attn_v`, keyHeads * headChannels, hidden);
    matrix(`${block}.attn_output`, hidden, hidden);
    norm(`${block}.ffn_norm`);
    matrix(`${block}.ffn_gate`, feedForward, hidden);
    matrix(`${block}.ffn_up`, feedForward, hidden);
    matrix(`${block}.ffn_down`, hidden, feedForward);
  }
  norm('output_norm');
  matrix('output', vocabularySize, hidden);
  return list;
}

/**
 * Writes the file.
 *
 * @param parameters about how many weights, e.g. 0.5e9
 * @param format a GGUF format whose blocks divide the shape, e.g. 'q4_0', 'q8_0', 'q4_k', 'f16'
 * @returns the shape it got
 */
export async function writeSynthetic(path, { parameters, format, onTensor = () => {} }) {
  const shape = modelShape(parameters);
  await writeGGUF(path, {
    metadata: metadata(shape),
    types: {
      'llama.attention.layer_norm_rms_epsilon': 'f32',
      'llama.rope.freq_base': 'f32',
      'tokenizer.ggml.scores': 'f32[]',
      'tokenizer.ggml.token_type': 'i32[]',
    },
    tensors: tensors(shape, format, onTensor),
  });
  return shape;
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  const command = new Command()
    .name('node bench/synthetic.mjs')
    .description('Writes a llama-architecture GGUF file with random weights.')
    .argument('<file>')
    .option('--params <billions>', 'weights, in billions', Number, 0.1)
    .option('--format <format>', 'GGUF format of the matrices', 'q4_0')
    .parse();
  const [file] = command.args;
  const { params, format } = command.opts();
  if (!(params > 0 && params <= 8)) command.error('--params: expected more than 0 and at most 8');
  const start = performance.now();
  const shape = await writeSynthetic(file, { parameters: params * 1e9, format });
  const { hidden, layers, feedForward } = shape;
  console.log(
    `${file}: ${(shape.parameters / 1e9).toFixed(3)}e9 weights (${layers} layers, ${hidden} wide, feed-forward ${feedForward}), ` +
      `${format}, ${(statSync(file).size / 2 ** 20).toFixed(0)} MB in ${((performance.now() - start) / 1000).toFixed(1)} s`,
  );
}
