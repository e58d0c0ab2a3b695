// Decode over quantized pages in integers (compute i8), and over pages of f16: against f32, level against level, and what
// may not change a bit.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  type DecodeAttentionOptions,
  decodeAttention,
  type KVFormat,
  KVPages,
  type KVSegment,
  kvAppend,
  machine,
  Tensor,
} from '../../lib/index.js';
import { isas, worst } from '../reference/op_checks.js';
import { firstDifference, gaussian, squaredError } from '../reference/random.js';

interface Shape {
  queries: number;
  keys: number;
  heads: number;
  kvHeads: number;
  keyDim: number;
  valueDim: number;
  pageSize: number;
}
const usual: Shape = {
  queries: 1,
  keys: 700,
  heads: 8,
  kvHeads: 2,
  keyDim: 128,
  valueDim: 128,
  pageSize: 64,
};

const i32 = (values: number[], shape = [values.length]) =>
  new Tensor('i32', Int32Array.from(values), shape);

/** Gaussian keys and values in pages; the last page is whole, so that its scales are those of 16 tokens and more. */
function segmentOf(
  shape: Shape,
  keyFormat: KVFormat,
  valueFormat: KVFormat,
  change: (k: Float32Array, v: Float32Array) => void = () => {},
): KVSegment {
  const { keys, kvHeads: numKvHeads, keyDim, valueDim, pageSize } = shape;
  const numPages = Math.ceil(keys / pageSize);
  const tokens = numPages * pageSize;
  const k = gaussian(tokens * numKvHeads * keyDim, 2);
  const v = gaussian(tokens * numKvHeads * valueDim, 3);
  change(k, v);
  const pages = new KVPages({
    keyFormat,
    valueFormat,
    numKvHeads,
    keyDim,
    valueDim,
    pageSize,
    numPages,
  });
  kvAppend(
    new Tensor('f32', k, [tokens, numKvHeads, keyDim]),
    new Tensor('f32', v, [tokens, numKvHeads, valueDim]),
    i32(Array.from({ length: tokens }, (_, i) => i)),
    pages,
  );
  return {
    pages,
    blockTable: i32(
      Array.from({ length: numPages }, (_, i) => i),
      [1, numPages],
    ),
    lengths: i32([keys]),
  };
}

const queriesOf = ({ queries, heads, keyDim }: Shape, seed = 1) =>
  new Tensor('f32', gaussian(queries * heads * keyDim, seed), [queries, heads, keyDim]);

const has512 = machine().isas.includes('avx512');
const hasAmx = machine().isas.includes('amx');
const integers: KVFormat[] = ['i8', 'i4', 'i2'];
const pairs = integers.flatMap((keys) => integers.map((values) => [keys, values] as const));

/** Root of the mean squared error, of that of what is expected. */
const relativeError = (actual: Float32Array, expected: Float32Array) =>
  Math.sqrt(
    squaredError(actual, expected) / squaredError(expected, new Float32Array(expected.length)),
  );

