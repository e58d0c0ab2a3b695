import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  type BlockSparseMatrix,
  dds,
  ddsAsync,
  dsd,
  dsdAsync,
  type FloatDType,
  groupedMatmul,
  groupedMatmulAsync,
  groupedOuter,
  groupedOuterAsync,
  machine,
  type ProductCompute,
  sdd,
  sddAsync,
  Tensor,
  topology,
} from '../../lib/index.js';
import {
  magnitude,
  matrix,
  product,
  type Rows,
  transposed,
  worstOf,
} from '../reference/block_sparse.js';
import { strided } from '../reference/op_checks.js';
import { firstDifference, gaussian } from '../reference/random.js';

const tensor = (dtype: FloatDType, values: ArrayLike<number>, shape: number[]) =>
  new Tensor<FloatDType>(dtype, Array.from(values), shape);
const offsetsOf = (counts: readonly number[]) => {
  const bounds = [0];
  for (const count of counts) bounds.push((bounds.at(-1) as number) + count);
  return bounds;
};
const i32 = (values: readonly number[]) => new Tensor('i32', [...values], [values.length]);

/** f32: chains of at most 32 and K / 32 roundings; bf16: both operands off by 2^-8. */
const bounds: Record<ProductCompute, number> = { f32: 2 ** -20, bf16: 2 ** -7 + 2 ** -15 };

const experts = fc.record({
  counts: fc.oneof(
    fc.array(fc.constantFrom<number>(0, 1, 3, 17, 40), { minLength: 1, maxLength: 9 }),
    fc.constantFrom<number[]>([0], [0, 0, 70, 0], [1, 1, 1, 1, 1, 1, 1, 1, 1]),
  ),
  n: fc.constantFrom(1, 15, 17, 33, 70),
  k: fc.constantFrom(1, 16, 31, 65, 100),
  dtype: fc.constantFrom<FloatDType>('f32', 'f16', 'bf16'),
  compute: fc.constantFrom<ProductCompute>('f32', 'bf16'),
  seed: fc.integer({ min: 1, max: 1e6 }),
});

/**
 * Runs at all levels and thread counts, each within the bound; in f32 all levels but scalar (which adds up in double)
 * give the same bits, and all numbers of threads do.
 */
function checkLevels(
  compute: ProductCompute,
  body: (options: object) => Tensor<FloatDType>,
  expected: Rows,
  magnitudes: Rows,
): Tensor<FloatDType> {
  let first: Tensor<FloatDType> | undefined;
  for (const isa of machine().isas) {
    const one = body({ compute, isa, threads: 1 });
    expect(worstOf(one.toArray(), expected, magnitudes, bounds[compute])).toBeLessThanOrEqual(1);
    expect(firstDifference(body({ compute, isa, threads: 3 }).bytes, one.bytes)).toBe(-1);
    if (isa === 'scalar' || compute === 'bf16') continue;
    first ??= one;
    expect(firstDifference(one.bytes, first.bytes)).toBe(-1);
  }
  return body({ compute });
}

