// Mixed widths in a file of packed weights.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { BitloomError } from '../../lib/errors.js';
import {
  MixedTensor,
  mixed,
  packWeights,
  QuantizedTensor,
  quantizeMixed,
  Tensor,
} from '../../lib/index.js';
import {
  loadPacked,
  memorySource,
  readPacked,
  safetensorsBytes,
  savePacked,
} from '../../lib/io/index.js';
import { bytesEqual } from '../matmul/cases.js';
import { quantized } from '../quantize/cases.js';
import { gaussian } from '../reference/random.js';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'bitloom-mixed-'));
});
afterAll(() => rm(folder, { recursive: true }));

const matrix = (n: number, k: number, seed: number): Tensor<'f32'> =>
  new Tensor('f32', gaussian(n * k, seed), [n, k]);
const plain = quantizeMixed(matrix(18, 130, 1), Uint8Array.of(5, 2, 2, 5, 2), 32);
const some: Record<string, MixedTensor | QuantizedTensor> = {
  plain,
  packed: packWeights(plain),
  zeros: packWeights(
    quantizeMixed(matrix(35, 256, 2), Uint8Array.of(8, 1), 128, { zeroPoint: true }),
  ),
  one: quantizeMixed(matrix(3, 64, 3), Uint8Array.of(4), 64),
  tables: new MixedTensor([16, 64], 32, Uint8Array.of(7, 4), [
    quantized('cb4_g32', gaussian(16 * 32, 4), [16, 32]),
    new QuantizedTensor('i7_row', new Uint8Array(16 * 30), [16, 32], { tensorScale: 0.5 }),
  ]),
  none: quantizeMixed(matrix(3, 0, 3), new Uint8Array(0), 64),
  rowless: quantizeMixed(matrix(0, 64, 3), Uint8Array.of(4, 3), 32),
  'not mixed': quantized('q4_0', gaussian(64, 5), [2, 32]),
};

function expectSame(found: MixedTensor | undefined, expected: MixedTensor): void {
  expect(found).toBeInstanceOf(MixedTensor);
  const { shape, groupSize, widths, segments } = found as MixedTensor;
  expect({ shape, groupSize, widths }).toEqual({
    shape: expected.shape,
    groupSize: expected.groupSize,
    widths: expected.widths,
  });
  expect(segments.length).toBe(expected.segments.length);
  segments.forEach(({ weights, columns, width }, i) => {
    const own = expected.segments[i] as (typeof segments)[number];
    expect(width).toBe(own.width);
    expect(columns.data).toEqual(own.columns.data);
    for (const member of ['format', 'layout', 'shape', 'codebook', 'tensorScale'] as const) {
      expect(weights[member]).toEqual(own.weights[member]);
    }
    expect(Buffer.compare(weights.bytes, own.weights.bytes)).toBe(0);
  });
}

/** A file of one u8 tensor with this description of it. */
const fileOf = (description: unknown, bytes: number): Uint8Array =>
  safetensorsBytes({
    metadata: { 'bitloom.weights.w': JSON.stringify(description) },
    tensors: [{ name: 'w', type: 'u8', shape: [bytes], data: new Uint8Array(bytes) }],
  });
const part = (format: string, cols: number) => ({ format, layout: 'canonical', rows: 2, cols });
// 2 rows of u2_g32: 20 bytes; u4_g32 from 64 on: 36.
const sound = {
  rows: 2,
  cols: 64,
  groupSize: 32,
  widths: '42',
  parts: [part('u2_g32', 32), part('u4_g32', 32)],
};
const read = (description: unknown, bytes = 100) =>
  readPacked(memorySource(fileOf(description, bytes)));

