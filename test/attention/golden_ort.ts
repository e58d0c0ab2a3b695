// Vectors of ONNX Runtime's older operators: MultiHeadAttention, Attention, PackedAttention, DecoderAttention. They have a
// bias or a whole projection before attention: a line of arithmetic, done here in double.
//
// Their padding masks add -10000 rather than hide, which shows where a row sees nothing else: f32 masks here.

import { offsets } from '../reference/attention_cases.js';
import { goldenCases } from '../reference/op_checks.js';
import {
  type Block,
  batchOf,
  columnsOf,
  f32,
  type Golden,
  type GoldenCall,
  project,
} from './golden.js';

const hidden = -10000;

interface MhaCase {
  case: string;
  num_heads: number | string;
  hidden_size: number | string;
  v_hidden_size: number | string;
  batch_size: number;
  sequence_length: number;
  kv_sequence_length: number;
  mask_type?: string;
  key_padding_mask_data?: number[];
  cumulative_sequence_length?: number[];
  query_data: number[];
  key_data?: number[];
  value_data?: number[];
  bias_data?: number[];
  past_key_data?: number[];
  past_value_data?: number[];
  past_seq_len_data?: number[];
  attention_bias_data?: number[];
  broadcast_attention_bias?: boolean;
  fp32_output_data: number[];
  fp16_output_data?: number[];
}

/** Sequences of different lengths, side by side. */
function packedMha(one: MhaCase, output: number[]): GoldenCall {
  const heads = Number(one.num_heads);
  const [dim, valueDim] = [Number(one.hidden_size) / heads, Number(one.v_hidden_size) / heads];
  const ends = one.cumulative_sequence_length as number[];
  const tokens = ends.at(-1) as number;
  const lengths = ends.slice(1).map((end, i) => end - (ends[i] as number));
  return {
    q: f32(one.query_data, [tokens, heads, dim]),
    k: f32(one.key_data ?? [], [tokens, heads, dim]),
    v: f32(one.value_data ?? [], [tokens, heads, valueDim]),
    options: { cuQueries: offsets(lengths), cuKeys: offsets(lengths) },
    output,
  };
}

/** The same with a bias, [1, heads, longest, longest]: a call for each sequence, as a mask of ours has one width. */
function biasedMha(one: MhaCase, output: number[]): GoldenCall[] {
  const heads = Number(one.num_heads);
  const [size, valueSize] = [Number(one.hidden_size), Number(one.v_hidden_size)];
  const ends = one.cumulative_sequence_length as number[];
  const longest = one.sequence_length;
  return ends.slice(1).map((end, i) => {
    const begin = ends[i] as number;
    const rows = end - begin;
    const of = (data: readonly number[] | undefined, width: number) =>
      f32((data ?? []).slice(begin * width, end * width), [rows, heads, width / heads]);
    const bias = (one.attention_bias_data as number[]).filter(
      (_, at) => at % longest < rows && Math.floor(at / longest) % longest < rows,
    );
    return {
      q: of(one.query_data, size),
      k: of(one.key_data, size),
      v: of(one.value_data, valueSize),
      options: { mask: f32(bias, [heads, rows, rows]) },
      output: output.slice(begin * valueSize, end * valueSize),
    };
  });
}

function mhaCalls(one: MhaCase, output: number[]): GoldenCall[] {
  const heads = Number(one.num_heads);
  const [size, valueSize] = [Number(one.hidden_size), Number(one.v_hidden_size)];
  const { batch_size: batches, sequence_length: queries } = one;
  const block = (data: readonly number[] | undefined, width: number, offset: number): Block => ({
    data: (data ?? []).map((value, i) => value + (one.bias_data?.[offset + (i % width)] ?? 0)),
    heads,
    rows: (data?.length ?? 0) / width / batches,
    dim: width / heads,
    packed: true,
  });
  const q = block(one.query_data, size, 0);
  const k = block(one.key_data, size, size);
  const v = block(one.value_data, valueSize, 2 * size);
  const past = (data: readonly number[] | undefined, width: number): Block => ({
    data: data ?? [],
    heads,
    rows: (data?.length ?? 0) / width / batches,
    dim: width / heads,
    packed: false,
  });
  const [pastKeys, pastValues] = [
    past(one.past_key_data, size),
    past(one.past_value_data, valueSize),
  ];
  // A cache with room for more than it holds.
  const before = one.past_seq_len_data?.[0] ?? pastKeys.rows;
  const keys = before + k.rows;
  return Array.from({ length: batches }, (_, batch) => {
    const rows = (now: Block, then: Block) =>
      f32(
        [...batchOf(then, batch).slice(0, before * heads * then.dim), ...batchOf(now, batch)],
        [keys, heads, then.dim || now.dim],
      );
    const padding = one.mask_type === 'MASK_2D_KEY_PADDING' ? one.key_padding_mask_data : undefined;
    const added: number[] = Array.from({ length: heads * queries * keys }, (__, i) => {
      const bias =
        one.attention_bias_data?.[
          (one.broadcast_attention_bias === true ? 0 : batch * heads * queries * keys) + i
        ];
      return (bias ?? 0) + (padding?.[batch * keys + (i % keys)] === 0 ? hidden : 0);
    });
    return {
      q: f32(batchOf(q, batch), [queries, heads, q.dim]),
      k: rows(k, pastKeys),
      v: rows(v, pastValues),
      options: { mask: f32(added, [heads, queries, keys]) },
      output: output.slice(batch * queries * valueSize, (batch + 1) * queries * valueSize),
    };
  });
}