describe('groupedMatmul', () => {
  it('is a product per expert, of weights either way round', () => {
    fc.assert(
      fc.property(experts, fc.boolean(), ({ counts, n, k, dtype, compute, seed }, transposeB) => {
        const bound = offsetsOf(counts);
        const rows = (bound.at(-1) as number) + 2; // two rows of no expert
        const x = tensor(dtype, gaussian(rows * k, seed), [rows, k]);
        const shape = transposeB ? [counts.length, k, n] : [counts.length, n, k];
        const w = tensor(dtype, gaussian(counts.length * n * k, seed + 1), shape);
        const xs = matrix(x.toArray(), rows, k);
        const parts = counts.map((_, e) => {
          const values = w.toArray().slice(e * n * k, (e + 1) * n * k);
          const b = transposeB ? matrix(values, k, n) : transposed(matrix(values, n, k), k);
          const own = xs.slice(bound[e], bound[e + 1]);
          return [product(own, b, n), magnitude(own, b, n)] as const;
        });
        const zeros = [new Array<number>(n).fill(0), new Array<number>(n).fill(0)];
        checkLevels(
          compute,
          (options) => groupedMatmul(x, w, i32(bound), { ...options, transposeB }),
          [...parts.flatMap((part) => part[0]), ...zeros],
          [...parts.flatMap((part) => part[1]), ...zeros],
        );
      }),
      { numRuns: 40 },
    );
  });

  it('adds up products of rows: groupedOuter', () => {
    fc.assert(
      fc.property(experts, ({ counts, n, k, dtype, compute, seed }) => {
        const bound = offsetsOf(counts);
        const rows = bound.at(-1) as number;
        const a = tensor(dtype, gaussian(rows * n, seed), [rows, n]);
        const b = tensor(dtype, gaussian(rows * k, seed + 1), [rows, k]);
        const as = matrix(a.toArray(), rows, n);
        const bs = matrix(b.toArray(), rows, k);
        const parts = counts.map((_, e) => {
          const left = transposed(as.slice(bound[e], bound[e + 1]), n);
          const right = bs.slice(bound[e], bound[e + 1]);
          return [product(left, right, k), magnitude(left, right, k)] as const;
        });
        const out = checkLevels(
          compute,
          (options) => groupedOuter(a, b, i32(bound), options),
          parts.flatMap((part) => part[0]),
          parts.flatMap((part) => part[1]),
        );
        expect(out.shape).toEqual([counts.length, n, k]);
      }),
      { numRuns: 40 },
    );
  });
});

/** The dense form of a block-sparse matrix, and whether what lies beyond its blocks is zero. */
function dense(s: BlockSparseMatrix): { rows: Rows; clean: boolean } {
  const { topology: t } = s;
  const rows = Array.from({ length: t.rows }, () => new Array<number>(t.columns).fill(0));
  const values = s.values.toArray();
  let clean = true;
  for (let block = 0; block < t.blocks; block++) {
    const r = t.rowIndices.data[block] as number;
    const c = t.columnIndices.data[block] as number;
    const [row, rowEnd] = [t.rowStarts.data[r] as number, t.rowStarts.data[r + 1] as number];
    const [column, end] = [t.columnStarts.data[c] as number, t.columnStarts.data[c + 1] as number];
    for (let i = 0; i < t.blockSize; i++) {
      for (let j = 0; j < t.blockSize; j++) {
        const value = values[(block * t.blockSize + i) * t.blockSize + j] as number;
        if (row + i < rowEnd && column + j < end) (rows[row + i] as number[])[column + j] = value;
        else clean &&= value === 0;
      }
    }
  }
  return { rows, clean };
}

const sparse = fc.record({
  counts: fc.array(fc.constantFrom(0, 1, 5, 17, 33), { minLength: 1, maxLength: 4 }),
  ffn: fc.constantFrom(1, 16, 20, 40),
  hidden: fc.constantFrom(1, 7, 33),
  blockSize: fc.constantFrom(16, 16, 32, 64, 128),
  dtype: fc.constantFrom<FloatDType>('f32', 'bf16'),
  compute: fc.constantFrom<ProductCompute>('f32', 'bf16'),
  transposeA: fc.boolean(),
  transposeB: fc.boolean(),
  seed: fc.integer({ min: 1, max: 1e6 }),
});

/** Random blocks; what no block should show is NaN. */
function randomBlocks(t: ReturnType<typeof topology>, dtype: FloatDType, seed: number) {
  const size = t.blockSize;
  const values = Array.from(gaussian(t.blocks * size * size, seed));
  for (let block = 0; block < t.blocks; block++) {
    const r = t.rowIndices.data[block] as number;
    const c = t.columnIndices.data[block] as number;
    const rows = (t.rowStarts.data[r + 1] as number) - (t.rowStarts.data[r] as number);
    const columns = (t.columnStarts.data[c + 1] as number) - (t.columnStarts.data[c] as number);
    for (let i = 0; i < size * size; i++) {
      if (Math.floor(i / size) >= rows || i % size >= columns) {
        values[block * size * size + i] = Number.NaN;
      }
    }
  }
  return { topology: t, values: tensor(dtype, values, [t.blocks, size, size]) };
}