describe('savePacked, loadPacked of mixed widths', () => {
  it('keep every part, as views of the mapping, and products their bits', async () => {
    const path = join(folder, 'some.safetensors');
    await savePacked(path, some);
    const file = loadPacked(path);
    expect([...file.weights.keys()]).toEqual(['not mixed']);
    expect(new Set(file.mixed.keys())).toEqual(
      new Set(Object.keys(some).filter((name) => name !== 'not mixed')),
    );
    for (const [name, found] of file.mixed) expectSame(found, some[name] as MixedTensor);
    const parts = [...file.mixed.values()].flatMap(({ segments }) => segments);
    const held = parts.map(({ weights }) => weights.bytes).filter((bytes) => bytes.length > 0);
    expect(new Set(held.map((bytes) => bytes.buffer)).size).toBe(1);
    const x = matrix(3, 130, 7);
    expect(bytesEqual(mixed(x, file.mixed.get('packed') as MixedTensor), mixed(x, plain))).toBe(
      true,
    );
    const first = file.mixed.get('packed')?.segments[0]?.weights as QuantizedTensor;
    file.dispose();
    expect(() => first.bytes).toThrow(expect.objectContaining({ code: 'BL_DETACHED' }));
  });

  it('refuse one that is disposed of', async () => {
    const gone = quantizeMixed(matrix(3, 64, 3), Uint8Array.of(4, 2), 32);
    gone.dispose();
    await expect(savePacked(join(folder, 'gone'), { gone })).rejects.toMatchObject({
      code: 'BL_DETACHED',
    });
  });

  it.each([
    [{ rows: -1 }, 'rows is -1, expected a whole number of at least 0'],
    [{ rows: undefined }, 'rows is undefined'],
    [{ rows: 3 }, 'parts differ in rows, expected 3 (= rows)'],
    [{ cols: 65 }, 'parts have 64 columns in all, expected 65 (= cols)'],
    [{ cols: 2 ** 53 }, 'cols is 9007199254740992, expected a whole number'],
    [{ groupSize: 64 }, 'widths has 2 entries, expected 1 (= ceil(cols / groupSize))'],
    [{ groupSize: 0 }, 'groupSize is 0, expected a whole number of at least 1'],
    [{ groupSize: 2 ** 60 }, 'groupSize is'],
    [{ groupSize: '32' }, 'groupSize is 32, expected'],
    [{ groupSize: 33 }, 'matrices[0] has shape [2,32], expected [2,31] (columns of 2 bits)'],
    [{ widths: '49' }, 'widths is "49", expected digits 1 to 8'],
    [{ widths: [4, 2] }, 'widths is [4,2], expected digits'],
    [{ widths: '43' }, 'matrices[0] is of format u2_g32, expected one of 3 bits'],
    [{ widths: '44' }, 'there are 2 matrices, expected 1 (one for each width)'],
    [{ parts: {} }, 'parts is {}, expected at most 8 descriptions'],
    [{ parts: Array(9).fill(part('u2_g32', 32)) }, 'expected at most 8 descriptions'],
    [{ parts: [part('u2_g32', 32)] }, 'is u8 [100], expected u8 [20] (mixed [2, 64])'],
    [{ parts: [part('u4_g32', 32), part('u2_g32', 32)] }, 'expected u8 [84]'],
    [{ parts: [3, part('u4_g32', 32)] }, 'parts[0] is 3, expected an object'],
    [{ parts: [sound, sound] }, 'parts[0] has format undefined, expected e.g. q4_0'],
    [{ parts: [part('u2_g32', -1), part('u4_g32', 32)] }, 'parts[0]: QuantizedTensor: cols is -1'],
  ])('refuse the description %#', (change, message) => {
    expect(() => read({ ...sound, ...change })).toThrow(
      expect.objectContaining({
        code: expect.stringMatching(/^BL_(INVALID_FILE|UNSUPPORTED)$/),
        message: expect.stringContaining(message),
      }),
    );
  });

  it('bound columns that take no bytes', () => {
    const wide = (cols: number) => ({
      rows: 0,
      cols,
      groupSize: cols,
      widths: '4',
      parts: [{ ...part('u4_g32', cols), rows: 0 }],
    });
    expect(() => read(wide(2 ** 40), 0)).toThrow(
      'cols is 1099511627776, expected at most 1048576 without rows',
    );
    expect(read(wide(2 ** 20), 0).mixed.get('w')?.shape).toEqual([0, 2 ** 20]);
  });

  it('descriptions of anything give a matrix of those bytes or a BitloomError', () => {
    const number = fc.oneof(
      fc.constantFrom<unknown>(0, 1, 2, 32, 64, 2 ** 31, 2 ** 53, -1, 0.5, 1e300, '32'),
      fc.jsonValue({ maxDepth: 1 }),
    );
    const anyPart = fc.record({
      format: fc.constantFrom('u2_g32', 'u4_g32', 'cb1_g32', 'q4_0', 'nf4_row', '__proto__'),
      layout: fc.constantFrom('canonical', 'lanes16', 'fragments', 1),
      rows: fc.oneof(fc.constantFrom<unknown>(2, 2, 0, 16), number),
      cols: fc.oneof(fc.constantFrom<unknown>(32, 32, 0, 2 ** 40), number),
    });
    // Mostly what is sound, so that single members are tried as well.
    const mostly = (usual: unknown, other: fc.Arbitrary<unknown>) =>
      fc.oneof({ weight: 5, arbitrary: fc.constant(usual) }, { weight: 1, arbitrary: other });
    const { parts } = sound;
    const description = fc.record({
      rows: mostly(2, number),
      cols: mostly(64, number),
      groupSize: mostly(32, number),
      widths: mostly('42', fc.oneof(fc.constantFrom('4', '24', '1', '', '2222'), number)),
      parts: mostly(parts, fc.array(fc.oneof(fc.constantFrom(...parts), anyPart, number))),
    });
    let accepted = 0;
    fc.assert(
      fc.property(description, fc.constantFrom(100, 100, 0, 20, 36), (value, bytes) => {
        try {
          const matrix = read(value, bytes).mixed.get('w') as MixedTensor;
          const last = matrix.segments.at(-1);
          if (last !== undefined && bytes > 0) {
            expect(last.weights.bytes.byteOffset + last.weights.bytes.byteLength).toBe(
              last.weights.bytes.buffer.byteLength,
            );
          }
          accepted++;
        } catch (error) {
          if (!(error instanceof BitloomError)) throw error;
          expect(error.code).toMatch(/^BL_(INVALID_FILE|UNSUPPORTED)$/);
          expect(error.message.length).toBeLessThan(1000);
        }
      }),
      { numRuns: 2000 },
    );
    expect(accepted).toBeGreaterThan(100);
    expect(read(sound).mixed.get('w')?.segments.length).toBe(2);
  });
});
