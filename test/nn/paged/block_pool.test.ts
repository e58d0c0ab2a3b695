// BlockPool: what single operations do, misuse, and the index of cached pages.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { BlockPool, type ChunkMatch } from '../../../lib/nn/index.js';
import { PageIndex, prefixRoot } from '../../../lib/nn/paged/page_index.js';

const ids = (count: number, first = 0): number[] =>
  Array.from({ length: count }, (_, i) => first + i);
const pool = (numPages = 8, pageSize = 4) => new BlockPool({ numPages, pageSize });
const failure = (code: string, message: RegExp | string = /./) =>
  expect.objectContaining({ code, message: expect.stringMatching(message) });
/** What it throws. */
function thrown(body: () => unknown): unknown {
  try {
    body();
  } catch (error) {
    return error;
  }
  return undefined;
}

describe('BlockPool', () => {
  it('a fork shares all pages; the first to write copies the last one', () => {
    const blocks = pool();
    const a = blocks.create();
    expect([...a.append(6).slots]).toEqual([0, 1, 2, 3, 4, 5]);
    const b = a.fork();
    expect(blocks.stats).toMatchObject({ used: 2, references: 4, sequences: 2 });
    expect(b.append(3)).toEqual({ slots: Int32Array.of(10, 11, 12), copies: [{ from: 1, to: 2 }] });
    expect(a.append(1)).toEqual({ slots: Int32Array.of(6), copies: [] }); // it has the page alone now
    expect([...b.blockTable()]).toEqual([0, 2, 3]);
    expect([...b.slots(3, 6)]).toEqual([3, 8, 9]);
  });

  it('says how many pages were wanted and free, and changes nothing', () => {
    const blocks = pool(3);
    const a = blocks.create();
    a.append(7);
    expect(thrown(() => a.append(6))).toEqual(
      failure('BL_OUT_OF_MEMORY', /^append: 2 pages wanted, 1 free \(of 3\)$/),
    );
    expect([a.length, blocks.stats.used]).toEqual([7, 2]);
    const b = a.fork();
    b.append(1);
    expect(thrown(() => a.removeRange(1, 2))).toEqual(failure('BL_OUT_OF_MEMORY', /removeRange/));
    a.swapOut();
    b.append(4);
    expect(thrown(() => a.swapIn())).toEqual(failure('BL_OUT_OF_MEMORY', /swapIn/));
    expect(a.swapped).toBe(true);
    b.free();
    a.swapIn();
    expect(a.numPages).toBe(2);
  });

  it('misuse is an error with a code', () => {
    const blocks = pool();
    const a = blocks.create();
    a.append(8);
    for (const bad of [-1, 1.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 31, '3' as never]) {
      expect(thrown(() => a.append(bad))).toEqual(failure('BL_OUT_OF_RANGE', /^append: count is/));
      expect(thrown(() => a.trim(bad))).toEqual(failure('BL_OUT_OF_RANGE'));
      expect(thrown(() => a.slots(0, bad))).toEqual(failure('BL_OUT_OF_RANGE'));
      expect(thrown(() => a.removeRange(bad, 8))).toEqual(failure('BL_OUT_OF_RANGE'));
      expect(thrown(() => blocks.references(bad))).toEqual(failure('BL_OUT_OF_RANGE'));
    }
    expect(thrown(() => a.removeRange(5, 4))).toEqual(
      failure('BL_OUT_OF_RANGE', /^removeRange: end/),
    );
    expect(thrown(() => a.removeRange(1, 4, { wholePages: true }))).toEqual(
      failure('BL_INVALID_ARGUMENT', /3 tokens, expected whole pages of 4/),
    );
    expect(thrown(() => a.register([1, 2, 3, 1.5]))).toEqual(
      failure('BL_OUT_OF_RANGE', /tokens\[3\]/),
    );
    expect(thrown(() => a.register([2 ** 40]))).toEqual(failure('BL_OUT_OF_RANGE'));
    expect(thrown(() => a.register(ids(9)))).toEqual(
      failure('BL_OUT_OF_RANGE', /tokens.length is 9/),
    );
    expect(thrown(() => blocks.match(null as never))).toEqual(failure('BL_INVALID_ARGUMENT'));
    expect(thrown(() => a.registerChunk(2, [1]))).toEqual(
      failure('BL_OUT_OF_RANGE', /multiple of 4/),
    );
    expect(thrown(() => a.swapIn())).toEqual(failure('BL_INVALID_ARGUMENT', /not swapped out/));
    expect(blocks.stats).toMatchObject({ used: 2, references: 2 });
    a.swapOut();
    expect(thrown(() => a.append(1))).toEqual(failure('BL_INVALID_ARGUMENT', /swapped out/));
    expect(thrown(() => a.swapOut())).toEqual(failure('BL_INVALID_ARGUMENT'));
    a.swapIn();
    a.free();
    for (const use of [
      () => a.free(),
      () => a.append(1),
      () => a.fork(),
      () => a.trim(0),
      () => a.blockTable(),
      () => a.register([]),
      () => a.swapOut(),
      () => a.swapIn(),
      () => a.removeRange(0, 0),
    ]) {
      expect(thrown(use)).toEqual(failure('BL_DETACHED', /after free\(\)/));
    }
    a[Symbol.dispose](); // lenient
    expect(blocks.stats).toMatchObject({ used: 0, references: 0, free: 8, sequences: 0 });
    for (const size of [0, -1, 1.5, 2 ** 31]) {
      expect(thrown(() => pool(size))).toEqual(failure('BL_OUT_OF_RANGE', /numPages/));
      expect(thrown(() => pool(4, size))).toEqual(failure('BL_OUT_OF_RANGE', /pageSize/));
    }
    expect(thrown(() => pool(2 ** 30, 64))).toEqual(
      failure('BL_OUT_OF_RANGE', /numPages \* pageSize/),
    );
  });

  it('chunks of another pool, or changed since, are refused', () => {
    const [one, other] = [pool(), pool()];
    const source = other.create();
    source.append(4);
    source.registerChunk(0, ids(4));
    const target = one.create();
    expect(thrown(() => target.appendChunk(other.matchChunk(ids(4))))).toEqual(
      failure('BL_INVALID_ARGUMENT', /another pool/),
    );
    const chunk = other.matchChunk(ids(4));
    const forged = { sequence: {}, positions: Int32Array.of(0) } as unknown as ChunkMatch;
    const own = other.create();
    expect(thrown(() => own.appendChunk(forged))).toEqual(failure('BL_INVALID_ARGUMENT'));
    expect(thrown(() => own.appendChunk({ ...chunk, positions: Int32Array.of(0, 1) }))).toEqual(
      failure('BL_INVALID_ARGUMENT', /changed/),
    );
    own.append(1);
    expect(thrown(() => own.appendChunk(chunk))).toEqual(
      failure('BL_OUT_OF_RANGE', /multiple of 4/),
    );
    chunk.sequence.free();
    own.trim(0);
    expect(thrown(() => own.appendChunk(chunk))).toEqual(failure('BL_DETACHED'));
  });

  it('pages whose context differs are never shared, equal tokens or not', () => {
    const blocks = pool(16);
    const a = blocks.create();
    a.append(12);
    a.register([...ids(4), ...ids(4, 50), ...ids(4)]);
    // The second page is known behind the first only, and the third, equal to the first, behind both.
    expect(blocks.match([...ids(4, 9), ...ids(4, 50)]).length).toBe(0);
    expect(blocks.match(ids(4, 50)).length).toBe(0);
    expect(blocks.match([...ids(4), ...ids(4), ...ids(4, 50)]).length).toBe(4);
    expect(blocks.match([...ids(4), ...ids(4, 50), 0, 1, 2, 7]).length).toBe(8);
    expect([...blocks.match([...ids(4), ...ids(4, 50), ...ids(4)]).blockTable()]).toEqual([
      0, 1, 2,
    ]);
  });

  it('a page known already takes the place of an equal one', () => {
    const blocks = pool();
    const [a, b] = [blocks.create(), blocks.create()];
    a.append(6);
    b.append(6);
    a.register(ids(6));
    expect(b.register(ids(6))).toBe(1);
    expect([...b.blockTable()]).toEqual([0, 3]);
    expect(blocks.stats).toMatchObject({ used: 3, references: 4, free: 5 });
  });

  it('registered pages stay when free, and go oldest first, the end of a text before its begin', () => {
    const blocks = pool(4);
    for (const first of [0, 100]) {
      const a = blocks.create();
      a.append(8);
      a.register(ids(8, first));
      a.free();
    }
    expect(blocks.stats).toMatchObject({ used: 0, cached: 4, free: 0 });
    const c = blocks.create();
    c.append(4);
    const first = blocks.match(ids(8));
    expect(first.length).toBe(4);
    c.append(1); // the other text's second page
    expect(blocks.match(ids(8, 100)).length).toBe(4);
    expect(blocks.stats).toMatchObject({ used: 4, cached: 0 });
    expect(thrown(() => c.append(4))).toEqual(failure('BL_OUT_OF_MEMORY'));
  });

  it('behind a removed range nothing is registered; once that is cut off, again', () => {
    const blocks = pool();
    const a = blocks.create();
    a.append(16);
    a.removeRange(5, 9);
    expect(a.register(ids(12))).toBe(1);
    a.trim(5);
    a.append(7);
    expect(a.register(ids(12))).toBe(3);
  });

  it('the page that only the index has as well gives way to its writer when memory is short', () => {
    const blocks = pool(2);
    const a = blocks.create();
    a.append(8);
    a.register(ids(8));
    a.trim(6);
    expect(a.append(2)).toEqual({ slots: Int32Array.of(6, 7), copies: [] });
    expect(blocks.match(ids(8)).length).toBe(4);
  });

  it('swapping leaves shared pages, and finds registered ones again', () => {
    const blocks = pool();
    const a = blocks.create();
    a.append(12);
    const b = a.fork();
    b.trim(4);
    a.register(ids(8));
    expect([...a.swapOut()]).toEqual([1, 2]);
    expect(blocks.stats).toMatchObject({ used: 1, cached: 1 });
    const c = blocks.create();
    c.append(4); // takes page 2
    expect([...a.swapIn()]).toEqual([-1, 3]);
    expect([...a.blockTable()]).toEqual([0, 1, 3]);
  });

  it('an eviction policy is asked until it gives nothing, and not from within itself', () => {
    const asked: number[][] = [];
    const blocks: BlockPool = new BlockPool({
      numPages: 4,
      pageSize: 4,
      evict: ({ wanted, free }) => {
        asked.push([wanted, free]);
        if (asked.length === 1)
          expect(thrown(() => blocks.create().append(5))).toEqual(failure('BL_OUT_OF_MEMORY'));
        victims.pop()?.free();
      },
    });
    const victims = [0, 1, 2].map(() => {
      const one = blocks.create();
      one.append(4);
      return one;
    });
    const a = blocks.create();
    a.append(12);
    expect(asked).toEqual([
      [3, 1],
      [3, 2],
    ]);
    expect(thrown(() => a.append(12))).toEqual(
      failure('BL_OUT_OF_MEMORY', /3 pages wanted, 1 free/),
    );
    expect(a.length).toBe(12);
  });
});