describe('sdd, dsd, dds', () => {
  it('sdd computes the blocks of a product, and zeros beside them', () => {
    fc.assert(
      fc.property(sparse, ({ counts, ffn, hidden, blockSize, dtype, compute, seed, ...flags }) => {
        const t = topology(offsetsOf(counts), ffn, blockSize);
        const { transposeA, transposeB } = flags;
        const [m, n] = [t.rows + 1, t.columns]; // a row behind the topology
        const a = tensor(dtype, gaussian(m * hidden, seed), transposeA ? [hidden, m] : [m, hidden]);
        const b = tensor(
          dtype,
          gaussian(n * hidden, seed + 1),
          transposeB ? [n, hidden] : [hidden, n],
        );
        const left = transposeA
          ? transposed(matrix(a.toArray(), hidden, m), m)
          : matrix(a.toArray(), m, hidden);
        const right = transposeB
          ? transposed(matrix(b.toArray(), n, hidden), hidden)
          : matrix(b.toArray(), hidden, n);
        const owner = counts.flatMap((count, e) => new Array<number>(count).fill(e));
        const mask = (rows: Rows) =>
          rows
            .slice(0, t.rows)
            .map((row, i) => row.map((x, j) => (Math.floor(j / ffn) === owner[i] ? x : 0)));
        checkLevels(
          compute,
          (options) => {
            const s = sdd(a, b, t, { ...options, ...flags });
            const { rows, clean } = dense(s);
            expect(clean).toBe(true);
            return tensor('f32', rows.flat(), [t.rows, t.columns]);
          },
          mask(product(left, right, n)),
          mask(magnitude(left, right, n)),
        );
      }),
      { numRuns: 30 },
    );
  });

  it('dsd and dds multiply with blocks, and read nothing beside them', () => {
    fc.assert(
      fc.property(sparse, ({ counts, ffn, hidden, blockSize, dtype, compute, seed, ...flags }) => {
        const t = topology(offsetsOf(counts), ffn, blockSize);
        const s = randomBlocks(t, dtype, seed);
        const { transposeA, transposeB } = flags;
        const whole = dense(s).rows;
        const across = transposed(whole, t.columns);
        const [m, k] = transposeA ? [t.columns, t.rows] : [t.rows, t.columns];
        const b = tensor(
          dtype,
          gaussian(k * hidden, seed + 1),
          transposeB ? [hidden, k] : [k, hidden],
        );
        const right = transposeB
          ? transposed(matrix(b.toArray(), hidden, k), k)
          : matrix(b.toArray(), k, hidden);
        const left = transposeA ? across : whole;
        const out = checkLevels(
          compute,
          (options) => dsd(s, b, { ...options, ...flags }),
          product(left, right, hidden),
          magnitude(left, right, hidden),
        );
        expect(out.shape).toEqual([m, hidden]);

        const [inner, n] = transposeB ? [t.columns, t.rows] : [t.rows, t.columns];
        const a = tensor(
          dtype,
          gaussian(inner * hidden, seed + 2),
          transposeA ? [inner, hidden] : [hidden, inner],
        );
        const first = transposeA
          ? transposed(matrix(a.toArray(), inner, hidden), hidden)
          : matrix(a.toArray(), hidden, inner);
        const second = transposeB ? across : whole;
        checkLevels(
          compute,
          (options) => dds(a, s, { ...options, ...flags }),
          product(first, second, n),
          magnitude(first, second, n),
        );
      }),
      { numRuns: 30 },
    );
  });
});

