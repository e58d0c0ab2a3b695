/** Algorithm tile: every level against the specification (level scalar), and its error against float64. */
import { describe, expect, it } from 'vitest';
import {
  type Compute,
  type Format,
  type Isa,
  matmul,
  matmulKernel,
  pack,
  Tensor,
} from '../../lib/index.js';
import { colsOf, formatNames, quantized, sampledFormats } from '../quantize/cases.js';
import { referenceMatmul } from '../reference/matmul.js';
import { gaussian } from '../reference/random.js';
import { isasHere } from '../reference/views.js';
import { bytesEqual, decoded } from './cases.js';

const levels = isasHere.filter((isa) => isa !== 'scalar');
const f32 = (values: Float32Array, shape: number[]): Tensor<'f32'> =>
  new Tensor('f32', values, shape);
const tile = (compute: Compute, isa: Isa) => ({ algorithm: 'tile', compute, isa }) as const;
const some: Format[] = [
  'u4_g32',
  'u3z_g64',
  'q6_k',
  'q4_k',
  'u8_row',
  'i5z_row',
  'nf4_g64',
  't2_g256',
];

/** Root of the sum of squared errors, relative to the reference. */
function relativeError(c: ArrayLike<number>, expected: ArrayLike<number>): number {
  let error = 0;
  let energy = 0;
  for (let i = 0; i < expected.length; i++) {
    error += ((c[i] as number) - (expected[i] as number)) ** 2;
    energy += (expected[i] as number) ** 2;
  }
  return Math.sqrt(error / energy);
}

function sample(kind: string, count: number, seed: number): Float32Array {
  if (kind === 'gaussian') return gaussian(count, seed);
  const values = gaussian(2 * count, seed);
  // The difference of two exponential variables, each half the sum of two squared normal ones, is Laplacian.
  const others = gaussian(2 * count, seed + 1);
  return Float32Array.from({ length: count }, (_, i) => {
    const sum = (v: Float32Array) =>
      ((v[2 * i] as number) ** 2 + (v[2 * i + 1] as number) ** 2) / 2;
    if (kind === 'laplacian') return sum(values) - sum(others);
    return 2 * Math.exp(-sum(values)) - 1; // uniform: exp of minus an exponential variable
  });
}

