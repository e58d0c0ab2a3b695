import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gguf } from '@huggingface/gguf';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  GGML_TYPES,
  type GGUFValue,
  type GGUFValueType,
  ggmlType,
  tensorBytes,
} from '../../lib/io/gguf_types.js';
import {
  type GGUFContent,
  ggufBytes,
  memorySource,
  readGGUF,
  writeGGUF,
} from '../../lib/io/index.js';

const read = (content: GGUFContent) => readGGUF(memorySource(ggufBytes(content)));
const filled = (bytes: number, seed = 1) =>
  Uint8Array.from({ length: bytes }, (_, i) => (i * 31 + seed) & 255);

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'bitloom-gguf-'));
});
afterAll(() => rm(folder, { recursive: true }));

describe('round trip', () => {
  const values: [string, GGUFValueType, GGUFValue][] = [
    ['u8', 'u8', 255],
    ['i8', 'i8', -128],
    ['u16', 'u16', 65535],
    ['i16', 'i16', -32768],
    ['u32', 'u32', 4294967295],
    ['i32', 'i32', -2147483648],
    ['f32', 'f32', 0.5],
    ['u64 small', 'u64', 7],
    ['u64 large', 'u64', 2n ** 64n - 1n],
    ['i64 large', 'i64', -(2n ** 63n)],
    ['i64 edge', 'i64', Number.MIN_SAFE_INTEGER],
    ['f64', 'f64', Math.PI],
    ['nan', 'f32', Number.NaN],
    ['bool', 'bool', true],
    ['string', 'string', '\ufeffgrüße 🦙\0'],
    ['empty', 'string', ''],
    ['bools', 'bool[]', [true, false]],
    ['strings', 'string[]', ['', '▁a', 'x'.repeat(5000)]],
    ['floats', 'f32[]', [1, -0.25, Number.NEGATIVE_INFINITY]],
    ['longs', 'u64[]', [1, 2n ** 60n + 1n]],
    ['nested', 'i16[][]', [[1, -2], [], [3]]],
    ['none', 'string[]', []],
  ];

  it('keeps metadata values and their types', () => {
    const metadata = new Map(values.map(([key, , value]) => [key, value]));
    const types = new Map(values.map(([key, type]) => [key, type]));
    const file = read({ metadata, types, tensors: [] });
    expect(file.metadata).toEqual(metadata);
    expect(file.types).toEqual(types);
    const again = ggufBytes({ metadata: file.metadata, types: file.types, tensors: [] });
    expect(again).toEqual(ggufBytes({ metadata, types, tensors: [] }));
  });

  it('gives values without a type the documented one', () => {
    const metadata = {
      bool: false,
      string: 's',
      u32: 1,
      i32: -1,
      u64: 2 ** 32,
      i64: -(2 ** 40),
      big: 2n ** 63n,
      f32: 1.5,
      ints: [1, -2],
      floats: [1, 2.5],
      strings: ['a'],
      nested: [[1], [2]],
      none: [],
    };
    expect([...read({ metadata, tensors: [] }).types.values()]).toEqual([
      'bool',
      'string',
      'u32',
      'i32',
      'u64',
      'i64',
      'u64',
      'f32',
      'i32[]',
      'f32[]',
      'string[]',
      'u32[][]',
      'u8[]',
    ]);
  });

  it('keeps tensors of every type', () => {
    const tensors = GGML_TYPES.map((type, i) => {
      const shape = [2, 3, type.blockSize * 2];
      const size = tensorBytes(type, shape);
      if ('problem' in size) throw new Error(size.problem);
      expect(size.bytes).toBe(12 * type.blockBytes);
      return { name: `t${i}`, type: type.name, shape, data: filled(size.bytes, i) };
    });
    for (const alignment of [1, 32, 4096]) {
      const file = read({ tensors, alignment });
      expect(file.alignment).toBe(alignment);
      expect([...file.tensors.keys()]).toEqual(tensors.map((tensor) => tensor.name));
      for (const { name, type, shape, data } of tensors) {
        const tensor = file.tensors.get(name);
        expect(tensor).toMatchObject({ name, type, shape, bytes: data.length });
        expect((tensor?.offset ?? -1) % alignment).toBe(0);
        expect(tensor?.data()).toEqual(data);
      }
    }
  });

  it('keeps shapes of 0 to 4 dimensions', () => {
    const shapes = [[], [5], [2, 3], [2, 3, 4], [2, 3, 4, 5]];
    const tensors = shapes.map((shape) => ({
      name: `t${shape.length}`,
      type: 'i8',
      shape,
      data: filled(shape.reduce((product, length) => product * length, 1)),
    }));
    const file = read({ tensors });
    expect([...file.tensors.values()].map((tensor) => tensor.shape)).toEqual(shapes);
  });

  it('gives views, not copies', () => {
    const bytes = ggufBytes({ tensors: [{ name: 't', type: 'i8', shape: [4], data: filled(4) }] });
    const tensor = readGGUF(memorySource(bytes)).tensors.get('t');
    bytes[tensor?.offset ?? -1] = 99;
    expect(tensor?.data()[0]).toBe(99);
  });

  it('reads version 2', () => {
    const bytes = ggufBytes({ metadata: { a: 1 }, tensors: [] });
    bytes[4] = 2;
    expect(readGGUF(memorySource(bytes))).toMatchObject({ version: 2 });
  });

  it('holds for any metadata', () => {
    const text = fc.string({ unit: 'binary' });
    const value = fc.oneof(
      text,
      fc.boolean(),
      fc.integer(),
      fc.bigInt(-(2n ** 63n), -(2n ** 53n)),
      fc.bigInt(2n ** 53n, 2n ** 64n - 1n),
      fc.float(),
      fc.array(text),
      fc.array(fc.integer()),
    );
    fc.assert(
      fc.property(fc.array(fc.tuple(text, value)), (entries) => {
        const metadata = new Map(entries.filter(([key]) => key !== 'general.alignment'));
        const file = read({ metadata, tensors: [] });
        // -0 as a whole number is 0; everything else comes back as it was.
        const plain = [...metadata].map(([key, v]) => [key, Object.is(v, -0) ? 0 : v]);
        expect([...file.metadata]).toEqual(plain);
      }),
      { numRuns: 200 },
    );
  });
});