/**
 * The case that writes into its cache: sizes stand as expressions there (2 heads of 32), and its keys in fours of channels,
 * [batches, heads, 8, 6 tokens, 4].
 */
function sharedBuffer(one: MhaCase): MhaCase {
  const [heads, dim, room] = [2, 32, 6];
  const keys = one.past_key_data as number[];
  const past_key_data = keys.map((_, i) => {
    const [head, token, c] = [Math.floor(i / dim / room), Math.floor(i / dim) % room, i % dim];
    return keys[((head * (dim / 4) + Math.floor(c / 4)) * room + token) * 4 + (c % 4)] as number;
  });
  return { ...one, past_key_data, num_heads: heads, hidden_size: 64, v_hidden_size: 64 };
}

/** Those whose vectors are less exact than f32: what the formula in double differs by. */
const tolerances: Record<string, number> = {
  // Computed in f16 throughout (its f32 vector too), with scores up to 9 and values up to 7: up to 0.018.
  CrossAttentionData_HeadSize40: 0.02,
  // Written with four digits: up to 0.0011.
  CrossAttentionDataWithPast: 2e-3,
};

export function ortMha(): Golden {
  const golden: Golden = { cases: [], leftOut: {} };
  for (const given of goldenCases<MhaCase>('ort_mha.json') ?? []) {
    const half = given.fp16_output_data ?? [];
    const output = half.length > 0 ? half : given.fp32_output_data;
    const tolerance = tolerances[given.case] ?? (output === half ? 3e-3 : 1e-4);
    const one = typeof given.num_heads === 'number' ? given : sharedBuffer(given);
    const isPacked = one.cumulative_sequence_length !== undefined;
    const calls = !isPacked
      ? mhaCalls(one, output)
      : one.attention_bias_data === undefined
        ? [packedMha(one, output)]
        : biasedMha(one, output);
    golden.cases.push({ name: one.case, calls, tolerance });
  }
  return golden;
}

interface ContribCase {
  case: string;
  scalars: Record<string, number | boolean>;
  vectors: Record<string, number[] | undefined> & { output_data?: number[] };
  calls: string[][];
}

/** q, k and v of all tokens, from one projection. */
function projected(one: ContribCase, tokens: number) {
  const { input_data: x = [], weight_data: w = [], bias_data: bias = [] } = one.vectors;
  const size = Number(one.scalars.hidden_size);
  const sizes = one.vectors.qkv_sizes?.length === 3 ? one.vectors.qkv_sizes : [size, size, size];
  const width = sizes.reduce((a, b) => a + b);
  const all = project(x.slice(0, (tokens * x.length) / tokens), w, bias, width);
  const [q, k] = sizes as [number, number, number];
  return {
    q: columnsOf(all, width, 0, q),
    k: columnsOf(all, width, q, q + k),
    v: columnsOf(all, width, q + k, width),
    sizes: sizes as [number, number, number],
  };
}

