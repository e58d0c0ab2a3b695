// Vectors of ONNX Runtime's rotary embedding tests (shared/golden/ort_rotary_*.json): those whose cosine
// cache is that of theta 10000, with the 4 decimals that limit the agreement. The two CustomRotaryDim cases
// and ONNX's own vectors (onnx_rotary_embedding.json) have caches that no theta gives. Skipped where the
// files are absent.
import { describe, expect, it } from 'vitest';
import { rope, Tensor } from '../../lib/index.js';
import { goldenCases, isas, worst } from '../reference/op_checks.js';

interface RotaryCase {
  case: string;
  batch_size: number;
  sequence_length: number;
  num_heads: number;
  head_size: number;
  rotary_embedding_dim: number;
  interleaved: number;
  input_data: number[];
  position_ids: number[];
  cos_cache: number[];
  output_data: number[];
}

const files = ['ort_rotary_opset23.json', 'ort_rotary_contrib.json'];
const cases = files.flatMap((file) =>
  (goldenCases<RotaryCase>(file) ?? [])
    .filter(hasDefaultTheta)
    .map((golden) => ({ name: `${golden.case} ${file}`, golden })),
);

/** The caches' second row is cos(theta^(-2j / rotaryDim)). */
function hasDefaultTheta({ cos_cache, rotary_embedding_dim, head_size }: RotaryCase): boolean {
  const dim = rotary_embedding_dim || head_size;
  return cos_cache
    .slice(dim / 2, dim)
    .every((cosine, j) => Math.abs(cosine - Math.cos(10000 ** ((-2 * j) / dim))) < 1e-4);
}

/** position_ids: one per token; one, where the first token is; or none, which is 0. */
function positionsOf({ position_ids: ids, sequence_length: tokens }: RotaryCase): number[] {
  if (ids.length > 1) return ids.slice(0, tokens);
  return Array.from({ length: tokens }, (_, t) => (ids[0] ?? 0) + t);
}

describe.skipIf(cases.length === 0)('golden vectors of rope (skipped without ../shared)', () => {
  it('has the cases that apply', () => {
    expect(cases.length).toBe(6);
  });

  it.each(cases)('$name', ({ golden }) => {
    const { batch_size, sequence_length, num_heads, head_size } = golden;
    // 4D input is [batch, heads, tokens, headDim]: the same memory as a strided view.
    const tokenStride = golden.case.includes('4D') ? head_size : num_heads * head_size;
    const headStride = golden.case.includes('4D') ? sequence_length * head_size : head_size;
    const strides = [sequence_length * num_heads * head_size, tokenStride, headStride, 1];
    const shape = [batch_size, sequence_length, num_heads, head_size];
    const rotaryDim = golden.rotary_embedding_dim || head_size;
    const view = (values: number[]) =>
      new Tensor('f32', Float32Array.from(values), shape, { strides });
    for (const isa of isas) {
      const actual = rope(
        view(golden.input_data),
        new Tensor('i32', positionsOf(golden), [sequence_length]),
        { mode: golden.interleaved ? 'interleaved' : 'half', rotaryDim, isa },
      );
      expect(worst(actual.data, view(golden.output_data).toArray(), 5e-4, 0)).toBeLessThanOrEqual(
        1,
      );
    }
  });
});
