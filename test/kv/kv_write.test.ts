// Tokens into a cache of plain rows.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type FloatDType, kvWrite, kvWriteAsync, Tensor } from '../../lib/index.js';
import { expectError, isas, onDevice } from '../reference/op_checks.js';
import { gaussian } from '../reference/random.js';
import { bits, canaries, floatTypes, strided } from '../reference/views.js';
import { f32, i32 } from './cases.js';

type Float = Tensor<FloatDType>;

/** What rows [count][heads * dim] become when tokens are written one by one. */
function written(before: Float, rows: Float, slots: readonly number[]): number[] {
  const values = before.toArray();
  // Rounding to the cache's type is the tensor constructor's: of JavaScript numbers, to nearest even.
  const rounded = new Tensor(before.dtype, rows.toArray(), rows.shape).toArray();
  const length = (rows.shape[1] as number) * (rows.shape[2] as number);
  for (const [t, slot] of slots.entries()) {
    if (slot < 0) continue;
    for (let i = 0; i < length; i++) values[slot * length + i] = rounded[t * length + i] as number;
  }
  return values;
}

describe('kvWrite', () => {
  it.each(isas)('%s: any shape, type, stride', (isa) => {
    const dtype = fc.constantFrom(...floatTypes);
    fc.assert(
      fc.property(
        fc.tuple(dtype, dtype, dtype),
        fc.uniqueArray(fc.integer({ min: 0, max: 11 }), { maxLength: 6 }),
        fc.integer({ min: 0, max: 5 }),
        fc.integer({ min: 0, max: 3 }),
        fc.tuple(fc.constantFrom(0, 1, 7, 16, 1030), fc.constantFrom(0, 3, 64)),
        fc.tuple(fc.integer({ min: 0, max: 2 }), fc.integer({ min: 0, max: 2 })),
        ([kType, vType, cacheType], list, left, heads, [keyDim, valueDim], [gap, cacheGap]) => {
          const slots = list.map((slot, t) => (t === left ? -1 : slot));
          const rows = (type: FloatDType, count: number, dim: number, seed: number, g: number) =>
            strided(type, gaussian(count * heads * dim, seed, 3), [count, heads, dim], g) as Float;
          const k = rows(kType, slots.length, keyDim, 1, gap);
          const v = rows(vType, slots.length, valueDim, 2, gap);
          const cache = {
            keys: rows(cacheType, 12, keyDim, 3, cacheGap),
            values: rows(cacheType, 12, valueDim, 4, cacheGap),
          };
          const keys = written(cache.keys, k, slots);
          const values = written(cache.values, v, slots);
          expect(kvWrite(k, v, i32(slots, slots.length), cache, { isa })).toBe(cache);
          expect(cache.keys.toArray()).toEqual(keys);
          expect(cache.values.toArray()).toEqual(values);
          for (const view of [cache.keys, cache.values]) {
            expect(canaries(view).every((value) => value === -77)).toBe(true);
          }
        },
      ),
      { numRuns: 40 },
    );
  });

  it('gives the same bits for any number of threads, and async', async () => {
    const k = f32(gaussian(70 * 4 * 96), 70, 4, 96);
    const slots = i32(Array.from({ length: 70 }, (_, t) => 99 - t));
    const fresh = () => ({
      keys: Tensor.zeros('f16', [100, 4, 96]),
      values: Tensor.zeros('f16', [100, 4, 96]),
    });
    const one = kvWrite(k, k, slots, fresh(), { threads: 1 });
    for (const threads of [2, 3, 7]) {
      const more = kvWrite(k, k, slots, fresh(), { threads });
      expect(bits(more.keys).equals(bits(one.keys))).toBe(true);
      expect(bits(more.values).equals(bits(one.values))).toBe(true);
    }
    expect(bits((await kvWriteAsync(k, k, slots, fresh())).keys).equals(bits(one.keys))).toBe(true);
  });

  it('keeps NaN and infinity', () => {
    const k = f32(Float32Array.of(Number.NaN, -Infinity), 1, 1, 2);
    const cache = { keys: Tensor.zeros('f16', [2, 1, 2]), values: Tensor.zeros('bf16', [2, 1, 2]) };
    kvWrite(k, k, i32([1]), cache);
    for (const tensor of [cache.keys, cache.values]) {
      expect(tensor.toArray()).toEqual([0, 0, Number.NaN, -Infinity]);
    }
  });

  const zeros = (...shape: number[]): Tensor<'f32'> => Tensor.zeros('f32', shape);
  const k = zeros(2, 2, 6);
  const v = zeros(2, 2, 5);
  const slots = i32([0, 3]);
  const cache = { keys: zeros(4, 2, 6), values: zeros(4, 2, 5) };
  it.each<[string, Parameters<typeof kvWrite>, string, string]>([
    ['k rank', [zeros(2, 6), v, slots, cache], 'BL_INVALID_SHAPE', 'k.rank is 2, expected 3'],
    [
      'type',
      [i32([1, 2, 3, 4], 2, 2, 1) as never, v, slots, cache],
      'BL_INVALID_DTYPE',
      'k.dtype is i32, expected f32 or f16 or bf16',
    ],
    [
      'keys heads',
      [zeros(2, 3, 6), v, slots, cache],
      'BL_INVALID_SHAPE',
      'keys.shape[1] is 2, expected 3 (= k.shape[1])',
    ],
    [
      'keys dim',
      [zeros(2, 2, 7), v, slots, cache],
      'BL_INVALID_SHAPE',
      'keys.shape[2] is 6, expected 7 (= k.shape[2])',
    ],
    [
      'values dim',
      [k, k, slots, cache],
      'BL_INVALID_SHAPE',
      'values.shape[2] is 5, expected 6 (= v.shape[2])',
    ],
    [
      'v tokens',
      [k, zeros(3, 2, 5), slots, cache],
      'BL_INVALID_SHAPE',
      'v.shape[0] is 3, expected 2 (= k.shape[0])',
    ],
    [
      'v heads',
      [k, zeros(2, 1, 5), slots, { ...cache, values: zeros(4, 1, 5) }],
      'BL_INVALID_SHAPE',
      'v.shape[1] is 1, expected 2 (= k.shape[1])',
    ],
    [
      'capacity',
      [k, v, slots, { ...cache, values: zeros(5, 2, 5) }],
      'BL_INVALID_SHAPE',
      'values.shape[0] is 5, expected 4 (= keys.shape[0])',
    ],
    [
      'slots rank',
      [k, v, i32([0, 1], 2, 1), cache],
      'BL_INVALID_SHAPE',
      'slots.rank is 2, expected 1',
    ],
    [
      'slots',
      [k, v, i32([1]), cache],
      'BL_INVALID_SHAPE',
      'slots.shape[0] is 1, expected 2 (= k.shape[0])',
    ],
    [
      'slots type',
      [k, v, zeros(2) as never, cache],
      'BL_INVALID_DTYPE',
      'slots.dtype is f32, expected i32',
    ],
    [
      'overlap',
      [cache.keys.slice(0, 2), v, slots, cache],
      'BL_INVALID_ARGUMENT',
      'keys overlaps k, expected separate memory',
    ],
    [
      'overlap of both',
      [k, k, slots, { keys: cache.keys, values: cache.keys }],
      'BL_INVALID_ARGUMENT',
      'keys overlaps values, expected separate memory',
    ],
    [
      'output',
      [
        k,
        v,
        slots,
        { ...cache, keys: new Tensor('f32', zeros(12).bytes, [4, 2, 6], { strides: [0, 6, 1] }) },
      ],
      'BL_INVALID_SHAPE',
      'keys.strides[0] is 0, expected at least 1: an output must not overlap itself',
    ],
  ])('refuses %s', (_, args, code, message) => {
    expectError(() => kvWrite(...args), code, `kvWrite: ${message}`);
  });

  // Slots on a device are not looked at before it runs.
  it.skipIf(onDevice)(
    'refuses with BL_OUT_OF_RANGE slots outside, before anything is written',
    () => {
      for (const [list, place] of [
        [[0, 4], 'slots[1] is 4'],
        [[-2, 0], 'slots[0] is -2'],
      ] as const) {
        const rows = f32(new Float32Array(24).fill(1), 2, 2, 6);
        expectError(
          () => kvWrite(rows, v, i32(list), cache),
          'BL_OUT_OF_RANGE',
          `kvWrite: ${place}, expected -1 to 3 (= keys.shape[0] - 1)`,
        );
        expect(cache.keys.toArray().every((value) => value === 0)).toBe(true);
      }
    },
  );

  it('refuses what is no cache, and unknown options', () => {
    expectError(
      () => kvWrite(k, v, slots, undefined as never),
      'BL_INVALID_ARGUMENT',
      'kvWrite: cache is undefined, expected an object',
    );
    expectError(
      () => kvWrite(k, v, slots, { keys: cache.keys } as never),
      'BL_INVALID_ARGUMENT',
      'kvWrite: values is undefined, expected a Tensor',
    );
    expect(() => kvWrite(k, v, slots, cache, { out: k } as never)).toThrow(
      /^kvWrite: option "out" is not known/,
    );
  });
});
