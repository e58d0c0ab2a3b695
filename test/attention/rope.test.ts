// Rotary position embedding on the way of attention: against the formula in double, against rope and then attention, over
// rows and pages of every format, at positions of any kind.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  type AttentionRope,
  attention,
  attentionAsync,
  decodeAttention,
  decodeAttentionAsync,
  machine,
  rope,
  sequence,
  Tensor,
} from '../../lib/index.js';
import {
  attend,
  expectFormula,
  inputsOf,
  offsets,
  optionsOf,
  ropePlans,
  workOf,
} from '../reference/attention_cases.js';
import { worst } from '../reference/op_checks.js';
import { kvFormatNames, paged, queriesOf, stacked } from '../reference/paged_attention.js';
import { firstDifference, gaussian } from '../reference/random.js';

// All levels: where one has kernels that cannot turn keys, others compute.
const isas = machine().isas;
const small = (isa: string) =>
  ropePlans.filter((plan) => workOf(plan) < (isa === 'scalar' ? 1e5 : 5e5));
const names = ['output', 'lse', 'probabilities'] as const;
const i32 = (values: readonly number[], ...shape: number[]) =>
  new Tensor('i32', values, shape.length === 0 ? [values.length] : shape);
const range = (count: number, first = 0) => Array.from({ length: count }, (_, i) => first + i);
const turns: AttentionRope[] = [
  {},
  { mode: 'interleaved', theta: 500000 },
  { rotaryDim: 20, scaling: { type: 'yarn', factor: 4, originalContext: 64 } },
  { mode: 'interleaved', rotaryDim: 6, scaling: { type: 'linear', factor: 2 } },
];

