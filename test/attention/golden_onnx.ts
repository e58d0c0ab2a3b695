// Vectors of ONNX (Attention, FlexAttention) and of ONNX Runtime's Attention of opset 23.
//
// Their causal mask counts from the first key (query t sees keys 0 to t, after the past, or after the keys that
// nonpad_kv_seqlen says are there before); with the keys cut to those that the last query sees that is our rule.
import { goldenCases } from '../reference/op_checks.js';
import { type Block, batchOf, type Golden, type GoldenCall, maskOf, rowsOf } from './golden.js';

interface Call {
  batches: number;
  q: Block;
  k: Block;
  v: Block;
  past?: { k: Block; v: Block } | undefined;
  y: Block;
  mask?: { values: readonly number[]; kind: 'u8' | 'f32'; columns: number } | undefined;
  causal: boolean;
  /** Keys of each batch that are there. */
  lengths?: readonly number[] | undefined;
  scale?: number | undefined;
  softCap?: number | undefined;
  /** [batches, heads, queries, keys] */
  probabilities?: readonly number[] | undefined;
  scores?: readonly number[] | undefined;
}

function callsOf(golden: Call): GoldenCall[] {
  const { batches, q, k, v, past, y, mask, causal, lengths, scale, softCap } = golden;
  return Array.from({ length: batches }, (_, batch) => {
    const before = past?.k.rows ?? 0;
    const present = lengths?.[batch] ?? before + k.rows;
    const keys = causal && lengths === undefined ? before + q.rows : present;
    const matrix = (values: readonly number[]): number[] => {
      const width = before + k.rows;
      const size = q.heads * q.rows * width;
      return values.slice(batch * size, (batch + 1) * size).filter((__, i) => i % width < keys);
    };
    const shape = { batches, batch, heads: q.heads, queries: q.rows, keys };
    return {
      q: rowsOf(q, undefined, batch),
      k: rowsOf(k, past?.k, batch, keys),
      v: rowsOf(v, past?.v, batch, keys),
      options: {
        causal,
        ...(scale === undefined ? {} : { scale }),
        ...(softCap === undefined ? {} : { softCap }),
        ...(mask === undefined
          ? {}
          : { mask: maskOf(mask.values, mask.kind, { ...shape, columns: mask.columns }) }),
      },
      output: batchOf(y, batch),
      ...(golden.probabilities === undefined
        ? {}
        : { probabilities: matrix(golden.probabilities) }),
      ...(golden.scores === undefined ? {} : { scores: matrix(golden.scores) }),
    };
  });
}

interface OnnxTensor {
  name: string;
  dtype: string;
  shape: number[];
  data: (number | string)[];
}
interface OnnxCase {
  case: string;
  attributes: Record<string, number>;
  node_outputs: string[];
  inputs: OnnxTensor[];
  expected: OnnxTensor[];
}

/** Numbers; infinities and NaN stand as strings in the files. */
export const numbers = (data: readonly (number | string | boolean)[]): number[] =>
  data.map((value) => (value === '-inf' ? Number.NEGATIVE_INFINITY : Number(value)));

function onnxCall(golden: OnnxCase): Call {
  const { attributes } = golden;
  const block = (tensor: OnnxTensor, heads = 0): Block => {
    const data = numbers(tensor.data);
    const packed = tensor.shape.length === 3;
    const [, second, third, fourth] = tensor.shape as [number, number, number, number];
    return packed
      ? { data, heads, rows: second, dim: third / heads, packed }
      : { data, heads: second, rows: third, dim: fourth, packed };
  };
  const given = (name: string) => golden.inputs.find((tensor) => tensor.name === name);
  const input = (name: string) => given(name) as OnnxTensor;
  const { q_num_heads: heads, kv_num_heads: kvHeads, qk_matmul_output_mode: mode } = attributes;
  const [mask, lengths] = [given('attn_mask'), given('nonpad_kv_seqlen')];
  const matrix =
    golden.expected[golden.node_outputs.filter((name) => name !== '').indexOf('qk_matmul_output')];
  return {
    batches: input('Q').shape[0] as number,
    q: block(input('Q'), heads),
    k: block(input('K'), kvHeads),
    v: block(input('V'), kvHeads),
    past: given('past_key') && { k: block(input('past_key')), v: block(input('past_value')) },
    y: block(golden.expected[0] as OnnxTensor, heads),
    mask: mask && {
      values: numbers(mask.data),
      kind: mask.dtype === 'bool' ? 'u8' : 'f32',
      columns: mask.shape.at(-1) as number,
    },
    causal: attributes.is_causal === 1,
    lengths: lengths && numbers(lengths.data),
    scale: attributes.scale,
    softCap: attributes.softcap,
    probabilities: matrix && mode === 3 ? numbers(matrix.data) : undefined,
    // After mask and soft cap.
    scores: matrix && mode === 2 ? numbers(matrix.data) : undefined,
  };
}

