import { mkdtemp, open, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { BitloomError } from '../../lib/errors.js';
import { type Format, formats, matmul, pack, QuantizedTensor, Tensor } from '../../lib/index.js';
import {
  loadPacked,
  memorySource,
  readPacked,
  readSafetensors,
  type SafetensorsTensorInput,
  safetensorsBytes,
  savePacked,
} from '../../lib/io/index.js';
import { quantized } from '../quantize/cases.js';
import { gaussian } from '../reference/random.js';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'bitloom-packed-'));
});
afterAll(() => rm(folder, { recursive: true }));

const some: Record<string, QuantizedTensor> = {
  plain: quantized('q4_0', gaussian(35 * 64, 1), [35, 64]),
  packed: pack(quantized('u3z_g64', gaussian(35 * 130, 2), [35, 130])),
  levels: pack(quantized('cb5_g32', gaussian(32 * 64, 3), [32, 64])),
  tables: pack(quantized('cbs4_g64', gaussian(32 * 64, 6), [32, 64])),
  builtIn: pack(quantized('cbs3_g128', gaussian(16 * 128, 7), [16, 128])),
  byRow: pack(quantized('lut4_row', gaussian(17 * 64, 8), [17, 64])),
  'blk.0/"quoted"\n🦙': pack(quantized('q6_k', gaussian(16 * 256, 4), [16, 256])),
  __proto__x: pack(quantized('i8_row', gaussian(17 * 33, 5), [17, 33])),
  scaled: new QuantizedTensor('nvfp4_g16', new Uint8Array(18 * 16), [16, 32], {
    tensorScale: 0.1,
  }),
  none: QuantizedTensor.empty('u4_g128', [0, 128], { layout: 'lanes16' }),
};

function expectSame(found: QuantizedTensor | undefined, expected: QuantizedTensor): void {
  expect(found).toBeInstanceOf(QuantizedTensor);
  const { format, layout, shape, codebook, tensorScale } = found as QuantizedTensor;
  expect({ format, layout, shape, codebook, tensorScale }).toEqual({
    format: expected.format,
    layout: expected.layout,
    shape: expected.shape,
    codebook: expected.codebook,
    tensorScale: expected.tensorScale,
  });
  expect(Buffer.compare((found as QuantizedTensor).bytes, expected.bytes)).toBe(0);
}

/** A file of one u8 tensor with this description of it. */
function fileOf(description: unknown, bytes = 18, more: Partial<SafetensorsTensorInput> = {}) {
  const text = typeof description === 'string' ? description : JSON.stringify(description);
  return safetensorsBytes({
    metadata: description === undefined ? {} : { 'bitloom.weights.w': text },
    tensors: [{ name: 'w', type: 'u8', shape: [bytes], data: new Uint8Array(bytes), ...more }],
  });
}
const sound = { format: 'q4_0', layout: 'canonical', rows: 1, cols: 32 };

