import { describe, expect, it } from 'vitest';
import { type MoEExpert, moeForward } from '../../../lib/index.js';
import { ExpertCache } from '../../../lib/nn/index.js';
import { expertsOf, f32, routesOf } from '../../moe/cases.js';
import { expectError } from '../../reference/op_checks.js';
import { firstDifference, gaussian } from '../../reference/random.js';

const own = { tokens: 9, hidden: 64, width: 64, count: 6, topK: 2, seed: 4 };
/** All of one size: those of cases.ts have widths of their own. */
function stored(): MoEExpert[] {
  const list = expertsOf(own, () => 'q4_0', { packed: false });
  return list.map((_, e) => list[e - (e % 2)] as MoEExpert);
}
const bytes = 3 * 64 * 64 * (18 / 32);
const layouts = (cache: ExpertCache) =>
  cache.experts.experts.map(({ up }) => up.layout[0]).join('');

describe('ExpertCache', () => {
  const x = f32(gaussian(own.tokens * own.hidden, 5), [own.tokens, own.hidden]);
  const routes = routesOf(own);

  it('keeps the most recently used within its memory, and results the same', async () => {
    const cache = new ExpertCache(stored(), { bytes: 3 * bytes });
    const expected = moeForward(x, routes, cache.experts);
    const steps: [number[], string][] = [
      [[0, 1], 'llcccc'],
      [[2, -1, 2], 'lllccc'],
      [[3], 'clllcc'],
    ];
    for (const [wanted, now] of steps) {
      await cache.prefetch(wanted);
      expect(layouts(cache)).toBe(now);
      expect(firstDifference(moeForward(x, routes, cache.experts).data, expected.data)).toBe(-1);
    }
    cache.note([1, 1, -1, 5]);
    await cache.prefetch([4]); // 1 was used just now, so 2 goes
    expect(layouts(cache)).toBe('clclLc'.toLowerCase());
    expect(cache.stats).toEqual({
      ...{ hits: 1, misses: 1, loaded: 5, evicted: 2, resident: 3 },
      bytes: 3 * bytes,
    });
    // More than fit beside each other: the first of them.
    await cache.prefetch([0, 1, 2, 3, 4, 5]);
    expect(cache.stats.resident).toBeLessThanOrEqual(3);
    expect(firstDifference(moeForward(x, routes, cache.experts).data, expected.data)).toBe(-1);
    cache.dispose();
    expect(cache.stats).toMatchObject({ resident: 0, bytes: 0 });
    await cache.prefetch([0]);
    expect(cache.stats.resident).toBe(0);
    // Neither does a prefetch that was running keep anything.
    const other = new ExpertCache(stored(), { bytes: 3 * bytes });
    const running = other.prefetch([0, 1]);
    await Promise.resolve();
    other.dispose();
    await running;
    expect(other.stats).toMatchObject({ resident: 0, bytes: 0 });
  });

  it('copies experts that are packed already, so that theirs stay', async () => {
    const packed = expertsOf({ ...own, count: 2 }, () => 'q8_0');
    const cache = new ExpertCache(packed, { bytes: 1e6 });
    await cache.prefetch([0, 1]);
    cache.dispose();
    expect(packed.every(({ up, down }) => !up.disposed && !down.disposed)).toBe(true);
  });

  it('holds nothing without memory, and refuses what is no expert', async () => {
    const cache = new ExpertCache(stored(), { bytes: 0 });
    await cache.prefetch([0, 1, 2]);
    expect(cache.stats.resident).toBe(0);
    await expect(cache.prefetch([6])).rejects.toThrow(
      'ExpertCache: indices has 6, expected -1 to 5',
    );
    expectError(
      () => new ExpertCache([], { bytes: -1 }),
      'BL_OUT_OF_RANGE',
      'ExpertCache: bytes is -1, expected at least 0',
    );
    expectError(
      () => new ExpertCache([], undefined as never),
      'BL_INVALID_ARGUMENT',
      'ExpertCache: options is undefined, expected an object',
    );
    await expect(cache.prefetch(['length'] as never)).rejects.toThrow(
      'ExpertCache: indices has "length", expected -1 to 5',
    );
  });

  it('runs prefetches one after the other, beside calls', async () => {
    const cache = new ExpertCache(stored(), { bytes: 2 * bytes });
    const expected = moeForward(x, routes, cache.experts);
    const all: Promise<void>[] = [];
    for (let i = 0; i < 20; i++) {
      all.push(cache.prefetch([i % 6, (i + 1) % 6]));
      const y = moeForward(x, routes, cache.experts);
      expect(firstDifference(y.data, expected.data)).toBe(-1);
      await Promise.resolve();
    }
    await Promise.all(all);
    expect(cache.stats.bytes).toBe(2 * bytes);
  });
});
