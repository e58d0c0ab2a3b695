// Vectors of ONNX and ONNX Runtime (shared/golden), the cases without mask, softcap or extra outputs. ONNX's
// causal mask counts from the first key (query t sees keys 0 to t, after the past); with the keys cut to
// past + queries that is our rule. Skipped where the files are absent.
import { describe, expect, it } from 'vitest';
import { attention, Tensor } from '../../lib/index.js';
import { goldenCases, isas, worst } from '../reference/op_checks.js';

/** [batches, heads, rows, dim], or [batches, rows, heads * dim] when `packed`. */
interface Block {
  data: number[];
  heads: number;
  dim: number;
  rows: number;
  packed: boolean;
}

interface Case {
  name: string;
  batches: number;
  q: Block;
  k: Block;
  v: Block;
  past?: { k: Block; v: Block } | undefined;
  y: Block;
  causal: boolean;
  scale?: number;
  tolerance: number;
}

/** One batch as [rows, heads, dim]. */
function batchOf(block: Block, batch: number): number[] {
  const { data, heads, dim, rows, packed } = block;
  const size = heads * dim * rows;
  const values = data.slice(batch * size, (batch + 1) * size);
  if (packed) return values;
  return values.map((_, i) => {
    const row = Math.floor(i / (heads * dim));
    const head = Math.floor(i / dim) % heads;
    return values[(head * rows + row) * dim + (i % dim)] as number;
  });
}

function check(golden: Case): void {
  const { q, k, v, past, y, causal } = golden;
  const pastRows = past?.k.rows ?? 0;
  const keys = causal ? Math.min(pastRows + q.rows, pastRows + k.rows) : pastRows + k.rows;
  for (let batch = 0; batch < golden.batches; batch++) {
    const cut = (now: Block, before: Block | undefined): Tensor<'f32'> => {
      const rows = [
        ...(before === undefined ? [] : batchOf(before, batch)),
        ...batchOf(now, batch),
      ];
      return new Tensor('f32', rows, [pastRows + now.rows, now.heads, now.dim]).slice(0, keys);
    };
    for (const isa of isas) {
      const actual = attention(
        new Tensor('f32', batchOf(q, batch), [q.rows, q.heads, q.dim]),
        cut(k, past?.k),
        cut(v, past?.v),
        { causal, isa, ...(golden.scale === undefined ? {} : { scale: golden.scale }) },
      );
      expect(worst(actual.data, batchOf(y, batch), golden.tolerance, 0)).toBeLessThanOrEqual(1);
    }
  }
}

interface OnnxTensor {
  name: string;
  dtype: string;
  shape: number[];
  data: number[];
}
interface OnnxCase {
  case: string;
  attributes: Record<string, number>;
  node_inputs: string[];
  node_outputs: string[];
  inputs: OnnxTensor[];
  expected: OnnxTensor[];
}

function onnxCases(): Case[] {
  const cases: Case[] = [];
  for (const golden of goldenCases<OnnxCase>('onnx_attention.json') ?? []) {
    const { attributes, node_inputs: names } = golden;
    const plain = ['Q', 'K', 'V', '', 'past_key', 'past_value'];
    if (!names.every((name, i) => name === plain[i]) || 'softcap' in attributes) continue;
    const block = (tensor: OnnxTensor, heads: number): Block => {
      const packed = tensor.shape.length === 3;
      const [, second, third, fourth] = tensor.shape as [number, number, number, number];
      return packed
        ? { data: tensor.data, heads, rows: second, dim: third / heads, packed }
        : { data: tensor.data, heads: second, rows: third, dim: fourth, packed };
    };
    const input = (name: string) =>
      golden.inputs.find((tensor) => tensor.name === name) as OnnxTensor;
    const qHeads = attributes.q_num_heads ?? 0;
    const kvHeads = attributes.kv_num_heads ?? 0;
    cases.push({
      name: golden.case,
      batches: input('Q').shape[0] as number,
      q: block(input('Q'), qHeads),
      k: block(input('K'), kvHeads),
      v: block(input('V'), kvHeads),
      past: names.includes('past_key')
        ? { k: block(input('past_key'), kvHeads), v: block(input('past_value'), kvHeads) }
        : undefined,
      y: block(golden.expected[0] as OnnxTensor, qHeads),
      causal: attributes.is_causal === 1,
      ...(attributes.scale === undefined ? {} : { scale: attributes.scale }),
      tolerance: input('Q').dtype === 'float16' ? 2e-3 : 2e-6,
    });
  }
  return cases;
}

