// Vectors of ONNX, ONNX Runtime and ggml (shared/golden): every case that the formula expresses. Skipped where the files
// are absent.
import { describe, expect, it } from 'vitest';
import { attention, Tensor } from '../../lib/index.js';
import { isas, worst } from '../reference/op_checks.js';
import type { GoldenCall, GoldenCase } from './golden.js';
import { ggmlAttention } from './golden_ggml.js';
import { onnxAttention, onnxFlexAttention, ortAttention } from './golden_onnx.js';
import { ortContrib, ortDecoder, ortMha, ortPacked } from './golden_ort.js';

function check({ q, k, v, options, output, ...more }: GoldenCall, tolerance: number): void {
  const [queries, heads] = q.shape as [number, number];
  for (const isa of isas) {
    if (more.probabilities === undefined && more.scores === undefined) {
      const actual = attention(q, k, v, { ...options, isa });
      expect(worst(actual.data, output, tolerance, 0)).toBeLessThanOrEqual(1);
      continue;
    }
    const keys = k.shape[0] as number;
    const probabilities = Tensor.zeros('f32', [heads, queries, keys]);
    const lse = Tensor.zeros('f32', [queries, heads]);
    const actual = attention(q, k, v, { ...options, isa, probabilities, lse });
    expect(worst(actual.data, output, tolerance, 0)).toBeLessThanOrEqual(1);
    if (more.probabilities !== undefined) {
      expect(worst(probabilities.data, more.probabilities, tolerance, 0)).toBeLessThanOrEqual(1);
    }
    // x = ln(probability) + lse.
    const scores = probabilities.data.map((p, i) => {
      const row = Math.floor(i / keys);
      return (
        Math.log(p) + (lse.data[(row % queries) * heads + Math.floor(row / queries)] as number)
      );
    });
    if (more.scores !== undefined) {
      expect(worst(scores, more.scores, 4 * tolerance, 0)).toBeLessThanOrEqual(1);
    }
  }
}

describe.each([
  ['onnx_attention.json', onnxAttention(), 38, 0],
  ['onnx_flexattention.json', onnxFlexAttention(), 4, 2],
  ['ort_attention_opset23.json', ortAttention(), 15, 2],
  ['ort_mha.json', ortMha(), 15, 0],
  ['ort_attention_contrib.json', ortContrib(), 13, 3],
  ['ort_packed_attention.json', ortPacked(), 3, 0],
  ['ort_decoder_attention.json', ortDecoder(), 4, 0],
  ['ggml_flash_attn_ext.json', ggmlAttention(), 20, 0],
])('golden vectors of %s (skipped without ../shared)', (_, { cases, leftOut }, count, without) => {
  it.skipIf(cases.length === 0)('has the cases that the formula expresses', () => {
    expect(cases.length).toBe(count);
    expect(Object.keys(leftOut).length).toBe(without);
  });
  it.skipIf(cases.length === 0).each(cases)('$name', ({ calls, tolerance }: GoldenCase) => {
    for (const call of calls) check(call, tolerance);
  });
});