describe('decodeAttention in integers', () => {
  it.each(pairs)('is near f32 with keys in %s and values in %s', (keys, values) => {
    const segment = segmentOf(usual, keys, values);
    const q = queriesOf(usual);
    const expected = decodeAttention(q, [segment], { isa: 'scalar' }).data;
    for (const isa of isas) {
      const actual = decodeAttention(q, [segment], { compute: 'i8', isa }).data;
      expect(relativeError(actual, expected)).toBeLessThan(0.016);
    }
  });

  it.each([
    ['i8', 0.03],
    ['i4', 0.09],
  ] as const)('holds channels of outliers among the keys, %s', (format, bound) => {
    const segment = segmentOf(usual, format, format, (k) => {
      for (let i = 5; i < k.length; i += 32) k[i] = 20 * (k[i] as number);
    });
    const q = queriesOf(usual);
    const expected = decodeAttention(q, [segment], { isa: 'scalar' }).data;
    const actual = decodeAttention(q, [segment], { compute: 'i8' }).data;
    expect(relativeError(actual, expected)).toBeLessThan(bound);
  });

  // A weight whose scaled value lies on the border of two integers may become either.
  it.skipIf(!has512)('takes the same integer steps at all levels', () => {
    fc.assert(
      fc.property(
        fc.record({
          // Fewer than 32 rows: more are a prompt, whose steps are others.
          queries: fc.integer({ min: 1, max: 6 }),
          keys: fc.integer({ min: 1, max: 700 }),
          kvHeads: fc.integer({ min: 1, max: 2 }),
          group: fc.integer({ min: 1, max: 5 }),
          keyDim: fc.constantFrom(1, 16, 33, 64, 80, 128),
          valueDim: fc.constantFrom(1, 17, 32, 48, 64, 128, 160),
          pageSize: fc.constantFrom(8, 16, 24, 32, 48, 64, 128),
          formats: fc.constantFrom(...pairs),
          options: fc.constantFrom<DecodeAttentionOptions>(
            {},
            { window: 70, sinkTokens: 3 },
            { causal: false },
            { softCap: 2 },
          ),
          extras: fc.constantFrom('', 'slopes', 'sinks', 'mask'),
        }),
        ({ group, formats, options, extras, ...rest }) => {
          const shape = { ...rest, heads: rest.kvHeads * group };
          const segment = segmentOf(shape, ...formats);
          const q = queriesOf(shape);
          const { heads, queries, keys } = shape;
          const own: DecodeAttentionOptions = { ...options };
          if (extras === 'slopes') own.slopes = new Tensor('f32', gaussian(heads, 7), [heads]);
          if (extras === 'sinks') own.sinks = new Tensor('f32', gaussian(heads, 8), [heads]);
          if (extras === 'mask') {
            own.mask = new Tensor('f32', gaussian(queries * keys, 9), [1, queries, keys]);
          }
          const expected = decodeAttention(q, [segment], { ...own, compute: 'i8', isa: 'scalar' });
          const actual = decodeAttention(q, [segment], { ...own, compute: 'i8', isa: 'avx512' });
          if (hasAmx) {
            const amx = decodeAttention(q, [segment], { ...own, compute: 'i8', isa: 'amx' });
            expect(firstDifference(amx.bytes, actual.bytes)).toBe(-1);
          }
          // One step of a weight, which many keys average out and few (slopes leave few) do not.
          const step = 1 / 255;
          const few = keys < 32 || extras === 'slopes';
          expect(worst(actual.data, expected.data, 5 * step, 0)).toBeLessThanOrEqual(1);
          expect(relativeError(actual.data, expected.data)).toBeLessThan(few ? step : 1e-3);
        },
      ),
      { numRuns: 60 },
    );
  });

  it('changes no bit with threads, other sequences or shared pages', () => {
    const shape = { ...usual, keys: 1300 };
    for (const [keys, values] of [
      ['i8', 'i8'],
      ['i4', 'i4'],
      ['i8', 'i2'],
    ] as const) {
      const one = segmentOf(shape, keys, values);
      const q = queriesOf({ ...shape, queries: 3 });
      const expected = decodeAttention(q, [one], { compute: 'i8', threads: 1 });
      for (const threads of [2, 3, 7]) {
        const actual = decodeAttention(q, [one], { compute: 'i8', threads });
        expect(firstDifference(actual.bytes, expected.bytes)).toBe(-1);
      }
      // Three sequences of one query each, two of them shorter, with the same pages.
      const table = Array.from(one.blockTable.data);
      const several: KVSegment = {
        pages: one.pages,
        blockTable: i32([...table, ...table, ...table], [3, table.length]),
        lengths: i32([1300, 1298, 1111]),
      };
      const together = decodeAttention(q, [several], { compute: 'i8' });
      for (const [i, length] of [1300, 1298, 1111].entries()) {
        const size = shape.heads * shape.keyDim;
        const row = new Tensor('f32', q.data.slice(i * size, (i + 1) * size), [1, 8, 128]);
        const alone = decodeAttention(row, [{ ...one, lengths: i32([length]) }], { compute: 'i8' });
        const out = together.data.slice(i * size, (i + 1) * size);
        expect(firstDifference(out, alone.data)).toBe(-1);
      }
    }
  });

  it.each(pairs)(
    'changes no bit with sequences that share pages, 20 at once: %s, %s',
    (keys, values) => {
      const shape = { ...usual, keys: 1100, keyDim: 80, valueDim: 112 };
      const one = segmentOf(shape, keys, values);
      const table = Array.from(one.blockTable.data);
      const lengths = Array.from({ length: 20 }, (_, i) => 1100 - i);
      const several: KVSegment = {
        pages: one.pages,
        blockTable: i32(Array(20).fill(table).flat(), [20, table.length]),
        lengths: i32(lengths),
      };
      const q = queriesOf({ ...shape, queries: 20 });
      for (const isa of isas) {
        const together = decodeAttention(q, [several], { compute: 'i8', isa }).data;
        for (const i of [0, 7, 19]) {
          const row = new Tensor('f32', q.data.slice(i * 640, (i + 1) * 640), [1, 8, 80]);
          const own = { ...one, lengths: i32([1100 - i]) };
          const alone = decodeAttention(row, [own], { compute: 'i8', isa }).data;
          expect(firstDifference(together.slice(i * 896, (i + 1) * 896), alone)).toBe(-1);
        }
      }
    },
  );

  it.each(integers)(
    'changes no bit with the page size where scales are of tokens: i8, %s',
    (values) => {
      const q = queriesOf(usual);
      for (const isa of isas) {
        const results = [16, 8, 24, 40, 48, 64, 256].map(
          (pageSize) =>
            decodeAttention(q, [segmentOf({ ...usual, pageSize }, 'i8', values)], {
              compute: 'i8',
              isa,
            }).bytes,
        );
        for (const bytes of results) {
          expect(firstDifference(bytes, results[0] as Uint8Array)).toBe(-1);
        }
      }
    },
  );

  it.each(pairs)('keeps what is not seen out, NaN or not: %s, %s', (keys, values) => {
    const shape = { ...usual, keys: 150, queries: 2, pageSize: 16 };
    const q = queriesOf(shape);
    const spoil = (from: number, to: number) => (k: Float32Array, v: Float32Array) => {
      k.fill(Number.NaN, from * 2 * 128, to * 2 * 128);
      v.fill(Number.NaN, from * 2 * 128, to * 2 * 128);
    };
    for (const isa of isas) {
      const options: DecodeAttentionOptions = { compute: 'i8', isa, window: 40 };
      const clean = decodeAttention(q, [segmentOf(shape, keys, values)], options);
      // Keys 0 to 108 are before the first query's window, key 109 before that of the second alone.
      const spoiled = decodeAttention(q, [segmentOf(shape, keys, values, spoil(0, 80))], options);
      expect(firstDifference(spoiled.bytes, clean.bytes)).toBe(-1);
      const last = decodeAttention(
        q,
        [segmentOf(shape, keys, values, (_, v) => v.fill(Number.NaN, 149 * 256, 150 * 256))],
        options,
      );
      const row = 8 * 128;
      expect(firstDifference(last.data.slice(0, row), clean.data.slice(0, row))).toBe(-1);
      expect(last.data.slice(row).every(Number.isNaN)).toBe(true);
    }
  });

  it('is NaN where a query is', () => {
    const q = queriesOf(usual);
    q.data[3 * 128 + 5] = Number.NaN;
    for (const isa of isas) {
      const out = decodeAttention(q, [segmentOf(usual, 'i4', 'i8')], { compute: 'i8', isa }).data;
      expect(out.slice(3 * 128, 4 * 128).every(Number.isNaN)).toBe(true);
      expect(out.slice(0, 3 * 128).some(Number.isNaN)).toBe(false);
    }
  });

  it('takes the newest tokens in f16 beside', () => {
    const q = queriesOf(usual);
    const old = segmentOf({ ...usual, keys: 640 }, 'i4', 'i4');
    const recent = segmentOf({ ...usual, keys: 60 }, 'f16', 'f16');
    const expected = decodeAttention(q, [old, recent], { isa: 'scalar' }).data;
    for (const isa of isas) {
      const lse = new Tensor('f32', new Float32Array(8), [1, 8]);
      const actual = decodeAttention(q, [old, recent], { compute: 'i8', isa, lse }).data;
      expect(relativeError(actual, expected)).toBeLessThan(0.016);
      expect(lse.data.every(Number.isFinite)).toBe(true);
    }
  });
});