interface OrtCase {
  case: string;
  layout: '3D' | '4D';
  batch_size: number;
  q_num_heads: number;
  q_sequence_length: number;
  head_size: number;
  kv_sequence_length: number;
  kv_num_heads: number;
  v_head_size: number;
  q: number[];
  k: number[];
  v: number[];
  y: number[];
  attn_mask: number[] | null;
  attn_mask_bool: number[] | null;
  past_key: number[] | null;
  is_causal: number;
  scale: number | null;
  softcap: number | null;
  abs_tolerance: number;
}

function ortCases(): Case[] {
  return (goldenCases<OrtCase>('ort_attention_opset23.json') ?? [])
    .filter(
      ({ attn_mask, attn_mask_bool, softcap, past_key }) =>
        attn_mask === null && attn_mask_bool === null && softcap === null && past_key === null,
    )
    .map((golden) => {
      const packed = golden.layout === '3D';
      const rows = golden.kv_sequence_length;
      const query = { heads: golden.q_num_heads, rows: golden.q_sequence_length, packed };
      const kv = { heads: golden.kv_num_heads, rows, packed };
      return {
        name: golden.case,
        batches: golden.batch_size,
        q: { ...query, data: golden.q, dim: golden.head_size },
        k: { ...kv, data: golden.k, dim: golden.head_size },
        v: { ...kv, data: golden.v, dim: golden.v_head_size },
        y: { ...query, data: golden.y, dim: golden.v_head_size },
        causal: golden.is_causal === 1,
        ...(golden.scale === null ? {} : { scale: golden.scale }),
        tolerance: golden.abs_tolerance,
      };
    });
}

interface MhaCase {
  case: string;
  num_heads: number;
  hidden_size: number;
  v_hidden_size: number;
  batch_size: number;
  sequence_length: number;
  kv_sequence_length: number;
  mask_type: string;
  query_data: number[];
  key_data: number[];
  value_data: number[];
  bias_data?: number[];
  past_key_data?: number[];
  past_value_data?: number[];
  fp32_output_data: number[];
  fp16_output_data?: number[];
}

/** Inputs may have a bias [q, k, v] to be added first: a line of arithmetic, done here. */
function mhaCases(): Case[] {
  const cases: Case[] = [];
  for (const golden of goldenCases<MhaCase>('ort_mha.json') ?? []) {
    const { num_heads: heads, hidden_size: hidden, v_hidden_size: vHidden, case: name } = golden;
    // HeadSize40, the one with both, was computed in f16 throughout (its f32 vector too): with scores up to 9
    // and values up to 7 the formula in double differs from it by up to 0.018.
    const half = golden.fp16_output_data ?? [];
    const output = half.length > 0 ? half : golden.fp32_output_data;
    if (golden.mask_type !== 'MASK_NONE') continue;
    const keyRows = golden.key_data.length / hidden / golden.batch_size;
    if (!Number.isInteger(keyRows) || keyRows !== golden.kv_sequence_length) continue;
    const block = (data: number[], size: number, rows: number, offset: number): Block => ({
      data: data.map((value, i) => value + (golden.bias_data?.[offset + (i % size)] ?? 0)),
      heads,
      rows,
      dim: size / heads,
      packed: true,
    });
    const pastRows = (golden.past_key_data?.length ?? 0) / hidden / golden.batch_size;
    const past = (data: number[] | undefined, size: number): Block => ({
      data: data ?? [],
      heads,
      rows: pastRows,
      dim: size / heads,
      packed: false,
    });
    cases.push({
      name,
      batches: golden.batch_size,
      q: block(golden.query_data, hidden, golden.sequence_length, 0),
      k: block(golden.key_data, hidden, keyRows, hidden),
      v: block(golden.value_data, vHidden, keyRows, 2 * hidden),
      past:
        pastRows > 0
          ? { k: past(golden.past_key_data, hidden), v: past(golden.past_value_data, vHidden) }
          : undefined,
      y: { data: output, heads, rows: golden.sequence_length, dim: vHidden / heads, packed: true },
      causal: false,
      tolerance: output !== half ? 1e-4 : golden.fp32_output_data.length > 0 ? 0.02 : 3e-3,
    });
  }
  return cases;
}

describe.each([
  ['onnx_attention.json', onnxCases(), 10],
  ['ort_attention_opset23.json', ortCases(), 6],
  ['ort_mha.json', mhaCases(), 8],
])('golden vectors of %s (skipped without ../shared)', (_, cases, count) => {
  it.skipIf(cases.length === 0)('has the plain cases', () => {
    expect(cases.length).toBe(count);
  });
  it.skipIf(cases.length === 0).each(cases)('$name', check);
});
