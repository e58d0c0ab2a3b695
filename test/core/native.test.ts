// The addon called with what no TypeScript would pass: every call ends in an error with a code, or in a result.

import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { operators } from '../../lib/generated.js';
import { matmul, QuantizedTensor, Tensor } from '../../lib/index.js';
import { type NativeValue, native } from '../../lib/native.js';

const names = Object.keys(operators) as (keyof typeof operators)[];
const number = fc.oneof(
  fc.integer({ min: -3, max: 70 }),
  fc.constantFrom(Number.NaN, 2 ** 53, -(2 ** 62), 1e300, 0.5, 2 ** 31),
);
const value = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.array(number, { maxLength: 16 }).map((list) => Float64Array.from(list)),
  },
  { weight: 3, arbitrary: fc.integer({ min: 0, max: 300 }).map((size) => new Uint8Array(size)) },
  { weight: 2, arbitrary: number },
  {
    weight: 1,
    arbitrary: fc.constantFrom(undefined, null, 'text', 5n, -1n, {}, [], Symbol.iterator),
  },
  // Descriptors that are nearly right: f32 [2, 3], q8_0 2 x 32.
  {
    weight: 3,
    arbitrary: fc.constantFrom(Float64Array.of(0, 2, 2, 3, 3, 1), Float64Array.of(3, 0, 2, 32, 1)),
  },
);

describe('the addon', () => {
  it('survives any arguments of any operator', () => {
    fc.assert(
      fc.property(fc.constantFrom(...names), fc.array(value, { maxLength: 18 }), (name, values) => {
        try {
          native[name](...(values as NativeValue[]));
        } catch (error) {
          expect(String((error as { code?: string }).code)).toMatch(/^BL_[A-Z_]+$/);
        }
      }),
      { numRuns: 3000 },
    );
  });

  it('survives any list of calls', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.oneof(fc.array(value, { maxLength: 12 }), value), { maxLength: 4 }),
        async (calls) => {
          try {
            await native.runAsync(calls as NativeValue[][]);
          } catch (error) {
            expect(String((error as { code?: string }).code)).toMatch(/^BL_[A-Z_]+$/);
          }
        },
      ),
      { numRuns: 300 },
    );
    await expect(native.runAsync(7 as never)).rejects.toMatchObject({
      code: 'BL_INVALID_ARGUMENT',
    });
  });

  it('maps files: refuses what is none, keeps views alive after close, reports one that shrinks', () => {
    const folder = mkdtempSync(join(tmpdir(), 'bitloom-map-'));
    try {
      const file = join(folder, 'weights');
      writeFileSync(file, new Uint8Array(64 * 4096).fill(1));
      for (const [path, code] of [
        [join(folder, 'none'), 'BL_NOT_FOUND'],
        [folder, 'BL_INVALID_FILE'],
        ['/dev/null', 'BL_INVALID_FILE'],
        ['', 'BL_INVALID_ARGUMENT'],
        [`${file}\0x`, 'BL_INVALID_ARGUMENT'],
      ] as const) {
        expect(() => native.mapFile(path), path).toThrow(expect.objectContaining({ code }));
      }
      const mapped = native.mapFile(file);
      expect(mapped.size).toBe(64 * 4096);
      for (const [offset, length] of [
        [-1, 4],
        [0, 64 * 4096 + 1],
        [64 * 4096, 1],
        [Number.NaN, 1],
        [0, Number.NaN],
      ] as const) {
        expect(() => mapped.view(offset, length)).toThrow(
          expect.objectContaining({ code: 'BL_OUT_OF_RANGE' }),
        );
      }
      const { view } = mapped;
      const bytes = new Uint8Array(view(0, 64 * 4096));
      mapped.close();
      mapped.close();
      expect(() => view(0, 1)).toThrow(expect.objectContaining({ code: 'BL_DETACHED' }));
      expect(bytes[64 * 4096 - 1]).toBe(1);
      bytes[0] = 9; // in memory only
      const weights = new QuantizedTensor('f32', bytes, [64, 1024]);
      const x = Tensor.zeros('f32', [1, 1024]);
      expect(matmul(x, weights).shape).toEqual([1, 64]);
      const handle = openSync(file, 'r+');
      ftruncateSync(handle, 4096);
      closeSync(handle);
      expect(() => matmul(x, weights)).toThrow(
        expect.objectContaining({ code: 'BL_FILE_CHANGED' }),
      );
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});