export function onnxAttention(): Golden {
  const golden: Golden = { cases: [], leftOut: {} };
  for (const one of goldenCases<OnnxCase>('onnx_attention.json') ?? []) {
    const isHalf = one.inputs[0]?.dtype === 'float16';
    golden.cases.push({
      name: one.case,
      calls: callsOf(onnxCall(one)),
      tolerance: isHalf ? 2e-3 : 2e-6,
    });
  }
  return golden;
}

export function onnxFlexAttention(): Golden {
  const golden: Golden = { cases: [], leftOut: {} };
  for (const one of goldenCases<OnnxCase>('onnx_flexattention.json') ?? []) {
    if ('prob_mod' in one.attributes || 'score_mod' in one.attributes) {
      golden.leftOut[one.case] =
        'a graph of its own works on the scores, which the file does not have';
      continue;
    }
    const isHalf = one.inputs[0]?.dtype === 'float16';
    golden.cases.push({
      name: one.case,
      calls: callsOf(onnxCall(one)),
      tolerance: isHalf ? 2e-3 : 2e-6,
    });
  }
  return golden;
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
  past_sequence_length: number;
  q: number[];
  k: number[];
  v: number[];
  y: number[];
  attn_mask: (number | string)[] | null;
  attn_mask_bool: (number | boolean)[] | null;
  past_key: number[] | null;
  past_value: number[] | null;
  is_causal: number;
  scale: number | null;
  softcap: number | null;
  abs_tolerance: number;
}

const ortLeftOut: Record<string, string> = {
  Attention4DAttnMaskBoolAllFalse:
    'a row that sees nothing is the mean of all values; here it is 0',
  'Attention4DWithPastAndPresentQkMatmul#5':
    'its soft cap goes after the mask; the formula has it before',
};

export function ortAttention(): Golden {
  const golden: Golden = { cases: [], leftOut: {} };
  for (const one of goldenCases<OrtCase>('ort_attention_opset23.json') ?? []) {
    const why = ortLeftOut[one.case];
    if (why !== undefined) {
      golden.leftOut[one.case] = why;
      continue;
    }
    const packed = one.layout === '3D';
    const query = { heads: one.q_num_heads, rows: one.q_sequence_length, packed };
    const kv = { heads: one.kv_num_heads, rows: one.kv_sequence_length, packed };
    const past = {
      ...kv,
      rows: one.past_key === null ? 0 : one.past_sequence_length,
      packed: false,
    };
    const columns = past.rows + one.kv_sequence_length;
    const mask = one.attn_mask ?? one.attn_mask_bool;
    golden.cases.push({
      name: one.case,
      calls: callsOf({
        batches: one.batch_size,
        q: { ...query, data: one.q, dim: one.head_size },
        k: { ...kv, data: one.k, dim: one.head_size },
        v: { ...kv, data: one.v, dim: one.v_head_size },
        y: { ...query, data: one.y, dim: one.v_head_size },
        past:
          one.past_key === null
            ? undefined
            : {
                k: { ...past, data: one.past_key, dim: one.head_size },
                v: { ...past, data: one.past_value ?? [], dim: one.v_head_size },
              },
        mask:
          mask === null
            ? undefined
            : { values: numbers(mask), kind: one.attn_mask === null ? 'u8' : 'f32', columns },
        causal: one.is_causal === 1,
        scale: one.scale ?? undefined,
        softCap: one.softcap ?? undefined,
      }),
      tolerance: one.abs_tolerance,
    });
  }
  return golden;
}
