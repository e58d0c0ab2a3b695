// Policies of a caller's own: what a cache refuses, and that it stays whole when one of them fails.
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  type CachePolicy,
  type Decoder,
  load,
  type PagedCacheOptions,
  snapKV,
} from '../../../lib/nn/index.js';
import { expectError } from '../../reference/op_checks.js';
import { tinyModel } from '../models.js';
import { nested } from './drive.js';

let decoder: Decoder;
beforeAll(async () => {
  decoder = await load(tinyModel, { activations: 'f32' });
});
afterAll(() => decoder.dispose());

const text = nested(40, (i) => i + 5);
const changed = (change: object): CachePolicy => ({
  ...snapKV({ budget: 16, window: 4 }),
  ...change,
});

describe('what is no policy', () => {
  it.each<[object, string, string]>([
    [{ budget: 0 }, 'BL_OUT_OF_RANGE', 'budget is 0, expected a whole number of at least 1'],
    [
      { budget: Number.NaN },
      'BL_OUT_OF_RANGE',
      'budget is NaN, expected a whole number of at least 1',
    ],
    [{ block: 0 }, 'BL_OUT_OF_RANGE', 'block is 0, expected a whole number of at least 1'],
    [{ block: 1.5 }, 'BL_OUT_OF_RANGE', 'block is 1.5, expected a whole number of at least 1'],
    [{ latest: -1 }, 'BL_OUT_OF_RANGE', 'latest is -1, expected a whole number of at least 1'],
    [{ probe: [] }, 'BL_OUT_OF_RANGE', 'probe.length is 0, expected a whole number of at least 1'],
    [{ probe: 'Who?' }, 'BL_INVALID_ARGUMENT', 'probe is "Who?", expected an array'],
    [
      { sums: ['mean'] },
      'BL_INVALID_ARGUMENT',
      'sums has "mean", expected sums, squares, entropy, variance',
    ],
    [{ observes: undefined }, 'BL_INVALID_ARGUMENT', 'observes is null, expected a function'],
    [{ merge: 1 }, 'BL_INVALID_ARGUMENT', 'merge is 1, expected a function'],
  ])('%o', (change, code, message) => {
    const make = () => decoder.createPagedCache({ policy: changed(change) });
    expectError(make, code, `PagedDecoderCache: policy.${message}`);
  });

  it.each<[unknown, string, string]>([
    ['int4', 'BL_INVALID_ARGUMENT', 'generate: cache is "int4", expected an object'],
    [null, 'BL_INVALID_ARGUMENT', 'generate: cache is null, expected an object'],
    [{ policy: 'cake' }, 'BL_INVALID_ARGUMENT', 'PagedDecoderCache: policy is "cake", expected an'],
    [{ format: null }, 'BL_INVALID_FORMAT', 'PagedDecoderCache: format is null, expected one of'],
    [{ format: 4 }, 'BL_INVALID_FORMAT', 'PagedDecoderCache: format is 4, expected one of'],
  ])('generate with cache %o', async (cache, code, message) => {
    const text = async () =>
      decoder.generate('One day', { cache: cache as PagedCacheOptions }).text();
    await expect(text()).rejects.toMatchObject({ code, message: expect.stringContaining(message) });
  });
});

describe('answers that can not be', () => {
  const lists = (make: (count: number, head: number) => ArrayLike<number>) => ({
    select: ({ positions }: { positions: readonly unknown[] }, count: number) =>
      positions.map((_, head) => Int32Array.from(make(count, head))),
  });
  const numbers = (count: number, first: number) => nested(count, (i) => first + i);

  it.each<[string, object, string, string]>([
    [
      'too few keys',
      lists(() => [0]),
      'SHAPE',
      'select gives lists of [1,1] keys in layer 0, expected 2 lists (kv heads) of 16',
    ],
    [
      'fewer keys of one head',
      lists((count, head) => numbers(count - head, 0)),
      'SHAPE',
      'select gives lists of [16,15] keys in layer 0, expected 2 lists (kv heads) of 16',
    ],
    [
      'no heads',
      { select: () => [] },
      'SHAPE',
      'select gives lists of [] keys in layer 0, expected 2 lists (kv heads) of 16',
    ],
    [
      'keys that are not there',
      lists((count) => numbers(count, 30)),
      'RANGE',
      'select gives 40 as key 10 of head 0 in layer 0, expected 40 to 39 (rising)',
    ],
    [
      'one key twice',
      lists((count) => nested(count, () => 3)),
      'RANGE',
      'select gives 3 as key 1 of head 0 in layer 0, expected 4 to 39 (rising)',
    ],
    [
      'nothing',
      { select: () => undefined },
      'ARGUMENT',
      'select() is undefined, expected an array',
    ],
    ['a budget', { budgets: () => [3] }, 'SHAPE', 'budgets gives 1 numbers, expected 6 (layers)'],
    [
      'a budget that is no number',
      { budgets: (layers: unknown[]) => layers.map(() => Number.NaN) },
      'RANGE',
      'budgets gives NaN for layer 0, expected a number',
    ],
    [
      'scores',
      { score: () => [] },
      'SHAPE',
      'score gives lists of [] keys, expected 2 lists (kv heads) of 40',
    ],
    [
      'queries',
      { observes: () => 0.5 },
      'RANGE',
      'observes() is 0.5, expected a whole number of at least 0',
    ],
  ])('%s', (_, change, kind, message) => {
    const cache = decoder.createPagedCache({ policy: changed(change) });
    const code = { SHAPE: 'INVALID_SHAPE', RANGE: 'OUT_OF_RANGE', ARGUMENT: 'INVALID_ARGUMENT' }[
      kind
    ];
    expectError(() => decoder.forward(text, { cache }), `BL_${code}`, `snapKV: ${message}`);
    cache.dispose();
  });

  it.each(['score', 'budgets', 'select'] as const)(
    'a failing %s leaves a cache whole',
    (method) => {
      const policy = changed({});
      let isBroken = true;
      const breaking = changed({
        [method]: (...values: never[]) => {
          if (isBroken) throw new Error('broken');
          return (policy[method] as (...values: never[]) => unknown)(...values);
        },
      });
      const cache = decoder.createPagedCache({ format: 'f32', policy: breaking });
      expect(() => decoder.forward(text, { cache })).toThrow('broken');
      isBroken = false;
      decoder.forward(text, { cache });
      expect(cache.keys).toEqual(nested(decoder.config.numLayers, () => 16));
      for (let layer = 0; layer < cache.numLayers; layer++) {
        const { keys, positions } = cache.read(layer);
        expect(keys.shape[0]).toBe(16);
        for (const list of positions) expect([...list.slice(-4)]).toEqual([76, 77, 78, 79]);
      }
      cache.dispose();
    },
  );
});