describe('decodeAttention over f16', () => {
  it('matches the specification in f32', () => {
    fc.assert(
      fc.property(
        fc.record({
          // Fewer than 32 rows: more are a prompt, whose steps are others.
          queries: fc.integer({ min: 1, max: 6 }),
          keys: fc.integer({ min: 1, max: 700 }),
          kvHeads: fc.integer({ min: 1, max: 2 }),
          group: fc.integer({ min: 1, max: 5 }),
          keyDim: fc.constantFrom(1, 16, 33, 80, 128),
          valueDim: fc.constantFrom(1, 17, 48, 64, 128),
          pageSize: fc.constantFrom(8, 16, 24, 48, 64),
          window: fc.constantFrom(0, 70),
          isa: fc.constantFrom(...isas),
        }),
        ({ group, window, isa, ...rest }) => {
          const shape = { ...rest, heads: rest.kvHeads * group };
          const segment = segmentOf(shape, 'f16', 'f16');
          const q = queriesOf(shape);
          const expected = decodeAttention(q, [segment], { window, isa: 'scalar' }).data;
          const actual = decodeAttention(q, [segment], { window, isa }).data;
          expect(
            worst(actual, expected, 5 * (16 + shape.keyDim / 2) * 2 ** -23, 0),
          ).toBeLessThanOrEqual(1);
        },
      ),
      { numRuns: 40 },
    );
  });

  it('lets no value in that a row does not see', () => {
    const shape = { ...usual, keys: 150, queries: 2, pageSize: 16 };
    const q = queriesOf(shape);
    for (const isa of isas) {
      const clean = decodeAttention(q, [segmentOf(shape, 'f16', 'f16')], { isa });
      const last = decodeAttention(
        q,
        [
          segmentOf(shape, 'f16', 'f16', (_, v) => {
            v.fill(Number.POSITIVE_INFINITY, 149 * 256, 150 * 256);
          }),
        ],
        { isa },
      );
      expect(firstDifference(last.data.slice(0, 1024), clean.data.slice(0, 1024))).toBe(-1);
      expect(last.data.slice(1024).some(Number.isFinite)).toBe(false);
    }
  });
});
