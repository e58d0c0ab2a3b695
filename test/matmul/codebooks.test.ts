// matmul with several tables: from any bytes, each level gives the bits of one-hot products of the decoded weights, and
// stays near float64.
import { describe, expect, it } from 'vitest';
import { isas } from '../../lib/generated.js';
import {
  dequantize,
  embedding,
  type Format,
  type Isa,
  machine,
  matmul,
  matmulKernel,
  pack,
  QuantizedTensor,
  Tensor,
} from '../../lib/index.js';
import { tables } from '../quantize/cases.js';
import { parseGroupedFormat, referenceRowBytes } from '../reference/formats.js';
import { firstDifference, gaussian, randomBytes } from '../reference/random.js';

const levels = (['scalar', 'avx2', 'avx512', 'amx'] as Isa[]).filter(
  (isa) => isas[isa] <= isas[machine().isaAvailable],
);
const formats: [Format, number][] = [
  ['cbs2_g32', 1],
  ['cbs2_g64', 4],
  ['cbs2_g128_bf16', 9],
  ['cbs3_g32', 0],
  ['cbs3_g128', 2],
  ['cbs3_g64_bf16', 5],
  ['cbs3_g64', 256],
  ['cbs4_g32', 0],
  ['cbs4_g128_bf16', 3],
  ['cbs4_g64', 7],
  ['cbs4_g32', 256],
  ['lut2_row', 0],
  ['lut2_row_bf16', 0],
  ['lut3_row', 0],
  ['lut3_row_bf16', 0],
  ['lut4_row', 0],
  ['lut4_row_bf16', 0],
];

/** Any codes, any table numbers; scales and row tables that are neither infinite nor NaN. */
function anyWeights(format: Format, count: number, rows: number, cols: number): QuantizedTensor {
  const { bits, groupSize, header, kind, scale } = parseGroupedFormat(format);
  const rowBytes = referenceRowBytes(format, cols);
  const bytes = randomBytes(rows * rowBytes, rows + cols + count);
  const block = groupSize === 0 ? rowBytes : referenceRowBytes(format, groupSize);
  const numbers = kind === 'lut' ? header / 2 : 1;
  for (let at = 0; at < bytes.length; at += block) {
    for (let i = 0; i < numbers; i++) {
      const high = at + 2 * i + 1;
      // f16: magnitudes up to 2; bf16: likewise.
      bytes[high] = (bytes[high] as number) & (scale === 'bf16' ? 0xbf : 0xbf);
    }
  }
  const options = count === 0 ? {} : { codebook: tables(count, 2 ** bits) };
  return new QuantizedTensor(format, bytes, [rows, cols], options);
}

const bitsOf = (t: Tensor) => new Uint32Array(Float32Array.from(t.toArray(), (x) => x + 0).buffer);