describe('writeGGUF', () => {
  const metadata = {
    'general.architecture': 'llama',
    'general.name': 'täst',
    'llama.block_count': 1,
    'tokenizer.ggml.tokens': ['a', 'ß', '▁b'],
    'tokenizer.ggml.scores': [0, -1.5, 2],
  };
  const tensors = [
    { name: 'a.weight', type: 'f32', shape: [3, 5], data: filled(60) },
    { name: 'b.weight', type: 'q4_0', shape: [2, 64], data: filled(72, 5) },
    { name: 'c.weight', type: 'tq1_0', shape: [256], data: filled(54, 9) },
  ];

  it('writes what ggufBytes gives, making one tensor at a time', async () => {
    const path = join(folder, 'one.gguf');
    const log: string[] = [];
    const lazy = tensors.map((tensor, i) => ({
      ...tensor,
      data: () => {
        log.push(tensor.name);
        return i === 1 ? Promise.resolve(tensor.data) : tensor.data;
      },
    }));
    await writeGGUF(path, { metadata, tensors: lazy });
    expect(log).toEqual(['a.weight', 'b.weight', 'c.weight']);
    const bytes = new Uint8Array(await readFile(path));
    expect(bytes).toEqual(ggufBytes({ metadata, tensors }));
    expect(await readdir(folder)).toEqual(['one.gguf']);
  });

  it('writes what @huggingface/gguf reads', async () => {
    const path = join(folder, 'hf.gguf');
    await writeGGUF(path, { metadata, tensors, alignment: 64 });
    const theirs = await gguf(path, { allowLocalFile: true });
    const ours = readGGUF(memorySource(new Uint8Array(await readFile(path))));
    const { version, tensor_count, kv_count, ...rest } = theirs.metadata as Record<string, unknown>;
    expect([version, tensor_count, kv_count]).toEqual([3, 3n, 6n]);
    expect(rest).toEqual(Object.fromEntries(ours.metadata));
    for (const info of theirs.tensorInfos) {
      const tensor = ours.tensors.get(info.name);
      expect(tensor?.shape).toEqual(info.shape.map(Number).reverse());
      expect(ggmlType(tensor?.type ?? '')?.id).toBe(info.dtype);
      expect(tensor?.offset).toBe(Number(theirs.tensorDataOffset + info.offset));
    }
    await rm(path);
  });

  it('leaves no file behind when a tensor cannot be made', async () => {
    const path = join(folder, 'bad.gguf');
    const before = await readdir(folder);
    const broken = { name: 'x', type: 'f32', shape: [2] };
    const failure = new Error('no weights today');
    const fails = () => {
      throw failure;
    };
    await expect(writeGGUF(path, { tensors: [{ ...broken, data: fails }] })).rejects.toBe(failure);
    const short = { ...broken, data: () => new Uint8Array(7) };
    await expect(writeGGUF(path, { tensors: [short] })).rejects.toThrow(
      'writeGGUF: tensor "x" has 7 bytes of data, expected 8 (f32 [2])',
    );
    expect(await readdir(folder)).toEqual(before);
  });

  it('replaces an old file only when the new one is complete', async () => {
    const path = join(folder, 'old.gguf');
    await writeGGUF(path, { metadata: { a: 1 }, tensors: [] });
    const old = await readFile(path);
    const short = { name: 'x', type: 'f32', shape: [2], data: () => new Uint8Array(7) };
    await expect(writeGGUF(path, { tensors: [short] })).rejects.toThrow();
    expect(await readFile(path)).toEqual(old);
    await writeGGUF(path, { metadata: { a: 2 }, tensors: [] });
    expect(await readFile(path)).not.toEqual(old);
  });

  it.each<[string, GGUFContent, string, string]>([
    [
      'type',
      { tensors: [{ name: 'x', type: 'q9', shape: [1], data: filled(1) }] },
      'BL_INVALID_ARGUMENT',
      'tensor "x" has type "q9"',
    ],
    [
      'row',
      { tensors: [{ name: 'x', type: 'q4_0', shape: [2, 33], data: filled(1) }] },
      'BL_INVALID_ARGUMENT',
      'rows of 33 values, expected a multiple of 32 (the block of q4_0)',
    ],
    [
      'zero',
      { tensors: [{ name: 'x', type: 'f32', shape: [0], data: filled(0) }] },
      'BL_INVALID_ARGUMENT',
      'shape [0]',
    ],
    [
      'rank',
      { tensors: [{ name: 'x', type: 'f32', shape: [1, 1, 1, 1, 1], data: filled(4) }] },
      'BL_INVALID_ARGUMENT',
      '5 dimensions, expected at most 4',
    ],
    [
      'huge',
      { tensors: [{ name: 'x', type: 'f32', shape: [2 ** 30, 2 ** 30], data: filled(4) }] },
      'BL_INVALID_ARGUMENT',
      'at most 2^53 - 1 values',
    ],
    [
      'long name',
      { tensors: [{ name: 'é'.repeat(32), type: 'i8', shape: [1], data: filled(1) }] },
      'BL_INVALID_ARGUMENT',
      'a name of 64 bytes, expected at most 63',
    ],
    [
      'surrogate name',
      { tensors: [{ name: '\ud800', type: 'i8', shape: [1], data: filled(1) }] },
      'BL_INVALID_ARGUMENT',
      'not text',
    ],
    [
      'twice',
      { tensors: ['x', 'x'].map((name) => ({ name, type: 'i8', shape: [1], data: filled(1) })) },
      'BL_INVALID_ARGUMENT',
      'tensor "x" occurs twice',
    ],
    ['alignment', { tensors: [], alignment: 24 }, 'BL_INVALID_ARGUMENT', 'alignment is 24'],
    [
      'surrogate',
      { metadata: { a: 'x\udc00' }, tensors: [] },
      'BL_INVALID_ARGUMENT',
      'lone surrogates',
    ],
    [
      'mixed',
      { metadata: { a: [1, 'x'] }, tensors: [] },
      'BL_INVALID_ARGUMENT',
      'metadata "a" is "x", expected a number',
    ],
    [
      'depth',
      { metadata: { a: [[[[[1]]]]] }, tensors: [] },
      'BL_INVALID_ARGUMENT',
      'nests arrays deeper than 4',
    ],
    [
      'range',
      { metadata: { a: 256 }, types: { a: 'u8' }, tensors: [] },
      'BL_OUT_OF_RANGE',
      '"a" is 256, expected 0 to 255 (u8)',
    ],
    ['64 bits', { metadata: { a: 2n ** 64n }, tensors: [] }, 'BL_OUT_OF_RANGE', 'outside 64 bits'],
    [
      'fraction',
      { metadata: { a: 0.5 }, types: { a: 'i32' }, tensors: [] },
      'BL_INVALID_ARGUMENT',
      'a whole number (i32)',
    ],
    [
      'unknown type',
      { metadata: { a: 1 }, types: { a: 'u7' as 'u8' }, tensors: [] },
      'BL_INVALID_ARGUMENT',
      'has type "u7"',
    ],
    [
      'null',
      { metadata: { a: null as unknown as string }, tensors: [] },
      'BL_INVALID_ARGUMENT',
      'metadata "a" is object',
    ],
  ])('refuses a wrong %s', async (_, content, code, message) => {
    const path = join(folder, 'never.gguf');
    const error = await writeGGUF(path, content).catch((reason: unknown) => reason);
    expect(error).toMatchObject({ code });
    expect(error).toBeInstanceOf(code === 'BL_OUT_OF_RANGE' ? RangeError : TypeError);
    expect((error as Error).message).toContain(message);
    expect(await readdir(folder)).not.toContain('never.gguf');
  });
});