describe('grouped, block-sparse and dense forms', () => {
  const counts = [33, 0, 1, 70];
  const [ffn, hidden] = [80, 96];
  const bound = offsetsOf(counts);
  const rows = bound.at(-1) as number;
  const offsets = i32(bound);
  const x = tensor('f32', gaussian(rows * hidden, 1), [rows, hidden]);
  const w = tensor('f32', gaussian(4 * ffn * hidden, 2), [4, ffn, hidden]);
  const v = tensor('f32', gaussian(4 * ffn * hidden, 3), [4, ffn, hidden]);
  const flat = (t: Tensor<FloatDType>) =>
    new Tensor<FloatDType>(t.dtype, t.bytes, [4 * ffn, hidden]);

  it.each([16, 32, 64, 128])('have the same bits in f32, block size %i', (blockSize) => {
    const t = topology(offsets, ffn, blockSize);
    const h = groupedMatmul(x, w, offsets);
    const s = sdd(x, flat(w), t, { transposeB: true });
    const loop = counts.flatMap((count, e) => {
      const own = new Tensor<FloatDType>(
        'f32',
        x.bytes.subarray((bound[e] as number) * hidden * 4),
        [count, hidden],
      );
      const weights = new Tensor<FloatDType>('f32', w.bytes.subarray(e * ffn * hidden * 4), [
        1,
        ffn,
        hidden,
      ]);
      return Array.from(groupedMatmul(own, weights, i32([0, count])).toArray());
    });
    expect(Array.from(h.toArray())).toEqual(loop);
    const wide = dense(s).rows;
    const owner = counts.flatMap((count, e) => new Array<number>(count).fill(e));
    const narrow = wide.flatMap((row, i) =>
      row.slice((owner[i] as number) * ffn, ((owner[i] as number) + 1) * ffn),
    );
    expect(Array.from(h.toArray())).toEqual(narrow);
    const y = groupedMatmul(h, v, offsets, { transposeB: true });
    expect(firstDifference(dsd(s, flat(v)).bytes, y.bytes)).toBe(-1);
    const gradient = groupedOuter(h, x, offsets);
    expect(firstDifference(dsd(s, x, { transposeA: true }).bytes, gradient.bytes)).toBe(-1);
    const other = groupedOuter(x, h, offsets); // [4, hidden, ffn]
    const whole = dds(x, s, { transposeA: true }).toArray(); // [hidden, 4 * ffn]
    const cut = Array.from({ length: 4 * hidden * ffn }, (_, i) => {
      const [e, r, c] = [Math.floor(i / (hidden * ffn)), Math.floor(i / ffn) % hidden, i % ffn];
      return whole[r * 4 * ffn + e * ffn + c];
    });
    expect(Array.from(other.toArray())).toEqual(cut);
  });

  it('take strided tensors, all dtypes of output, workers, and NaN stays in its rows', async () => {
    const y = groupedMatmul(x, w, offsets);
    const xs = strided('f32', x.toArray() as number[], [rows, hidden], [3, 1]);
    const ws = strided('f32', w.toArray() as number[], [4, ffn, hidden], [5, 2, 0]);
    const out = strided('f32', new Float32Array(rows * ffn), [rows, ffn], [1, 1]);
    expect(groupedMatmul(xs, ws, offsets, { out }).toArray()).toEqual(y.toArray());
    const half = groupedMatmul(x, w, offsets, { out: Tensor.zeros('bf16', [rows, ffn]) });
    expect(half.toArray()).toEqual(tensor('bf16', y.toArray(), [rows, ffn]).toArray());
    const same = async (a: Promise<Tensor>, b: Tensor) =>
      expect(firstDifference((await a).bytes, b.bytes)).toBe(-1);
    await same(groupedMatmulAsync(x, w, offsets), y);
    await same(groupedOuterAsync(x, y, offsets), groupedOuter(x, y, offsets));
    const t = topology(bound, ffn, 32);
    const s = sdd(x, flat(w), t, { transposeB: true });
    expect(
      firstDifference(
        (await sddAsync(x, flat(w), t, { transposeB: true })).values.bytes,
        s.values.bytes,
      ),
    ).toBe(-1);
    await same(dsdAsync(s, flat(v)), dsd(s, flat(v)));
    await same(ddsAsync(x, s, { transposeA: true }), dds(x, s, { transposeA: true }));
    const poisoned = tensor('f32', x.toArray(), [rows, hidden]);
    (poisoned.data as Float32Array)[5 * hidden] = Number.NaN;
    const clean = matrix(groupedMatmul(poisoned, w, offsets).toArray(), rows, ffn);
    clean.forEach((row, r) => {
      const expected = matrix(y.toArray(), rows, ffn)[r] as number[];
      if (r === 5) expect(row.every(Number.isNaN)).toBe(true);
      else expect(row).toEqual(expected);
    });
  });
});
