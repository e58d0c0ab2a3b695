// decodeAttention against attention on the keys and values that kvGather reads from the pages.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  type AttentionOptions,
  attention,
  type DecodeAttentionOptions,
  decodeAttention,
  decodeAttentionAsync,
  type FloatDType,
  type Isa,
  type KVSegment,
  kvAppend,
  Tensor,
} from '../../lib/index.js';
import { expectFormula, offsets } from '../reference/attention_cases.js';
import { isas, worst } from '../reference/op_checks.js';
import {
  firstChannels,
  headsOf,
  kvFormatNames,
  paged,
  queriesOf,
  stacked,
} from '../reference/paged_attention.js';
import { firstDifference, gaussian } from '../reference/random.js';

/** Output, lse and probabilities. */
function decode(
  q: Tensor<FloatDType>,
  segments: readonly KVSegment[],
  keys: number,
  options: DecodeAttentionOptions = {},
) {
  const [queries, heads] = q.shape as [number, number];
  const lse = Tensor.zeros('f32', [queries, heads]);
  const probabilities = Tensor.zeros('f32', [heads, queries, keys]);
  const output = decodeAttention(q, segments, { ...options, lse, probabilities });
  return { output, lse, probabilities };
}

function attend(
  q: Tensor<FloatDType>,
  { k, v }: { k: Tensor<'f32'>; v: Tensor<'f32'> },
  options: AttentionOptions = {},
) {
  const [queries, heads] = q.shape as [number, number];
  const lse = Tensor.zeros('f32', [queries, heads]);
  const probabilities = Tensor.zeros('f32', [heads, queries, k.shape[0] as number]);
  const output = attention(q, k, v, { causal: true, threads: 1, ...options, lse, probabilities });
  return { output, lse, probabilities };
}

const rowsOf = (x: Tensor<FloatDType>, begin: number, end: number): number[] =>
  x.slice(begin, end).toArray();

/** Whether pages are multiplied as they stand, two channels or tokens of 16 bits beside each other: another order of sums. */
const sumsInPairs = (isa: Isa, keys: string, values: string): boolean =>
  ['f16', 'bf16'].includes(keys) &&
  ['f16', 'bf16'].includes(values) &&
  isa !== 'scalar' &&
  isa !== 'avx2' &&
  process.arch === 'x64';

/** Where `attention` takes keys as they lie, whose sums then have another order than those of pages. */
const takesRows = (isa: Isa, rows: number, keyDim: number, valueDim: number): boolean =>
  sumsInPairs(isa, 'f16', 'f16') && rows <= 8 && keyDim % 16 === 0 && valueDim % 16 === 0;

