// Vectors of ONNX's LinearAttention (shared/golden). Its rules are ours with and without decay and beta: `linear` and
// `gated` are the rule decay, `delta` and `gated_delta` (the default) the rule delta; its decay is a log too.
// Skipped where the file is absent.
import { describe, expect, it } from 'vitest';
import { linearAttention, Tensor } from '../../lib/index.js';
import { goldenCases, isas, worst } from '../reference/op_checks.js';

interface OnnxTensor {
  name: string;
  dtype: string;
  shape: number[];
  data: number[];
}
interface OnnxCase {
  case: string;
  attributes: {
    q_num_heads: number;
    kv_num_heads: number;
    scale?: number;
    update_rule?: 'linear' | 'gated' | 'delta' | 'gated_delta';
  };
  node_inputs: string[];
  inputs: OnnxTensor[];
  expected: OnnxTensor[];
}

const cases = goldenCases<OnnxCase>('onnx_linear_attention.json') ?? [];

function check({ attributes, node_inputs: names, inputs, expected }: OnnxCase): void {
  const {
    q_num_heads: heads,
    kv_num_heads: kvHeads,
    scale,
    update_rule = 'gated_delta',
  } = attributes;
  const input = (name: string) =>
    names.includes(name) ? inputs.find((tensor) => tensor.name === name) : undefined;
  const [batches, tokens] = (input('query') as OnnxTensor).shape as [number, number];
  const total = batches * tokens;
  const rows = (name: string, count: number) => {
    const { data } = input(name) as OnnxTensor;
    return new Tensor('f32', data, [total, count, data.length / total / count]);
  };
  const q = rows('query', heads);
  const k = rows('key', kvHeads);
  const v = rows('value', kvHeads);
  // [batches, tokens, kvHeads * keyDim or kvHeads], and of beta [batches, tokens, kvHeads or 1].
  const logs = input('decay')?.data;
  const betas = input('beta')?.data;
  const channels = (logs?.length ?? 0) / total / kvHeads;
  const past = input('past_state')?.data;
  const cu = Array.from({ length: batches + 1 }, (_, i) => i * tokens);
  for (const isa of isas) {
    const shape = [batches, kvHeads, k.shape[2] as number, v.shape[2] as number];
    const state = past === undefined ? Tensor.zeros('f32', shape) : new Tensor('f32', past, shape);
    const { output } = linearAttention(q, k, v, {
      isa,
      state,
      cuTokens: new Tensor('i32', cu, [batches + 1]),
      rule: update_rule.includes('delta') ? 'delta' : 'decay',
      ...(scale === undefined ? {} : { scale }),
      ...(logs && {
        decay: new Tensor(
          'f32',
          logs,
          channels === 1 ? [total, kvHeads] : [total, kvHeads, channels],
        ),
      }),
      ...(betas && {
        beta: new Tensor('f32', Float32Array.from(betas), [total, kvHeads], {
          strides: betas.length === total ? [1, 0] : [kvHeads, 1],
        }),
      }),
    });
    expect(worst(output.toArray(), expected[0]?.data as number[], 2e-6, 2e-6)).toBeLessThanOrEqual(
      1,
    );
    expect(worst(state.toArray(), expected[1]?.data as number[], 2e-6, 2e-6)).toBeLessThanOrEqual(
      1,
    );
  }
}

describe('golden vectors of onnx_linear_attention.json (skipped without ../shared)', () => {
  it.skipIf(cases.length === 0)('has the cases', () => {
    expect(cases.length).toBe(7);
  });
  it.skipIf(cases.length === 0).each(cases)('$case', check);
});
