// Random operations on PagedKVCache beside a plain model (kv_model.ts), in several formats.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { PagedKVCacheOptions, PagedKVSequence } from '../../../lib/nn/index.js';
import { KVModel, shape } from './kv_model.js';

const kinds = [
  'append',
  'append',
  'append',
  'fork',
  'trim',
  'remove',
  'match',
  'swap',
  'free',
] as const;
const operation = fc.record({
  kind: fc.constantFrom(...kinds),
  which: fc.nat(1000),
  a: fc.nat(1000),
  b: fc.nat(1000),
});
type Operation = typeof operation extends fc.Arbitrary<infer T> ? T : never;

/** Ids that texts of the same topic share. */
const text = (topic: number, begin: number, count: number): number[] =>
  Array.from({ length: count }, (_, i) => (topic % 2) * 1000 + begin + i);

const kept = new WeakMap<KVModel, number[][]>();

function apply(model: KVModel, { kind, which, a, b }: Operation): unknown {
  const all = [...model.entries.keys()];
  if (all.length === 0) all.push(model.create());
  const sequence = all[which % all.length] as PagedKVSequence;
  if (kind === 'free') return model.free(sequence);
  if (sequence.swapped) {
    if (kind === 'swap') sequence.swapIn();
    return;
  }
  const ids = model.ids(sequence);
  const begin = a % (ids.length + 1);
  const end = begin + (b % (ids.length - begin + 1));
  const length = sequence.sealedLength;
  switch (kind) {
    case 'append':
      return model.append(sequence, text(a, ids.length, 1 + (b % 30)));
    case 'fork':
      if (all.length < 6) {
        const fork = model.add(sequence.fork(), [...ids]);
        if (model.requantized.has(sequence)) model.requantized.add(fork);
      }
      return;
    case 'trim':
      if (begin < length) model.requantized.add(sequence);
      sequence.trim(begin);
      ids.length = begin;
      return;
    case 'remove':
      if (begin < length) model.requantized.add(sequence);
      sequence.removeRange(begin, end);
      ids.splice(begin, end - begin);
      return;
    case 'match': {
      // What is registered is found, if memory has not become short since.
      sequence.register(ids);
      const lists = kept.get(model) ?? [];
      kept.set(model, [...lists, [...ids]].slice(-4));
      const wanted = kept.get(model)?.[a % 4] ?? ids;
      if (all.length >= 6) return;
      const found = model.cache.match(wanted);
      expect(found.length % shape.pageSize).toBe(0);
      model.add(found, wanted.slice(0, found.length));
      return;
    }
    case 'swap':
      return sequence.swapOut();
  }
}

const operations = fc.array(operation, { minLength: 1, maxLength: 40, size: 'max' });

// Largest errors: half a step of a code, and as much for each time that tokens were encoded again (at most 5 here).
const configurations: [string, Partial<PagedKVCacheOptions>, number][] = [
  ['f32', { format: 'f32' }, 0],
  ['f16', { format: 'f16' }, 0],
  ['f16 keys, i8 values', { format: { keys: 'f16', values: 'i8' } }, 0.5 / 127 + 1e-3],
  ['i8, 12 recent', { format: 'i8', recent: 12 }, 0.5 / 127 + 1e-3],
  ['bfp8', { format: 'bfp8' }, 1 / 64],
  ['i4', { format: 'i4' }, 0.36],
  ['i4 keys, i8 values, 5 recent', { format: { keys: 'i4', values: 'i8' }, recent: 5 }, 0.36],
];

describe('PagedKVCache, beside a plain model', () => {
  it.each(configurations)('%s: gather gives what was appended', (_name, options, tolerance) => {
    fc.assert(
      fc.property(operations, fc.constantFrom(8, 20, 60), (list, numPages) => {
        const model = new KVModel({ numRecentPages: 30, ...options, numPages }, tolerance);
        for (const one of list) {
          try {
            apply(model, one);
          } catch (error) {
            if ((error as { code?: string }).code !== 'BL_OUT_OF_MEMORY') throw error;
          }
          model.check();
        }
        model.finish();
      }),
      { numRuns: 25 },
    );
  });
});