describe('decodeAttention', () => {
  it.each(kvFormatNames)('gives the bits of attention on what the pages hold, %s', (format) => {
    fc.assert(
      fc.property(
        fc.record({
          pageSize: fc.constantFrom(8, 16, 24, 32, 48, 64, 256),
          lengths: fc.array(fc.constantFrom(0, 1, 15, 16, 17, 65, 200, 513), {
            minLength: 1,
            maxLength: 3,
          }),
          counts: fc.array(fc.constantFrom(0, 1, 1, 2, 5), { minLength: 3, maxLength: 3 }),
          kvHeads: fc.integer({ min: 1, max: 2 }),
          group: fc.constantFrom(1, 2, 4),
          keyDim: fc.constantFrom(1, 8, 20, 64),
          valueDim: fc.constantFrom(1, 8, 33, 64),
          isa: fc.constantFrom(...isas),
          seed: fc.integer({ min: 1, max: 1000 }),
        }),
        ({ pageSize, lengths, counts, kvHeads, group, keyDim, valueDim, isa, seed }) => {
          const valueFormat = kvFormatNames[seed % kvFormatNames.length];
          const cache = paged({
            keyFormat: format,
            ...(valueFormat === undefined ? {} : { valueFormat }),
            pageSize,
            lengths,
            kvHeads,
            keyDim,
            valueDim,
            seed,
          });
          const own = counts.slice(0, lengths.length);
          const q = queriesOf('f32', own, kvHeads * group, keyDim, seed);
          const cuQueries = offsets(own);
          const all = decodeAttention(q, [cache.segment], { cuQueries, isa, threads: 1 });
          const begins = cuQueries.toArray();
          own.forEach((_, i) => {
            const [begin, end] = begins.slice(i, i + 2) as [number, number];
            const part = q.slice(begin, end);
            const tokens = cache.tokens(i);
            const expected = attend(part, tokens, { isa });
            const actual = rowsOf(all, begin, end);
            if (
              sumsInPairs(isa, format, valueFormat ?? format) ||
              takesRows(isa, (end - begin) * group, keyDim, valueDim)
            ) {
              expect(worst(actual, expected.output.data, 2e-5, 0)).toBeLessThanOrEqual(1);
            } else {
              expect(actual).toEqual(expected.output.toArray());
            }
            expectFormula(isa, { q: part, ...tokens }, { causal: true }, expected);
          });
        },
      ),
      { numRuns: 12 },
    );
  });

  it('takes every option of attention, and gives lse and probabilities', () => {
    const plan = { kvHeads: 2, keyDim: 32, valueDim: 16, pageSize: 32, lengths: [600] };
    const cache = paged({ ...plan, keyFormat: 'i8', valueFormat: 'f16' });
    const q = queriesOf('bf16', [3], 6, 32);
    const vector = (values: number[]) => new Tensor('f32', values, [6]);
    const counts = (values: number[]) => new Tensor('i32', values, [6]);
    const mask = new Tensor('u8', [1, 0, 0, 1, 1, 0, 1, 0, 1], [1, 3, 3]);
    const cases: DecodeAttentionOptions[] = [
      {},
      { causal: false, scale: 0.3 },
      { window: 100, sinkTokens: 4 },
      { windows: counts([0, 1, 64, 65, 600, 10]), sinkCounts: counts([0, 3, 0, 64, 1, 500]) },
      { softCap: 3, slopes: vector([0.5, 0.25, 0.1, 0, 1, 0.01]) },
      { sinks: vector([-1, 0, 1, 2, 3, 20]) },
      { causal: false, mask },
      { mask: new Tensor('f32', gaussian(6 * 3 * 40, 3), [6, 3, 40]) },
      { prefix: 600, window: 5 },
      { causalBlock: 8 },
    ];
    for (const isa of isas) {
      for (const options of cases) {
        const actual = decode(q, [cache.segment], 600, { ...options, isa });
        const expected = attend(q, cache.tokens(0), { ...options, isa });
        for (const name of ['output', 'lse', 'probabilities'] as const) {
          expect([name, firstDifference(actual[name].bytes, expected[name].bytes)]).toEqual([
            name,
            -1,
          ]);
        }
      }
    }
  });

  it('gives the same bits for any page size and order of pages', () => {
    for (const format of ['f32', 'f16', 'bf16', 'f8e4m3', 'i8', 'bfp4'] as const) {
      const plan = { keyFormat: format, kvHeads: 2, keyDim: 24, valueDim: 40, lengths: [1100, 70] };
      const q = queriesOf('f32', [2, 2], 8, 24);
      for (const isa of isas.filter((level) => level !== 'scalar')) {
        const results = [8, 16, 24, 40, 64, 128, 256].map((pageSize) =>
          decodeAttention(q, [paged({ ...plan, pageSize }).segment], { isa, threads: 1 }),
        );
        for (const result of results) {
          expect(firstDifference(result.bytes, (results[0] as Tensor).bytes)).toBe(-1);
        }
      }
    }
  });

  it('gives the same bits on any number of threads, beside others or alone, and on a worker', async () => {
    const lengths = [1, 1500, 40, 513, 1024];
    const plan = {
      keyFormat: 'i4',
      valueFormat: 'i8',
      kvHeads: 2,
      keyDim: 32,
      valueDim: 32,
    } as const;
    const cache = paged({ ...plan, lengths, pageSize: 16 });
    const { pages, blockTable } = cache.segment;
    const q = queriesOf('f16', [2, 2, 2, 2, 2], 8, 32);
    for (const isa of isas) {
      const expected = decodeAttention(q, [cache.segment], { isa, threads: 1 });
      for (const threads of [2, 3, 7]) {
        const actual = decodeAttention(q, [cache.segment], { isa, threads });
        expect(firstDifference(actual.bytes, expected.bytes)).toBe(-1);
      }
      const async = await decodeAttentionAsync(q, [cache.segment], { isa });
      expect(firstDifference(async.bytes, expected.bytes)).toBe(-1);
      lengths.forEach((length, i) => {
        const own = {
          pages,
          blockTable: blockTable.slice(i, i + 1),
          lengths: new Tensor('i32', [length], [1]),
        };
        const alone = decodeAttention(q.slice(2 * i, 2 * i + 2), [own], { isa, threads: 1 });
        expect(alone.toArray()).toEqual(rowsOf(expected, 2 * i, 2 * i + 2));
      });
    }
  });

  it('gives the same bits where sequences share pages from their beginning', () => {
    for (const [pageSize, prefix] of [
      [64, 1024],
      [256, 512],
      [48, 1104],
    ] as const) {
      // Sequence i is `prefix` tokens that all share, then `tails[i]` of its own.
      const tails = [50, 0, 600, 1];
      const shared = paged({
        keyFormat: 'i8',
        valueFormat: 'bf16',
        pageSize,
        lengths: [prefix, ...tails.map((tail) => Math.max(tail, 1))],
        kvHeads: 2,
        keyDim: 32,
        valueDim: 48,
      });
      const { pages, blockTable } = shared.segment;
      const rows = blockTable.toArray();
      const width = blockTable.shape[1] as number;
      const first = rows.slice(0, prefix / pageSize);
      const most = first.length + width;
      const table = tails.flatMap((_, i) => {
        const own = rows.slice((i + 1) * width, (i + 2) * width);
        return [...first, ...own, ...new Array(most - first.length - own.length).fill(0)];
      });
      const lengths = tails.map((tail) => prefix + tail);
      for (const counts of [
        [1, 1, 1, 1],
        [2, 2, 0, 2],
      ]) {
        const q = queriesOf('f32', counts, 4, 32);
        const cuQueries = offsets(counts);
        const segment = {
          pages,
          blockTable: new Tensor('i32', table, [4, most]),
          lengths: new Tensor('i32', lengths, [4]),
        };
        // The scalar kernel does not share what it reads.
        for (const isa of isas.filter((level) => level !== 'scalar')) {
          const all = [1, 7].map((threads) =>
            decodeAttention(q, [segment], { cuQueries, isa, threads }),
          );
          for (const one of all) {
            expect(firstDifference(one.bytes, (all[0] as Tensor).bytes)).toBe(-1);
          }
          const begins = cuQueries.toArray();
          lengths.forEach((_, i) => {
            const [begin, end] = begins.slice(i, i + 2) as [number, number];
            const own = shared.tokens(i + 1);
            const base = shared.tokens(0);
            const tail = tails[i] as number;
            const k = stacked(base.k, own.k.slice(0, tail));
            const v = stacked(base.v, own.v.slice(0, tail));
            const expected = attention(q.slice(begin, end), k, v, {
              causal: true,
              isa,
              threads: 1,
            });
            const actual = rowsOf(all[0] as Tensor<'f32'>, begin, end);
            expect(worst(actual, expected.data, 2e-5, 0)).toBeLessThanOrEqual(1);
            if (!takesRows(isa, 2 * (end - begin), 32, 48))
              expect(actual).toEqual(expected.toArray());
            const alone = {
              pages,
              blockTable: segment.blockTable.slice(i, i + 1),
              lengths: segment.lengths.slice(i, i + 1),
            };
            const single = decodeAttention(q.slice(begin, end), [alone], { isa, threads: 1 });
            expect(actual).toEqual(single.toArray());
          });
        }
      }
    }
  });

  it('takes keys in two segments, the newest in full precision', () => {
    for (const [old, recent] of [
      [
        [512, 1024],
        [40, 3],
      ],
      [
        [130, 0],
        [17, 600],
      ],
      [
        [600, 5],
        [0, 1],
      ],
    ] as [number[], number[]][]) {
      const plan = { kvHeads: 2, keyDim: 32, valueDim: 32 };
      const first = paged({ ...plan, keyFormat: 'i2', pageSize: 32, lengths: old });
      const second = paged({ ...plan, keyFormat: 'f16', pageSize: 16, lengths: recent, seed: 77 });
      const q = queriesOf('f32', [2, 1], 4, 32);
      const cuQueries = offsets([2, 1]);
      const options = { cuQueries, window: 300, sinkTokens: 2 };
      const most = Math.max(...old.map((length, i) => length + (recent[i] as number)));
      for (const isa of isas) {
        const all = decode(q, [first.segment, second.segment], most, { ...options, isa });
        for (const threads of [2, 7]) {
          const again = decode(q, [first.segment, second.segment], most, {
            ...options,
            isa,
            threads,
          });
          expect(firstDifference(again.output.bytes, all.output.bytes)).toBe(-1);
        }
        for (const [i, begin, end] of [
          [0, 0, 2],
          [1, 2, 3],
        ] as const) {
          const [a, b] = [first.tokens(i), second.tokens(i)];
          const inputs = { q: q.slice(begin, end), k: stacked(a.k, b.k), v: stacked(a.v, b.v) };
          const own = { causal: true, window: 300, sinkTokens: 2 };
          const expected = attend(inputs.q, inputs, { ...own, isa });
          const actual = rowsOf(all.output, begin, end);
          // Chunks are counted from the beginning of a segment: where that makes no difference, the same bits.
          const sameChunks = (old[i] as number) % 512 === 0 && !sumsInPairs(isa, 'f16', 'f16');
          if (sameChunks || isa === 'scalar') {
            expect(actual).toEqual(expected.output.toArray());
          }
          expect(worst(actual, expected.output.data, 2e-5, 0)).toBeLessThanOrEqual(1);
        }
      }
    }
  });

  it('takes a table and a length for each head', () => {
    const lengths = [
      [40, 600, 1],
      [0, 17, 1030],
    ];
    const plan = {
      keyFormat: 'bfp8',
      pageSize: 16,
      lengths,
      kvHeads: 3,
      keyDim: 16,
      valueDim: 24,
    } as const;
    const cache = paged(plan);
    const q = queriesOf('f32', [2, 2], 6, 16);
    for (const isa of isas) {
      const all = decode(q, [cache.segment], 1030, { isa, window: 500 });
      lengths.forEach((own, sequence) => {
        own.forEach((length, g) => {
          const part = headsOf(q.slice(2 * sequence, 2 * sequence + 2), 2 * g, 2 * g + 2);
          const expected = attend(part, cache.tokens(sequence, g), { isa, window: 500 });
          const rows = all.output.slice(2 * sequence, 2 * sequence + 2);
          expect(headsOf(rows, 2 * g, 2 * g + 2).toArray()).toEqual(expected.output.toArray());
          // [heads, queries, keys]: 0 beyond a head's own keys.
          for (let h = 2 * g; h < 2 * g + 2; h++) {
            for (let t = 0; t < 2; t++) {
              const at = (h * 4 + 2 * sequence + t) * 1030;
              const weights = all.probabilities.data.slice(at, at + 1030);
              const want = ((h - 2 * g) * 2 + t) * length;
              expect([...weights.slice(0, length)]).toEqual([
                ...expected.probabilities.data.slice(want, want + length),
              ]);
              expect(weights.slice(length).every((x) => x === 0)).toBe(true);
            }
          }
        });
      });
    }
  });

  it('takes values from the first channels of keys: multi-head latent attention', () => {
    for (const [keyFormat, keyDim, valueDim, pageSize] of [
      ['f32', 48, 32, 16],
      ['bf16', 576, 512, 64],
      ['i8', 40, 7, 32],
      ['i4', 36, 36, 24],
      ['f16', 20, 9, 8],
    ] as const) {
      const cache = paged({
        keyFormat,
        keyDim,
        valueDim: 0,
        pageSize,
        kvHeads: 1,
        lengths: [530, 33],
      });
      const q = queriesOf('f32', [1, 1], 16, keyDim);
      for (const isa of isas) {
        const all = decodeAttention(q, [cache.segment], { isa, valueDim });
        expect(all.shape).toEqual([2, 16, valueDim]);
        for (const i of [0, 1]) {
          const { k } = cache.tokens(i);
          const expected = attend(q.slice(i, i + 1), { k, v: firstChannels(k, valueDim) }, { isa });
          expect(rowsOf(all, i, i + 1)).toEqual(expected.output.toArray());
        }
        if (valueDim === keyDim) {
          expect(
            firstDifference(decodeAttention(q, [cache.segment], { isa }).bytes, all.bytes),
          ).toBe(-1);
        }
      }
    }
  });

  it('never reads tokens beyond a length, nor pages that no sequence has', () => {
    for (const format of ['f32', 'bf16', 'i8', 'bfp8', 'f8e4m3'] as const) {
      const cache = paged({
        keyFormat: format,
        pageSize: 32,
        lengths: [70],
        kvHeads: 1,
        keyDim: 16,
        valueDim: 16,
      });
      const { pages, blockTable } = cache.segment;
      const q = queriesOf('f32', [2], 4, 16);
      const expected = isas.map((isa) => decodeAttention(q, [cache.segment], { isa }));
      const taken = blockTable.toArray().slice(0, 3);
      const bytes = (x: Tensor<'u8'> | undefined) => (x as Tensor<'u8'>).data;
      for (const data of [bytes(pages.keys), bytes(pages.values)]) {
        const size = data.length / pages.numPages;
        for (let page = 0; page < pages.numPages; page++) {
          // 0xff is NaN in every float format and in scales.
          if (!taken.includes(page)) data.fill(255, page * size, (page + 1) * size);
        }
      }
      // And NaN tokens after the 70th, in the last page.
      const last = (taken[2] as number) * 32;
      const slots = Array.from({ length: 26 }, (_, i) => last + 6 + i);
      const nan = new Tensor('f32', new Float32Array(26 * 16).fill(Number.NaN), [26, 1, 16]);
      kvAppend(nan, nan, new Tensor('i32', slots, [26]), pages);
      isas.forEach((isa, i) => {
        const actual = decodeAttention(q, [cache.segment], { isa });
        expect(firstDifference(actual.bytes, (expected[i] as Tensor).bytes)).toBe(-1);
      });
    }
  });
});