describe('matmul, algorithm tile', () => {
  it.each(levels)('gives the bits of the specification in int8 at level %s', (isa) => {
    let checked = 0;
    for (const format of sampledFormats) {
      const k = colsOf(format).at(-1) as number;
      const b = pack(quantized(format, gaussian(33 * k, k), [33, k]), { layout: 'lanes16' });
      const a = f32(gaussian(19 * k, 7), [19, k]);
      const exact = matmulKernel(a, b, tile('i8', isa))?.includes('_i8_') === true;
      const c = matmul(a, b, tile('i8', isa));
      const expected = matmul(a, b, tile('i8', 'scalar'));
      if (exact) {
        expect(bytesEqual(c, expected), format).toBe(true);
        checked++;
      } else {
        expect(relativeError(c.data, expected.data), format).toBeLessThan(1e-6);
      }
    }
    expect(checked).toBeGreaterThan(sampledFormats.length / 4);
  });

  it.each(levels)('takes every M, N and K, both layouts and any threads at level %s', (isa) => {
    const shapes: [number, number, number][] = [];
    for (const k of [1, 31, 33, 63, 65, 513, 1100]) shapes.push([3, 17, k]);
    for (const n of [1, 15, 17, 33]) shapes.push([5, n, 96]);
    for (const m of [1, 2, 8, 15, 16, 17, 31, 32, 33, 65]) shapes.push([m, 35, 160]);
    for (const [m, n, anyK] of shapes) {
      for (const format of some) {
        const k = format.endsWith('_k') ? Math.ceil(anyK / 256) * 256 : anyK;
        const b = quantized(format, gaussian(n * k, k), [n, k]);
        const packed = pack(b, { layout: 'lanes16' });
        const a = f32(gaussian(m * k, m), [m, k]);
        for (const compute of ['i8', 'bf16'] as const) {
          const expected = matmul(a, b, tile(compute, 'scalar'));
          const c = matmul(a, packed, { ...tile(compute, isa), threads: 1 });
          const what = `${format} ${compute} ${m} ${n} ${k}`;
          if (compute === 'i8') expect(bytesEqual(c, expected), what).toBe(true);
          else expect(relativeError(c.data, expected.data), what).toBeLessThan(1e-5);
          expect(bytesEqual(matmul(a, b, tile(compute, isa)), c), what).toBe(true);
          expect(
            bytesEqual(matmul(a, packed, { ...tile(compute, isa), threads: 3 }), c),
            what,
          ).toBe(true);
        }
      }
    }
  });

  it.each(isasHere)('gives a row the same bits alone and in a batch at level %s', (isa) => {
    const [m, n, k] = [37, 40, 576];
    const a = gaussian(m * k, 5);
    const b = quantized('q4_0', gaussian(n * k, 6), [n, k]);
    for (const compute of ['i8', 'bf16'] as const) {
      const all = matmul(f32(a, [m, k]), b, tile(compute, isa)).data;
      for (const row of [0, 15, 16, 36]) {
        const alone = matmul(f32(a.slice(row * k, (row + 1) * k), [k]), b, tile(compute, isa));
        expect([...alone.data]).toEqual([...all.subarray(row * n, (row + 1) * n)]);
      }
    }
  });

  it('stays within the errors that are stated: uniform data in int8, all data in bf16', () => {
    const [m, n, k] = [16, 32, 2048];
    const isa = isasHere.at(-1) as Isa;
    for (const kind of ['uniform', 'gaussian', 'laplacian']) {
      for (const format of ['u4_g32', 'q4_k', 'q6_k', 'u2z_g64'] as const) {
        const b = quantized(format, sample(kind, n * k, 3), [n, k]);
        const a = sample(kind, m * k, 5);
        const { values } = referenceMatmul(a, decoded(b), m, n, k);
        if (kind === 'uniform') {
          const i8 = matmul(f32(a, [m, k]), b, tile('i8', isa));
          expect(relativeError(i8.data, values), format).toBeLessThan(8e-3);
        }
        const bf16 = matmul(f32(a, [m, k]), b, tile('bf16', isa));
        expect(relativeError(bf16.data, values), `${kind} ${format}`).toBeLessThan(3e-3);
      }
    }
  });

  // A format of each kind and width; groups of 32 where there are several sizes, else the smallest.
  const kinds = formatNames.filter((format) =>
    /^(?!.*(_bf16|_row|_g64|_g128|_g256|_g8)$)/.test(format),
  );

  it.each(isasHere)('rounds weights without bias in every format at level %s', (isa) => {
    const [n, k] = [16, 512];
    const few = isa === 'scalar';
    const unit = new Int8Array(k * k);
    for (let i = 0; i < k; i++) unit[i * k + i] = 127;
    const a = new Tensor('i8', unit, [k, k]);
    const aScales = f32(new Float32Array(k).fill(1 / 127), [k]);
    let checked = 0;
    for (const format of few ? (['mxfp4', 'bfp3_g16', 'u4_g32'] as const) : kinds) {
      const b = quantized(format, gaussian(n * k, 11), [n, k]);
      const options = { ...tile('i8', isa), aScales };
      // Tables without symmetry have errors without symmetry.
      if (format.startsWith('cb') || !matmulKernel(a, b, options)?.includes('_i8_')) continue;
      const weights = decoded(b);
      const seen = matmul(a, b, options).data; // the weights themselves, as tiles round them
      let bias = 0;
      for (let row = 0; row < n; row++) {
        const largest = weights
          .subarray(row * k, (row + 1) * k)
          .reduce((most, w) => Math.max(most, Math.abs(w)), 0);
        for (let i = 0; i < k; i++) {
          const error = (seen[i * n + row] as number) - (weights[row * k + i] as number);
          bias += error / (largest / 127) / (n * k);
        }
      }
      // Steps of rounding; even errors in [-1/2, 1/2] have a mean of 0 +- 0.003.
      expect(Math.abs(bias), format).toBeLessThan(0.016);
      checked++;
    }
    expect(checked).toBeGreaterThan(few ? 2 : 30);
  });

  it('stays within the errors that are stated for activations of one sign in every format', () => {
    const [m, n, k] = [8, 8, 2048];
    const isa = isasHere.at(-1) as Isa;
    const a = gaussian(m * k, 5).map(Math.abs);
    for (const format of kinds) {
      const b = quantized(format, gaussian(n * k, 3), [n, k]);
      const { values } = referenceMatmul(a, decoded(b), m, n, k);
      const c = matmul(f32(a, [m, k]), b, tile('i8', isa));
      // 1-bit weights with zero points come to 2.2e-2, whose products nearly cancel; the others stay below 2e-2.
      expect(relativeError(c.data, values), format).toBeLessThan(2.5e-2);
    }
  });

  // Rounding to a grid of step s has the variance s^2 / 12. In each block of 512 that is max|a| / 127 for a row of a,
  // and for a row of these weights max|scale| * 2^(bits - 1) / 127 (tile.h).
  it('loses in int8 what rounding to its grids loses, neither more nor less', () => {
    const [m, n, k, depth] = [16, 32, 2048, 512];
    for (const kind of ['uniform', 'gaussian', 'laplacian']) {
      for (const bits of [4, 8] as const) {
        const b = quantized(`u${bits}_g32`, sample(kind, n * k, 3), [n, k]);
        const weights = decoded(b);
        const a = sample(kind, m * k, 5);
        const block = 2 + 4 * bits;
        const scales = Array.from({ length: (n * k) / 32 }, (_, i) =>
          Math.abs(
            new Tensor('f16', b.bytes.slice(i * block, i * block + 2), [1]).toArray()[0] as number,
          ),
        );
        const { values } = referenceMatmul(a, weights, m, n, k);
        const sumSquares = (list: ArrayLike<number>, from: number): number => {
          let sum = 0;
          for (let i = from; i < from + depth; i++) sum += (list[i] as number) ** 2;
          return sum;
        };
        let expected = 0;
        for (let at = 0; at < k; at += depth) {
          const rows = Array.from({ length: m }, (_, row) => {
            const part = a.subarray(row * k + at, row * k + at + depth);
            const largest = part.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
            return { step: largest / 127, squares: sumSquares(a, row * k + at) };
          });
          for (let column = 0; column < n; column++) {
            const from = (column * k + at) / 32;
            const step =
              (Math.max(...scales.slice(from, from + depth / 32)) * 2 ** (bits - 1)) / 127;
            const squares = sumSquares(weights, column * k + at);
            for (const row of rows) {
              expected += (row.step ** 2 * squares + step ** 2 * row.squares) / 12;
            }
          }
        }
        const energy = values.reduce((sum, value) => sum + value ** 2, 0);
        const c = matmul(f32(a, [m, k]), b, tile('i8', isasHere.at(-1) as Isa));
        const ratio = relativeError(c.data, values) / Math.sqrt(expected / energy);
        expect(ratio, `${kind} ${bits}`).toBeGreaterThan(0.85);
        expect(ratio, `${kind} ${bits}`).toBeLessThan(1.15);
      }
    }
  });

  it.each(isasHere)('computes rows with massive outliers in bf16 at level %s', (isa) => {
    const [m, n, k] = [20, 16, 1024];
    const b = quantized('u4_g32', gaussian(n * k, 1), [n, k]);
    const weights = decoded(b);
    for (const kind of ['gaussian', 'laplacian']) {
      for (const size of [20, 100, 1000]) {
        const a = sample(kind, m * k, size);
        // Two channels of either block, in half of the rows.
        for (let row = 0; row < m; row += 2) {
          for (const channel of [5, 300, 700, 1000])
            a[row * k + channel] = size * (row % 4 === 0 ? 1 : -1);
        }
        // What the other channels contribute must not be lost: they are measured alone.
        const mild = a.slice();
        for (let row = 0; row < m; row += 2) {
          for (const channel of [5, 300, 700, 1000]) mild[row * k + channel] = 0;
        }
        const c = matmul(f32(a, [m, k]), b, tile('i8', isa)).data;
        const { values } = referenceMatmul(a, weights, m, n, k);
        const { values: small } = referenceMatmul(mild, weights, m, n, k);
        let error = 0;
        let energy = 0;
        for (let i = 0; i < values.length; i++) {
          error += ((c[i] as number) - (values[i] as number)) ** 2;
          energy += (values[i] as number) ** 2 + (small[i] as number) ** 2;
        }
        expect(Math.sqrt(error / energy), `${kind} ${size}`).toBeLessThan(1.6e-2);
        // The row alone in bf16 has the same bits as among the others in int8.
        const row = f32(a.slice(0, k), [1, k]);
        if (size >= 100) {
          const alone = matmul(row, b, tile('bf16', isa)).data;
          expect([...c.subarray(0, n)]).toEqual([...alone]);
        }
      }
    }
  });

  it.each(isasHere)(
    'does not take rows of few values for rows with outliers at level %s',
    (isa) => {
      const [n, k] = [16, 512];
      const b = quantized('u8_row', gaussian(n * k, 1), [n, k]);
      const a = new Float32Array(2 * k);
      a[7] = 1;
      a[k + 9] = -2;
      a[k + 100] = 2;
      // 1 and 2 are codes of 127: int8 gives these products exactly, bf16 would round the weights.
      const weights = decoded(b);
      const c = matmul(f32(a, [2, k]), b, tile('i8', isa)).data;
      for (let column = 0; column < n; column++) {
        expect(c[column]).toBeCloseTo(weights[column * k + 7] as number, 5);
        const both =
          2 * ((weights[column * k + 100] as number) - (weights[column * k + 9] as number));
        expect(c[n + column]).toBeCloseTo(both, 5);
      }
    },
  );

  it.each(isasHere)(
    'keeps zeros, denormals, infinities and NaN in their rows at level %s',
    (isa) => {
      const [n, k] = [17, 600];
      const b = quantized('u4z_g32', gaussian(n * k, 2), [n, k]);
      const a = gaussian(6 * k, 3);
      a.fill(0, 0, k);
      a.fill(1e-41, k, 2 * k);
      a[2 * k + 599] = Infinity;
      a[3 * k] = NaN;
      a[4 * k + 1] = -Infinity;
      for (const compute of ['i8', 'bf16'] as const) {
        const c = matmul(f32(a, [6, k]), b, tile(compute, isa)).data;
        for (let i = 0; i < 2 * n; i++) expect(Math.abs(c[i] as number)).toBeLessThan(1e-36);
        for (let i = 2 * n; i < 5 * n; i++) expect(Number.isFinite(c[i])).toBe(false);
        for (let i = 5 * n; i < 6 * n; i++) expect(Number.isFinite(c[i])).toBe(true);
      }
    },
  );
});