function contribCalls(one: ContribCase): GoldenCall[] {
  const batches = Number(one.scalars.batch_size);
  const rows = Number(one.scalars.sequence_length);
  const heads = Number(one.scalars.number_of_heads);
  const { q, k, v, sizes } = projected(one, batches * rows);
  const mask = one.vectors.mask_index_data ?? [];
  const kind = one.calls[0]?.find((word) => word.includes('MASK_')) ?? 'MASK_1D_KEY_SEQ_LEN';
  const isSeen = (batch: number, t: number, s: number): boolean => {
    if (mask.length === 0) return true;
    if (kind.includes('1D_END_START')) {
      return s >= (mask[batches + batch] as number) && s < (mask[batch] as number);
    }
    if (kind.includes('2D')) return mask[batch * rows + s] === 1;
    if (kind.includes('3D')) return mask[(batch * rows + t) * rows + s] === 1;
    // [batches, 1, most tokens, most tokens]
    if (kind.includes('4D')) return mask[t * Number(one.scalars.max_sequence_length) + s] === 1;
    return s < (mask[batch] as number);
  };
  return Array.from({ length: batches }, (_, batch) => {
    const part = (values: number[], width: number) =>
      f32(values.slice(batch * rows * width, (batch + 1) * rows * width), [
        rows,
        heads,
        width / heads,
      ]);
    const added = Array.from({ length: heads * rows * rows }, (__, i) => {
      const bias = one.vectors.attention_bias?.[batch * heads * rows * rows + i] ?? 0;
      return bias + (isSeen(batch, Math.floor(i / rows) % rows, i % rows) ? 0 : hidden);
    });
    const size = rows * sizes[2];
    return {
      q: part(q, sizes[0]),
      k: part(k, sizes[1]),
      v: part(v, sizes[2]),
      options: {
        causal: one.scalars.is_unidirectional === true,
        mask: f32(added, [heads, rows, rows]),
      },
      output: (one.vectors.output_data as number[]).slice(batch * size, (batch + 1) * size),
    };
  });
}

export function ortContrib(): Golden {
  const golden: Golden = { cases: [], leftOut: {} };
  for (const one of goldenCases<ContribCase>('ort_attention_contrib.json') ?? []) {
    if ((one.vectors.output_data?.length ?? 0) === 0) {
      golden.leftOut[one.case] = 'the file has no values of it';
      continue;
    }
    golden.cases.push({ name: one.case, calls: contribCalls(one), tolerance: 5e-3 });
  }
  return golden;
}

export function ortPacked(): Golden {
  const golden: Golden = { cases: [], leftOut: {} };
  for (const one of goldenCases<ContribCase>('ort_packed_attention.json') ?? []) {
    const heads = Number(one.scalars.number_of_heads);
    const ends = one.vectors.cum_seq_len as number[];
    const tokens = ends.at(-1) as number;
    const lengths = ends.slice(1).map((end, i) => end - (ends[i] as number));
    const { q, k, v, sizes } = projected(one, tokens);
    // [batches, heads, longest, longest], of which the sequences have the first rows and columns.
    const longest = Number(one.scalars.sequence_length);
    const bias = one.vectors.attention_bias;
    const rows = lengths[0] as number;
    const mask = Array.from({ length: bias === undefined ? 0 : heads * tokens * rows }, (_, i) => {
      const [h, token, s] = [
        Math.floor(i / rows / tokens),
        Math.floor(i / rows) % tokens,
        i % rows,
      ];
      const [batch, t] = [Math.floor(token / rows), token % rows];
      return bias?.[((batch * heads + h) * longest + t) * longest + s] as number;
    });
    const part = (values: number[], width: number) => f32(values, [tokens, heads, width / heads]);
    golden.cases.push({
      name: one.case,
      calls: [
        {
          q: part(q, sizes[0]),
          k: part(k, sizes[1]),
          v: part(v, sizes[2]),
          options: {
            cuQueries: offsets(lengths),
            cuKeys: offsets(lengths),
            ...(bias === undefined ? {} : { mask: f32(mask, [heads, tokens, rows]) }),
          },
          output: one.vectors.output_data as number[],
        },
      ],
      tolerance: 5e-3,
    });
  }
  return golden;
}

export function ortDecoder(): Golden {
  const golden: Golden = { cases: [], leftOut: {} };
  for (const one of goldenCases<ContribCase>('ort_decoder_attention.json') ?? []) {
    const { vectors, scalars } = one;
    const size = Number(scalars.hidden_size);
    const heads = Number(scalars.number_of_heads);
    const queries = Number(scalars.sequence_length);
    const x = vectors.input_data as number[];
    const bias = vectors.bias_data as number[];
    const q = project(x, vectors.q_weight_data as number[], bias.slice(0, size), size);
    const kv = project(x, vectors.kv_weight_data as number[], bias.slice(size), 2 * size);
    const cached = Number(scalars.input_cache_sen_len ?? 0);
    const keys = cached + queries;
    const cache = (data: readonly number[] | undefined) =>
      batchOf({ data: data ?? [], heads, rows: cached, dim: size / heads, packed: false }, 0);
    const rows = (data: readonly number[] | undefined, begin: number) =>
      f32(
        [...cache(data), ...columnsOf(kv, 2 * size, begin, begin + size)],
        [keys, heads, size / heads],
      );
    golden.cases.push({
      name: one.case,
      calls: [
        {
          q: f32(q, [queries, heads, size / heads]),
          k: rows(vectors.key_cache, 0),
          v: rows(vectors.value_cache, size),
          options: {},
          output: vectors.output_data as number[],
        },
      ],
      tolerance: 5e-3,
    });
  }
  return golden;
}
