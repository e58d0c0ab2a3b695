// Random operations on BlockPool beside a plain model of it (pool_model.ts).
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { BlockPoolOptions } from '../../../lib/nn/paged/block_pool.js';
import type { PagedSequence } from '../../../lib/nn/paged/paged_sequence.js';
import { PoolModel } from './pool_model.js';

const kinds = [
  'create',
  'append',
  'append',
  'append',
  'fork',
  'trim',
  'remove',
  'removeWhole',
  'free',
  'register',
  'match',
  'registerChunk',
  'appendChunk',
  'swapOut',
  'swapIn',
] as const;

/** An operation: its kind, which sequence it is about, and numbers to make arguments of. */
const operation = fc.record({
  kind: fc.constantFrom(...kinds),
  which: fc.nat(1000),
  a: fc.nat(1000),
  b: fc.nat(1000),
});
type Operation = typeof operation extends fc.Arbitrary<infer T> ? T : never;

// Texts begin alike often: the ids depend on the place, and on one of two topics.
const text = (topic: number, begin: number, count: number): number[] =>
  Array.from({ length: count }, (_, i) => ((begin + i) * 7 + (topic % 2) * 31) % 97);

function apply(model: PoolModel, { kind, which, a, b }: Operation): unknown {
  const all = [...model.entries.keys()];
  const sequence = all[which % Math.max(all.length, 1)];
  const { pageSize } = model.pool;
  if (kind === 'create') {
    if (all.length < 12) model.create();
    return;
  }
  if (kind === 'match') {
    if (all.length < 12) model.match(text(a, 0, b % (6 * pageSize)));
    return;
  }
  if (sequence === undefined) return;
  if (kind === 'free') return model.free(sequence);
  if (kind === 'swapIn' && sequence.swapped) return model.swapIn(sequence);
  if (sequence.swapped || kind === 'swapIn') return;
  const { length } = sequence;
  const begin = a % (length + 1);
  const end = begin + (b % (length - begin + 1));
  switch (kind) {
    case 'append':
      return model.append(sequence, text(a, length, b % (2 * pageSize + 2)));
    case 'fork':
      return all.length < 12 ? model.fork(sequence) : undefined;
    case 'trim':
      return model.trim(sequence, begin);
    case 'remove':
      return model.removeRange(sequence, begin, end, false);
    case 'removeWhole': {
      // Of a sequence of whole pages, some.
      if (length % pageSize !== 0) model.trim(sequence, length - (length % pageSize));
      const from = Math.min(begin, sequence.length);
      const pages = Math.floor((sequence.length - from) / pageSize);
      const count = (b % (pages + 1)) * pageSize;
      const rest = sequence.length - from - count;
      // A cut through the last page would leave a part of one.
      if (rest > 0) model.removeRange(sequence, from, from + count, true);
      return;
    }
    case 'register':
      return model.register(sequence);
    case 'registerChunk':
      return model.registerChunk(sequence, begin - (begin % pageSize));
    case 'appendChunk': {
      if (length % pageSize !== 0) return;
      model.appendChunk(sequence, text(a, (b % 3) * pageSize, 3 * pageSize));
      return;
    }
    case 'swapOut':
      return model.swapOut(sequence);
  }
}

function runAll(model: PoolModel, operations: readonly Operation[]): void {
  for (const one of operations) {
    try {
      apply(model, one);
    } catch (error) {
      // Nothing has changed then.
      if ((error as { code?: string }).code !== 'BL_OUT_OF_MEMORY') throw error;
    }
    model.check();
  }
  model.finish();
}

const operations = fc.array(operation, { minLength: 1, maxLength: 120, size: 'max' });
const sizes = fc.record({
  numPages: fc.integer({ min: 1, max: 60 }),
  pageSize: fc.constantFrom(1, 2, 4, 5, 8),
});

describe('BlockPool, beside a plain model', () => {
  it('every sequence reads back its tokens after any operation; no page is lost', () => {
    fc.assert(
      fc.property(sizes, operations, (options, list) => runAll(new PoolModel(options), list)),
      { numRuns: 150 },
    );
  });

  it('the same where all hashes collide', () => {
    const hash = (): number => 12345;
    fc.assert(
      fc.property(sizes, operations, (options, list) =>
        runAll(new PoolModel({ ...options, hash }), list),
      ),
      { numRuns: 50 },
    );
  });

  it('the same with an eviction policy that frees, trims and swaps', () => {
    fc.assert(
      fc.property(sizes, operations, fc.infiniteStream(fc.nat(1000)), (size, list, draws) => {
        const options: BlockPoolOptions = { ...size, evict: () => evict() };
        const model = new PoolModel(options);
        const evict = (): void => {
          const draw = draws.next().value as number;
          const all = [...model.entries.keys()].filter((one) => !one.swapped);
          const victim = all[draw % Math.max(all.length, 1)] as PagedSequence | undefined;
          if (victim === undefined) return;
          if (draw % 3 === 0) model.trim(victim, Math.floor(victim.length / 2));
          else if (draw % 3 === 1) model.swapOut(victim);
          else model.free(victim);
        };
        for (const one of list) {
          try {
            apply(model, one);
          } catch (error) {
            // The policy may hit the very sequence that needs pages.
            const { code } = error as { code?: string };
            const expected = [
              'BL_OUT_OF_MEMORY',
              'BL_DETACHED',
              'BL_INVALID_ARGUMENT',
              'BL_OUT_OF_RANGE',
            ];
            if (!expected.includes(code ?? '')) throw error;
          }
          model.check();
        }
        model.finish();
      }),
      { numRuns: 80 },
    );
  });

  it('10,000 sequences: no loss above one page each', () => {
    const pageSize = 16;
    const model = new PoolModel({ numPages: 40_000, pageSize });
    let state = 1;
    const draw = (count: number): number => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return Math.floor((state / 2 ** 32) * count);
    };
    const all: PagedSequence[] = [];
    for (let i = 0; i < 10_000; i++) {
      const parent = all[draw(all.length)];
      if (parent !== undefined && draw(2) === 0) model.fork(parent);
      else model.create();
      all.push([...model.entries.keys()].at(-1) as PagedSequence);
      const one = all[draw(all.length)] as PagedSequence;
      model.append(one, text(i, one.length, draw(40)));
      if (i % 5 === 0) {
        const at = draw(all.length);
        model.free(all[at] as PagedSequence);
        all[at] = all.at(-1) as PagedSequence;
        all.pop();
      }
    }
    model.check();
    const needed = [...model.entries.values()].reduce((sum, { tokens }) => sum + tokens.length, 0);
    const { used, sequences } = model.pool.stats;
    expect(sequences).toBe(all.length);
    // Tokens of each page, shared ones once.
    const held = new Map<number, number>();
    for (const sequence of all) {
      for (const [i, page] of sequence.blockTable().entries()) {
        const tokens = Math.min(pageSize, sequence.length - i * pageSize);
        held.set(page, Math.max(held.get(page) ?? 0, tokens));
      }
    }
    expect(held.size).toBe(used);
    const lost = [...held.values()].filter((tokens) => tokens < pageSize);
    expect(lost.length).toBeGreaterThan(0);
    expect(lost.length).toBeLessThanOrEqual(sequences);
    expect(Math.min(...held.values())).toBeGreaterThan(0);
    // Shared tokens count once: less is used than all tokens would fill.
    expect(used * pageSize).toBeLessThan(needed);
    model.finish();
  });
});