describe.each(formats)('matmul with %s, %i tables', (format, count) => {
  it('one-hot rows give the decoded weights, at every level, in each layout', () => {
    for (const [n, k] of [
      [35, 257],
      [16, 33],
      [1, 1],
    ] as const) {
      const b = anyWeights(format, count, n, k);
      const packed = pack(b);
      const weights = dequantize(b).data;
      for (const m of [1, 3]) {
        const picks = Array.from({ length: m }, (_, i) => Math.floor((i * 151) % k));
        const a = Tensor.zeros('f32', [m, k]);
        picks.forEach((pick, i) => {
          a.data[i * k + pick] = 1;
        });
        const expected = picks.flatMap((pick) =>
          Array.from({ length: n }, (_, i) => (weights[i * k + pick] as number) + 0),
        );
        for (const isa of levels) {
          for (const layout of [b, packed]) {
            const c = matmul(a, layout, { isa, algorithm: 'dequant', compute: 'f32' });
            expect(
              firstDifference(bitsOf(c), bitsOf(new Tensor('f32', expected, [m, n]))),
              `${isa} ${n}x${k}`,
            ).toBe(-1);
          }
        }
      }
    }
  });

  it('stays within 1e-6 of float64, bf16 tiles within 1e-2; any number of threads, any m', () => {
    const [m, n, k] = [19, 33, 288];
    const b = anyWeights(format, count, n, k);
    const packed = pack(b);
    const weights = dequantize(b).data;
    const a = gaussian(m * k, 3);
    const errorOf = (c: Tensor<'f32'>): number => {
      let [error, norm] = [0, 0];
      for (let i = 0; i < m * n; i++) {
        let [sum, size] = [0, 0];
        const [row, column] = [Math.floor(i / n) * k, (i % n) * k];
        for (let l = 0; l < k; l++) {
          const product = (a[row + l] as number) * (weights[column + l] as number);
          sum += product;
          size += product * product;
        }
        error += (sum - (c.data[i] as number)) ** 2;
        norm += size;
      }
      return Math.sqrt(error / norm);
    };
    const input = new Tensor('f32', a, [m, k]);
    for (const isa of levels) {
      const c = matmul(input, packed, { isa, compute: 'f32', algorithm: 'dequant', threads: 1 });
      expect(errorOf(c), isa).toBeLessThan(1e-6);
      for (const threads of [2, 3, 7]) {
        const other = matmul(input, b, { isa, compute: 'f32', algorithm: 'dequant', threads });
        expect(firstDifference(bitsOf(other), bitsOf(c))).toBe(-1);
      }
      const tile = matmul(input, packed, { isa, compute: 'bf16', algorithm: 'tile' });
      expect(errorOf(tile), `${isa} tile`).toBeLessThan(1e-2);
      if (isa === 'scalar') continue;
      const alone = matmul(input.slice(4, 5), packed, {
        isa,
        compute: 'f32',
        algorithm: 'dequant',
      });
      expect(firstDifference(bitsOf(alone), bitsOf(c.slice(4, 5)))).toBe(-1);
    }
    expect(
      matmulKernel(input.slice(0, 1), packed, { compute: 'i8' }),
      'there are no integers to multiply',
    ).toMatch(/^matmul_dequant_f32/);
  });

  it('embedding looks rows up in each layout', () => {
    const b = anyWeights(format, count, 21, 65);
    const ids = new Tensor('i32', [20, 3, 0], [3]);
    const weights = dequantize(b);
    for (const table of [b, pack(b)]) {
      const rows = embedding(table, ids).data;
      for (const [i, id] of [20, 3, 0].entries()) {
        expect(
          firstDifference(
            rows.slice(65 * i, 65 * i + 65),
            weights.data.slice(65 * id, 65 * id + 65),
          ),
        ).toBe(-1);
      }
    }
  });
});

it('special numbers decode at every level as in scalar code: infinities, NaN, denormals', () => {
  for (const format of ['lut4_row', 'lut3_row_bf16', 'cbs3_g32', 'cbs4_g64_bf16'] as Format[]) {
    const [n, k] = [16, 64];
    const bytes = randomBytes(n * referenceRowBytes(format, k), 9);
    const b = pack(new QuantizedTensor(format, bytes, [n, k]));
    const weights = dequantize(b).data;
    // A NaN or infinity anywhere in a group or table may reach every product of its segment: only rows without them are
    // compared one by one; the others are compared among the levels.
    const a = Tensor.zeros('f32', [1, k]);
    a.data[5] = 1;
    const results = levels.slice(1).map((isa) => {
      const c = matmul(a, b, { isa, compute: 'f32', algorithm: 'dequant' }).data;
      for (let row = 0; row < n; row++) {
        const own = weights.subarray(row * k, row * k + k);
        if (!own.every(Number.isFinite)) continue;
        expect((c[row] as number) + 0, `${format} ${isa}`).toBe((own[5] as number) + 0);
      }
      return Array.from(c, (x) => (Number.isNaN(x) ? 'NaN' : x));
    });
    for (const result of results) expect(result).toEqual(results[0]);
  }
});