describe('rope on the way of attention', () => {
  it.each(isas)('follows the formula beside every option, %s', (isa) => {
    fc.assert(
      fc.property(small(isa), (plan) => {
        const inputs = inputsOf(plan);
        const options = optionsOf(plan);
        const results = attend(inputs, { ...options, isa, threads: 1 }, plan.dtype);
        expectFormula(isa, inputs, options, results);
      }),
      { numRuns: 60 },
    );
  });

  it.each(isas)('gives the same bits on any number of threads and on a worker, %s', async (isa) => {
    await fc.assert(
      fc.asyncProperty(small(isa), async (plan) => {
        const inputs = inputsOf(plan);
        const options = { ...optionsOf(plan), isa };
        const expected = attend(inputs, { ...options, threads: 1 });
        for (const threads of [2, 3, 7]) {
          const actual = attend(inputs, { ...options, threads });
          for (const name of names) {
            expect(firstDifference(actual[name].bytes, expected[name].bytes)).toBe(-1);
          }
        }
        const { q, k, v } = inputs;
        const async = await attentionAsync(q, k, v, options);
        expect(async.toArray()).toEqual(expected.output.toArray());
      }),
      { numRuns: 15 },
    );
  });

  it('is rope and then attention', () => {
    const [queries, keys, dim] = [9, 700, 32];
    const q = new Tensor('f32', gaussian(queries * 8 * dim, 1), [queries, 8, dim]);
    const k = new Tensor('f32', gaussian(keys * 2 * dim, 2), [keys, 2, dim]);
    const v = new Tensor('f32', gaussian(keys * 2 * dim, 3), [keys, 2, dim]);
    for (const turn of turns) {
      for (const isa of isas) {
        const first = rope(q, i32(range(queries, keys - queries)), { ...turn, isa });
        const second = rope(k, i32(range(keys)), { ...turn, isa });
        const expected = attention(first, second, v, { causal: true, isa });
        const actual = attention(q, k, v, { causal: true, isa, rope: turn });
        expect(worst(actual.data, expected.data, 4e-6, 0)).toBeLessThanOrEqual(1);
      }
    }
  });

  it('gives the bits of default positions where they are given', () => {
    const q = queriesOf('f16', [5], 4, 24);
    const k = queriesOf('f16', [90], 2, 24, 2);
    for (const isa of isas) {
      const options = { isa, causal: true };
      const expected = attention(q, k, k, { ...options, rope: {} });
      const given = { queryPositions: i32(range(5, 85)), keyPositions: i32(range(90)) };
      const actual = attention(q, k, k, { ...options, rope: given });
      expect(firstDifference(actual.bytes, expected.bytes)).toBe(-1);
    }
  });

  it('depends on distances alone', () => {
    const q = new Tensor('f32', gaussian(3 * 2 * 16, 1), [3, 2, 16]);
    const k = new Tensor('f32', gaussian(40 * 16, 2), [40, 1, 16]);
    for (const isa of isas) {
      const at = (first: number) =>
        attention(q, k, k, {
          isa,
          rope: {
            queryPositions: i32(range(3, first + 37)),
            keyPositions: i32(range(40, first)),
          },
        }).data;
      for (const first of [1, 255, 65535, 2 ** 20 + 3]) {
        expect(worst(at(first), at(0), 2e-6, 0)).toBeLessThanOrEqual(1);
      }
      // And does depend on them.
      const near = attention(q, k, k, { isa }).data;
      expect(worst(near, at(0), 1e-2, 0)).toBeGreaterThan(1);
    }
  });

  it('takes positions up to the largest, and more queries than keys', () => {
    const q = new Tensor('f32', gaussian(30 * 2 * 8, 1), [30, 2, 8]);
    const k = new Tensor('f32', gaussian(20 * 8, 2), [20, 1, 8]);
    const keyPositions = i32(range(20, 2 ** 31 - 20));
    for (const isa of isas) {
      const actual = attention(q, k, k, { isa, rope: { keyPositions } }).data;
      const turned = rope(k, keyPositions);
      // Position -10 is turned back by 10.
      const back = rope(q, i32(range(30).map((t) => Math.max(t - 10, 0))));
      const swapped = new Tensor(
        'f32',
        q.toArray().map((x, i) => (i % 8 < 4 ? x : -x)),
        q.shape,
      );
      const negative = rope(swapped, i32(range(30).map((t) => Math.max(10 - t, 0))));
      const all = back.toArray().map((x, i) => {
        if (Math.floor(i / 16) >= 10) return x;
        return (i % 8 < 4 ? 1 : -1) * (negative.data[i] as number);
      });
      const expected = attention(new Tensor('f32', all, q.shape), turned, k, { isa });
      expect(worst(actual, expected.data, 4e-6, 0)).toBeLessThanOrEqual(1);
    }
  });

  it.each(kvFormatNames)('gives the bits of attention on what the pages hold, %s', (keyFormat) => {
    fc.assert(
      fc.property(
        fc.record({
          pageSize: fc.constantFrom(8, 16, 24, 64, 256),
          lengths: fc.array(fc.constantFrom(0, 1, 17, 65, 513), { minLength: 1, maxLength: 3 }),
          n: fc.constantFrom(1, 2, 9),
          kvHeads: fc.constantFrom(1, 2),
          group: fc.constantFrom(1, 4),
          valueDim: fc.constantFrom(0, 8, 33),
          turn: fc.constantFrom(...turns),
          compute: fc.constantFrom('f32', 'i8', 'bf16'),
          isa: fc.constantFrom(...isas),
          threads: fc.constantFrom(1, 3),
        }),
        ({ lengths, n, kvHeads, group, valueDim, turn, compute, isa, threads, pageSize }) => {
          const keyDim = 20;
          const cache = paged({ keyFormat, pageSize, lengths, kvHeads, keyDim, valueDim });
          const q = queriesOf(
            'f32',
            lengths.map(() => n),
            kvHeads * group,
            keyDim,
          );
          const options = { compute, isa, threads, rope: turn } as const;
          const all = decodeAttention(q, [cache.segment], options);
          lengths.forEach((_, i) => {
            const { k, v } = cache.tokens(i);
            const part = q.slice(i * n, (i + 1) * n);
            // Where values are channels of keys, they are not turned.
            const expected = attention(part, k, v, { causal: true, isa, threads: 1, rope: turn });
            expect(all.slice(i * n, (i + 1) * n).toArray()).toEqual(expected.toArray());
          });
        },
      ),
      { numRuns: 15 },
    );
  });

  it('counts on through two segments, heads with lengths of their own, and shared pages', async () => {
    const plan = { kvHeads: 2, keyDim: 32, valueDim: 32 };
    const old = paged({ ...plan, keyFormat: 'i4', pageSize: 32, lengths: [512, 40] });
    const recent = paged({ ...plan, keyFormat: 'f16', pageSize: 16, lengths: [37, 5], seed: 9 });
    const q = queriesOf('f32', [2, 2], 4, 32);
    for (const isa of isas) {
      const all = decodeAttention(q, [old.segment, recent.segment], { isa, rope: {} });
      for (const i of [0, 1]) {
        const [a, b] = [old.tokens(i), recent.tokens(i)];
        const [k, v] = [stacked(a.k, b.k), stacked(a.v, b.v)];
        const expected = attention(q.slice(2 * i, 2 * i + 2), k, v, {
          causal: true,
          isa,
          rope: {},
        });
        const actual = all.slice(2 * i, 2 * i + 2);
        expect(worst(actual.toArray(), expected.data, 4e-6, 0)).toBeLessThanOrEqual(1);
      }
      const worker = await decodeAttentionAsync(q, [old.segment, recent.segment], {
        isa,
        rope: {},
      });
      expect(firstDifference(worker.bytes, all.bytes)).toBe(-1);
    }
    const own = paged({ ...plan, keyFormat: 'i8', pageSize: 16, lengths: [[70, 600]] });
    for (const isa of isas) {
      const all = decodeAttention(q.slice(0, 2), [own.segment], { isa, rope: {} }).toArray();
      for (const head of [0, 1]) {
        const { k, v } = own.tokens(0, head);
        const heads = q
          .slice(0, 2)
          .toArray()
          .filter((_, i) => Math.floor(i / 64) % 2 === head);
        const part = new Tensor('f32', heads, [2, 2, 32]);
        const expected = attention(part, k, v, { causal: true, isa, rope: {} }).toArray();
        expect(all.filter((_, i) => Math.floor(i / 64) % 2 === head)).toEqual(expected);
      }
    }
  });

  it('reads the same pages at other positions, by sequence and by head', () => {
    // Two sequences of the same pages: parts put together in another order.
    const cache = paged({
      keyFormat: 'i8',
      pageSize: 64,
      lengths: [1100],
      kvHeads: 2,
      keyDim: 16,
      valueDim: 16,
    });
    const { pages, blockTable } = cache.segment;
    const row = blockTable.toArray();
    const segment = {
      pages,
      blockTable: i32([...row, ...row], 2, row.length),
      lengths: i32([1100, 1100]),
    };
    const q = queriesOf('f32', [1, 1], 4, 16);
    const { k, v } = cache.tokens(0);
    const orders = [range(1120), range(1120).map((s) => (s < 500 ? s + 600 : s - 500))];
    const heads = [...orders, range(1120, 7), range(1120).map((s) => (s * 7919) % 5000)];
    for (const isa of isas) {
      for (const threads of [1, 7]) {
        const expected = (sequence: number, keyPositions: number[]) =>
          attention(q.slice(sequence, sequence + 1), k, v, {
            isa,
            rope: { queryPositions: i32([2000]), keyPositions: i32(keyPositions.slice(0, 1100)) },
          }).toArray();
        const queryPositions = i32([2000, 2000]);
        const given = { queryPositions, keyPositions: i32(orders.flat(), 2, 1120) };
        const all = decodeAttention(q, [segment], { isa, threads, rope: given });
        orders.forEach((order, i) => {
          expect(all.slice(i, i + 1).toArray()).toEqual(expected(i, order));
        });
        const byHead = { queryPositions, keyPositions: i32(heads.flat(), 2, 2, 1120) };
        const each = decodeAttention(q, [segment], { isa, threads, rope: byHead }).toArray();
        heads.forEach((order, i) => {
          const [sequence, head] = [Math.floor(i / 2), i % 2];
          const part = expected(sequence, order).slice(head * 32, head * 32 + 32);
          expect(each.slice(i * 32, i * 32 + 32)).toEqual(part);
        });
      }
    }
  });

  it('runs in a sequence of operators', async () => {
    const q = queriesOf('f32', [3], 4, 16);
    const k = queriesOf('f32', [40], 2, 16, 5);
    const options = { causal: true, rope: { mode: 'interleaved' } } as const;
    const first = Tensor.zeros('f32', [3, 4, 16]);
    await sequence(() => attention(attention(q, k, k, { ...options, out: first }), k, k, options));
    expect(first.data).toEqual(attention(q, k, k, options).data);
  });

  it('turns ragged sequences each from its beginning', () => {
    const counts = [3, 1, 40];
    const keys = [3, 0, 77];
    const q = queriesOf('bf16', counts, 2, 16);
    const k = queriesOf('bf16', keys, 1, 16, 5);
    const [cuQueries, cuKeys] = [offsets(counts), offsets(keys)];
    for (const isa of isas) {
      for (const compute of ['f32', 'bf16', 'i8'] as const) {
        const options = { isa, compute, causal: true, rope: {} };
        const all = attention(q, k, k, { ...options, cuQueries, cuKeys });
        counts.forEach((_, i) => {
          const [a, b] = cuQueries.toArray().slice(i, i + 2) as [number, number];
          const [c, d] = cuKeys.toArray().slice(i, i + 2) as [number, number];
          const own = attention(q.slice(a, b), k.slice(c, d), k.slice(c, d), options);
          expect(all.slice(a, b).toArray()).toEqual(own.toArray());
        });
      }
    }
  });
});