describe('PageIndex', () => {
  it('finds what a map finds, whatever collides', () => {
    const step = fc.record({ page: fc.nat(15), token: fc.nat(9), add: fc.boolean() });
    // Neighbouring places in the table, so that entries stand away from their own.
    const hash = (_parent: number, tokens: ArrayLike<number>): number => (tokens[0] as number) % 3;
    fc.assert(
      fc.property(fc.array(step, { maxLength: 200, size: 'max' }), (steps) => {
        const index = new PageIndex(16, 1, hash);
        const byToken = new Map<number, number>();
        for (const { page, token, add } of steps) {
          const known = [...byToken].find(([, other]) => other === page)?.[0];
          if (!add) {
            index.remove(page);
            if (known !== undefined) byToken.delete(known);
          } else if (!byToken.has(token) && known === undefined) {
            index.add(prefixRoot, page, [token], 0);
            byToken.set(token, page);
          }
          for (let one = 0; one < 10; one++) {
            expect(index.find(prefixRoot, [one], 0, false)).toBe(byToken.get(one) ?? -1);
          }
        }
      }),
    );
  });

  it('refuses a page with other tokens than it has', () => {
    const index = new PageIndex(4, 2);
    index.add(prefixRoot, 1, [5, 6], 0);
    expect(thrown(() => index.add(prefixRoot, 1, [5, 7], 0, 0))).toEqual(
      failure('BL_INVALID_ARGUMENT', /tokens differ/),
    );
  });
});
