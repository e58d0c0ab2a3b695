// Products with the weights of a small real model, and activations as it has them.
import { describe, expect, it } from 'vitest';
import {
  type Algorithm,
  type Compute,
  type Format,
  formats,
  machine,
  matmul,
  matmulKernel,
  pack,
  rmsNorm,
  type Tables,
  Tensor,
} from '../../lib/index.js';
import { hasStories260k, stories260kContent } from '../models/stories260k.js';
import { quantized } from '../quantize/cases.js';
import { silu } from '../reference/elementwise.js';
import { referenceMatmul } from '../reference/matmul.js';
import { gaussian } from '../reference/random.js';
import { decoded } from './cases.js';

// Level scalar is slow, and held against the others bit by bit elsewhere.
const levels = machine().isas.filter((isa, _, all) => isa !== 'scalar' || all.length === 1);
// Enough rows that errors are those of the kind of numbers, and not of a few.
const ROWS = 64;

/**
 * Largest ||c - c64|| / ||c64||, as the README of matmul states it, by kernel without its level: with Gaussian
 * activations, and with the model's, where a few products may be most of a sum so that errors do not average out.
 */
const bounds: Record<string, { gaussian: number; model: number }> = {
  matmul_dequant_f32: { gaussian: 1e-6, model: 1e-6 },
  matmul_dequant_i8: { gaussian: 8e-3, model: 1e-2 },
  matmul_lut_i8: { gaussian: 8e-3, model: 1e-2 },
  matmul_lut_wide_i8: { gaussian: 8e-3, model: 1e-2 },
  matmul_lut_fast_i8: { gaussian: 1.6e-2, model: 2.2e-2 },
  matmul_tile_bf16: { gaussian: 3e-3, model: 4e-3 },
  matmul_tile_i8: { gaussian: 1.6e-2, model: 1.6e-2 },
};
const ways: [Algorithm, Compute, Tables][] = [
  ['auto', 'f32', 'lossless'],
  ['auto', 'i8', 'lossless'],
  ['auto', 'bf16', 'lossless'],
  ['dequant', 'f32', 'lossless'],
  ['dequant', 'i8', 'lossless'],
  ['lut', 'i8', 'lossless'],
  ['lut', 'i8', 'fast'],
  ['tile', 'i8', 'lossless'],
  ['tile', 'bf16', 'lossless'],
];
const someFormats: Format[] = [
  'f16',
  'u1_g64',
  't2_g128',
  'u2_g32',
  'u3_g64',
  'u4z_g32',
  'q4_0',
  'q5_1',
  'nf4_g64',
  'mxfp4',
  'cb7_g64',
  'e4m3_g32',
  'q4_k',
  'q6_k',
  'q8_0',
  'i8_row',
];

interface Case {
  name: string;
  weights: Float32Array;
  cols: number;
  /** [ROWS, cols] */
  activations: Float32Array;
}

/**
 * Matrices as the model has them, and some with several of their rows side by side: K types take whole blocks of 256,
 * and sums of 2048 go through several blocks of a tile.
 */
function casesOf(): Case[] {
  const tensors = new Map([...stories260kContent().tensors].map((tensor) => [tensor.name, tensor]));
  const read = (name: string): Float32Array => {
    const data = tensors.get(`${name}.weight`)?.data;
    const bytes = (typeof data === 'function' ? data() : data) as Uint8Array;
    return new Float32Array(bytes.slice().buffer);
  };
  const embedding = read('token_embd');
  // What the first layer's matrices meet: the embeddings of tokens, normalized.
  const normalized = (norm: string): Float32Array =>
    rmsNorm(
      new Tensor('f32', embedding, [embedding.length / 64, 64]),
      new Tensor('f32', read(norm), [64]),
    ).data;
  const inputs = normalized('blk.0.attn_norm');
  // A row is cols / 64 tokens, each row beginning at another one.
  const rows = (values: Float32Array, cols: number): Float32Array =>
    Float32Array.from({ length: ROWS * cols }, (_, i) => {
      const token = 13 * Math.floor(i / cols);
      return values[(64 * token + (i % cols)) % values.length] as number;
    });
  const forMlp = rows(normalized('blk.0.ffn_norm'), 64);
  const [gate, up] = ['gate', 'up'].map(
    (name) => referenceMatmul(forMlp, read(`blk.0.ffn_${name}`), ROWS, 172, 64).values,
  ) as [Float64Array, Float64Array];
  const hidden = Float32Array.from(gate, (value, i) => silu(value) * (up[i] as number));
  return [
    { name: 'q', weights: read('blk.0.attn_q'), cols: 64, activations: rows(inputs, 64) },
    { name: 'gate', weights: read('blk.0.ffn_gate'), cols: 64, activations: forMlp },
    { name: 'down', weights: read('blk.0.ffn_down'), cols: 172, activations: hidden },
    {
      name: 'up, by four',
      weights: read('blk.3.ffn_up'),
      cols: 256,
      activations: rows(inputs, 256),
    },
    { name: 'embedding, by 32', weights: embedding, cols: 2048, activations: rows(inputs, 2048) },
  ];
}

describe.skipIf(!hasStories260k)('weights of stories260K (needs ../shared/models)', () => {
  it.each(someFormats)('%s: every algorithm and compute mode is as exact as stated', (format) => {
    const met = new Set<string>();
    for (const { name, weights, cols, activations } of casesOf()) {
      const { kind, blockElements } = formats[format];
      if (kind === 'block' && cols % blockElements !== 0) continue;
      const n = weights.length / cols;
      const b = quantized(format, weights, [n, cols]);
      const dense = decoded(b);
      const packed = pack(b);
      for (const [what, a] of [
        ['model', activations],
        ['gaussian', gaussian(ROWS * cols, cols)],
      ] as const) {
        const expected = referenceMatmul(a, dense, ROWS, n, cols).values;
        const norm = Math.hypot(...expected);
        const x = new Tensor('f32', a, [ROWS, cols]);
        for (const isa of levels) {
          for (const [algorithm, compute, tables] of ways) {
            const options = { isa, algorithm, compute, tables };
            let c: Float32Array;
            try {
              c = matmul(x, packed, options).data;
            } catch (error) {
              // Tables are for integers, fast ones for up to 3 bits.
              expect(error).toMatchObject({ code: 'BL_UNSUPPORTED' });
              expect(algorithm).toBe('lut');
              continue;
            }
            const full = matmulKernel(x, packed, options) as string;
            const kernel = full.slice(0, full.lastIndexOf('_'));
            met.add(kernel);
            const error =
              Math.hypot(...c.map((value, i) => value - (expected[i] as number))) / norm;
            const context = `${name}, ${what} activations, ${algorithm} ${compute} ${tables}, ${full}`;
            expect(error, context).toBeLessThan(bounds[kernel]?.[what] as number);
          }
        }
      }
    }
    expect(met).toContain('matmul_dequant_f32');
    expect(met).toContain('matmul_tile_bf16');
  });
});