describe('savePacked, loadPacked', () => {
  it('keep every matrix, as views of the mapping', async () => {
    const path = join(folder, 'some.safetensors');
    await savePacked(path, some);
    const file = loadPacked(path);
    expect(new Set(file.weights.keys())).toEqual(new Set(Object.keys(some)));
    for (const [name, matrix] of Object.entries(some)) expectSame(file.weights.get(name), matrix);
    const buffers = [...file.weights.values()]
      .filter((matrix) => matrix.bytes.length > 0)
      .map((matrix) => matrix.bytes.buffer);
    expect(new Set(buffers).size).toBe(1);
    const a = new Tensor('f32', gaussian(64, 9), [1, 64]);
    const { levels } = some as { levels: QuantizedTensor };
    expect(matmul(a, file.weights.get('levels') as QuantizedTensor).toArray()).toEqual(
      matmul(a, levels).toArray(),
    );
    const matrix = file.weights.get('plain') as QuantizedTensor;
    file.dispose();
    expect(() => matrix.bytes).toThrow(expect.objectContaining({ code: 'BL_DETACHED' }));
    // A Map gives the same file.
    await savePacked(`${path}.map`, new Map(Object.entries(some)));
    expect(await readFile(`${path}.map`)).toEqual(await readFile(path));
  });

  it('matrices of whole cache lines begin at one', async () => {
    const path = join(folder, 'aligned.safetensors');
    await savePacked(path, {
      odd: quantized('q4_0', gaussian(32, 1), [1, 32]),
      a: pack(quantized('q4_0', gaussian(64 * 64, 1), [64, 64])),
      b: pack(quantized('u8_g32', gaussian(64 * 64, 1), [64, 64])),
    });
    const { tensors } = readSafetensors(memorySource(await readFile(path)));
    expect([...tensors.keys()]).toEqual(['a', 'b', 'odd']);
    expect((tensors.get('a')?.offset as number) % 64).toBe(0);
    expect((tensors.get('b')?.offset as number) % 64).toBe(0);
  });

  it('refuse to save what is no matrix or is disposed of', async () => {
    const path = join(folder, 'wrong.safetensors');
    const none = { w: new Uint8Array(3) } as unknown as Record<string, QuantizedTensor>;
    await expect(savePacked(path, none)).rejects.toThrow(
      expect.objectContaining({
        code: 'BL_INVALID_ARGUMENT',
        message: 'savePacked: "w" is no QuantizedTensor or MixedTensor',
      }),
    );
    const gone = QuantizedTensor.empty('q4_0', [1, 32]);
    gone.dispose();
    await expect(savePacked(path, { gone })).rejects.toMatchObject({ code: 'BL_DETACHED' });
    await expect(
      savePacked(path, { '\ud800': some.plain as QuantizedTensor }),
    ).rejects.toMatchObject({ code: 'BL_INVALID_ARGUMENT' });
    expect(() => loadPacked(path)).toThrow(expect.objectContaining({ code: 'BL_NOT_FOUND' }));
  });

  it.each([
    [undefined, 'BL_INVALID_FILE', 'tensor "w" has no metadata "bitloom.weights.w"'],
    ['{', 'BL_INVALID_FILE', 'metadata "bitloom.weights.w" is not JSON'],
    [`${'['.repeat(1e6)}`, 'BL_INVALID_FILE', 'metadata "bitloom.weights.w" is not JSON'],
    [[1], 'BL_INVALID_FILE', 'metadata "bitloom.weights.w" is [1], expected an object'],
    [{ ...sound, format: 'u9_g7' }, 'BL_UNSUPPORTED', 'tensor "w" has format "u9_g7", expected'],
    [{ ...sound, format: 'toString' }, 'BL_UNSUPPORTED', 'tensor "w" has format "toString"'],
    [{ ...sound, layout: 'panel8' }, 'BL_UNSUPPORTED', 'expected canonical or lanes16'],
    [{ ...sound, rows: -1 }, 'BL_INVALID_FILE', 'rows is -1, expected a whole number'],
    [{ ...sound, rows: '1' }, 'BL_INVALID_FILE', 'rows is 1, expected a whole number'],
    [{ ...sound, rows: { toString: 1 } }, 'BL_INVALID_FILE', 'tensor "w": '],
    [{ ...sound, rows: 2 ** 52 }, 'BL_INVALID_FILE', 'is too large'],
    [{ ...sound, cols: 31 }, 'BL_INVALID_FILE', 'cols is 31, expected a multiple of 32'],
    [{ ...sound, cols: undefined }, 'BL_INVALID_FILE', 'cols is undefined'],
    [{ ...sound, rows: 2 }, 'BL_INVALID_FILE', 'is u8 [18], expected u8 [36] (q4_0 [2, 32])'],
    [{ ...sound, rows: 0 }, 'BL_INVALID_FILE', 'is u8 [18], expected u8 [0] (q4_0 [0, 32])'],
    [{ ...sound, codebook: [1] }, 'BL_INVALID_FILE', 'format q4_0 takes no codebook'],
    [{ ...sound, codebook: 'abc' }, 'BL_INVALID_FILE', 'has "abc", expected numbers'],
    [{ ...sound, tensorScale: -1 }, 'BL_INVALID_FILE', 'tensorScale is -1'],
    [{ ...sound, tensorScale: 'x' }, 'BL_INVALID_FILE', 'has ["x"], expected numbers'],
  ])('refuse the description %#', (description, code, message) => {
    expect(() => readPacked(memorySource(fileOf(description)))).toThrow(
      expect.objectContaining({ code, message: expect.stringContaining(message as string) }),
    );
  });

  it('refuse codebooks that are short or not finite, other types, and descriptions without tensors', () => {
    const levels = { format: 'cb1_g32', layout: 'canonical', rows: 1, cols: 32 };
    for (const codebook of [undefined, [1], [1, 2, 3], [1, 1e39], [1, null]]) {
      const bytes = fileOf({ ...levels, codebook }, 6);
      expect(() => readPacked(memorySource(bytes))).toThrow(
        expect.objectContaining({ code: 'BL_INVALID_FILE' }),
      );
    }
    const ok = readPacked(memorySource(fileOf({ ...levels, codebook: [-1, 1] }, 6)));
    expect(ok.weights.get('w')?.codebook).toEqual(Float32Array.of(-1, 1));
    expect(() => readPacked(memorySource(fileOf(sound, 18, { type: 'i8' })))).toThrow(
      'tensor "w" is i8 [18], expected u8 [18]',
    );
    expect(() => readPacked(memorySource(fileOf(sound, 18, { shape: [2, 9] })))).toThrow(
      'tensor "w" is u8 [2, 9], expected u8 [18]',
    );
    const alone = safetensorsBytes({ metadata: { 'bitloom.weights.x': '{}' }, tensors: [] });
    expect(() => readPacked(memorySource(alone))).toThrow(
      'metadata "bitloom.weights.x" describes no tensor of the file',
    );
  });

  it('refuse a file cut anywhere', async () => {
    const path = join(folder, 'cut.safetensors');
    await savePacked(path, some);
    const bytes = await readFile(path);
    const cuts = [0, 1, 7, 8, 9, 100, 500, bytes.length - 64, bytes.length - 1];
    for (const length of cuts) {
      await writeFile(path, bytes);
      await truncate(path, length);
      expect(() => loadPacked(path)).toThrow(expect.objectContaining({ code: 'BL_INVALID_FILE' }));
    }
    const file = await open(path, 'w');
    await file.writeFile(Buffer.concat([bytes, Buffer.alloc(1)]));
    await file.close();
    expect(() => loadPacked(path)).toThrow(expect.objectContaining({ code: 'BL_INVALID_FILE' }));
  });

  it('descriptions of anything give a matrix of those bytes or a BitloomError', {
    timeout: 30_000,
  }, () => {
    const number = fc.oneof(
      fc.constantFrom(0, 1, 16, 17, 31, 32, 256, 2 ** 31, 2 ** 53, -1, 0.5, 1e300),
      fc.jsonValue({ maxDepth: 1 }),
    );
    const name = fc.oneof(
      fc.constantFrom(...(Object.keys(formats) as Format[])),
      fc.constantFrom('__proto__', 'q4_9', 'constructor'),
    );
    const description = fc.record(
      {
        format: name,
        layout: fc.constantFrom('canonical', 'lanes16', 'panel8', 1),
        rows: number,
        cols: number,
        codebook: fc.oneof(fc.array(fc.double(), { maxLength: 4 }), fc.jsonValue({ maxDepth: 1 })),
        tensorScale: number,
      },
      { requiredKeys: ['format', 'layout', 'rows', 'cols'] },
    );
    const sizes = fc.constantFrom(0, 18, 34, 64, 288, 1024);
    let accepted = 0;
    fc.assert(
      fc.property(fc.oneof(description, fc.constant(sound)), sizes, (value, bytes) => {
        try {
          const matrix = readPacked(memorySource(fileOf(value, bytes))).weights.get('w');
          expect(matrix?.bytes.length).toBe(bytes);
          accepted++;
        } catch (error) {
          if (!(error instanceof BitloomError)) throw error;
          expect(error.code).toMatch(/^BL_(INVALID_FILE|UNSUPPORTED)$/);
          expect(error.message.length).toBeLessThan(1000);
        }
      }),
      { numRuns: 3000 },
    );
    expect(accepted).toBeGreaterThan(0);
  });
});
