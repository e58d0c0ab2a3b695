// Vectors of ggml's flash_attn_ext: keys and values in its formats, with exact results in double.
import { type FloatDType, Tensor } from '../../lib/index.js';
import { decodeReferenceRow, referenceRowBytes } from '../reference/formats.js';
import { goldenCases } from '../reference/op_checks.js';
import { f32, type Golden } from './golden.js';
import { numbers } from './golden_onnx.js';

interface GgmlCase {
  type: string;
  variant: string;
  d: number;
  hq: number;
  hkv: number;
  n_q: number;
  n_kv: number;
  scale: number;
  softcap: number;
  alibi_max_bias: number;
  window: number;
  q: number[];
  k_hex: string;
  v_hex: string;
  mask: (number | string)[];
  sinks?: number[];
  expected_f64: number[];
}

/** ALiBi's slopes for any number of heads (Press et al. 2022): two geometric series. */
function slopesOf(heads: number, maxBias: number): number[] {
  const n = 2 ** Math.floor(Math.log2(heads));
  return Array.from({ length: heads }, (_, h) =>
    h < n ? 2 ** ((-maxBias / n) * (h + 1)) : 2 ** ((-maxBias / 2 / n) * (2 * (h - n) + 1)),
  );
}

/** [rows, heads, d] from [rows][heads][d] in a format of ggml. */
function decoded(hex: string, { type, d, hkv, n_kv: rows }: GgmlCase): Tensor<FloatDType> {
  const bytes = new Uint8Array(Buffer.from(hex, 'hex'));
  if (type === 'f32' || type === 'f16' || type === 'bf16')
    return new Tensor(type, bytes, [rows, hkv, d]);
  const size = referenceRowBytes(type, d);
  const values = Array.from({ length: rows * hkv }, (_, row) => [
    ...decodeReferenceRow(type, bytes.subarray(row * size, (row + 1) * size), d),
  ]);
  return f32(values.flat(), [rows, hkv, d]);
}

export function ggmlAttention(): Golden {
  const golden: Golden = { cases: [], leftOut: {} };
  for (const one of goldenCases<GgmlCase>('ggml_flash_attn_ext.json') ?? []) {
    const { hq: heads, n_q: queries, n_kv: keys, d } = one;
    // q stands as [heads][queries][d].
    const q = Array.from({ length: one.q.length }, (_, i) => {
      const [row, head] = [Math.floor(i / (heads * d)), Math.floor(i / d) % heads];
      return one.q[(head * queries + row) * d + (i % d)] as number;
    });
    // With ALiBi the mask holds distances, which ours are not to hold: there only what is not seen.
    const hasSlopes = one.alibi_max_bias > 0;
    const mask = numbers(one.mask).map((x) => (hasSlopes && Number.isFinite(x) ? 0 : x));
    const call = {
      q: f32(q, [queries, heads, d]),
      k: decoded(one.k_hex, one),
      v: decoded(one.v_hex, one),
      output: one.expected_f64,
    };
    const options = {
      scale: one.scale,
      softCap: one.softcap,
      ...(one.sinks === undefined ? {} : { sinks: f32(one.sinks, [heads]) }),
      ...(hasSlopes ? { slopes: f32(slopesOf(heads, one.alibi_max_bias), [heads]) } : {}),
    };
    const causal = { causal: true, window: one.window };
    golden.cases.push({
      name: `${one.type} ${one.variant}`,
      // By its mask, and by options that say the same.
      calls: [
        { ...call, options: { ...options, mask: f32(mask, [1, queries, keys]) } },
        { ...call, options: { ...options, ...causal } },
      ],
      tolerance: 1e-5,
    });
  }
  return golden;
}
