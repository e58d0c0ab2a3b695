// Mixtures of ONNX Runtime's own tests: experts in f32 (those with quantized weights have only zeros).
import { describe, expect, it } from 'vitest';
import { MoEExperts, moeForward, moeRoute, QuantizedTensor } from '../../lib/index.js';
import { goldenCases } from '../reference/op_checks.js';
import { f32 } from './cases.js';

interface Case {
  case: string;
  input: number[];
  router_probs: number[];
  fc1_experts_weights: number[];
  fc2_experts_weights: number[];
  fc3_experts_weights: number[] | null;
  fc1_experts_bias: number[] | null;
  fc2_experts_bias: number[] | null;
  output: number[];
  num_rows: number;
  num_experts: number;
  hidden_size: number;
  inter_size: number;
  activation_type: 'gelu' | 'silu';
  normalize_routing_weights: number;
  top_k: number;
  abs_tolerance: number;
}

const all = goldenCases<Case>('ort_moe.json');
const cases = all?.filter((one) => one.case.startsWith('MoETest_')) ?? [];

describe.skipIf(all === undefined)('vectors of ONNX Runtime (needs ../shared)', () => {
  it('are there', () => expect(cases.map((one) => one.case)).toContain('MoETest_Mixtral'));

  it.each(cases)('$case', (one) => {
    const { num_rows: rows, num_experts: count, hidden_size: hidden, inter_size: inter } = one;
    const part = (values: number[], e: number, size: number) =>
      values.slice(e * size, (e + 1) * size);
    const matrix = (values: number[], e: number, shape: [number, number]) =>
      new QuantizedTensor('f32', Float32Array.from(part(values, e, shape[0] * shape[1])), shape);
    const bias = (values: number[] | null, e: number, size: number) =>
      values === null ? undefined : f32(part(values, e, size), [size]);
    const experts = new MoEExperts(
      Array.from({ length: count }, (_, e) => {
        const first = matrix(one.fc1_experts_weights, e, [inter, hidden]);
        const third = one.fc3_experts_weights;
        // fc1 is what the activation takes: the gate where there is an fc3.
        return {
          gate: third === null ? undefined : first,
          up: third === null ? first : matrix(third, e, [inter, hidden]),
          down: matrix(one.fc2_experts_weights, e, [hidden, inter]),
          upBias: bias(one.fc1_experts_bias, e, inter),
          downBias: bias(one.fc2_experts_bias, e, hidden),
        };
      }),
    );
    const routes = moeRoute(f32(one.router_probs, [rows, count]), {
      topK: one.top_k,
      normalize: one.normalize_routing_weights === 1,
    });
    const y = moeForward(f32(one.input, [rows, hidden]), routes, experts, {
      activation: one.activation_type,
    });
    y.toArray().forEach((value, i) => {
      expect(Math.abs(value - (one.output[i] as number))).toBeLessThan(one.abs_tolerance);
    });
  });
});
