import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join as joinPath } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { BitloomError } from '../../lib/errors.js';
import {
  memorySource,
  readSafetensors,
  SAFETENSORS_TYPES,
  type SafetensorsContent,
  safetensorsBytes,
  writeSafetensors,
} from '../../lib/io/index.js';
import { join, raw, thrown } from './raw.js';

const filled = (bytes: number, seed = 1) =>
  Uint8Array.from({ length: bytes }, (_, i) => (i * 31 + seed) & 255);
/** A file with this header and `data` bytes of data. */
const file = (header: string, data = 0) =>
  join(raw.u64(Buffer.byteLength(header)), raw.text(header), raw.zeros(data));
const tensor = (begin: number, end: number, shape: number[], dtype = 'U8') =>
  JSON.stringify({ dtype, shape, data_offsets: [begin, end] });

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(joinPath(tmpdir(), 'bitloom-safetensors-'));
});
afterAll(() => rm(folder, { recursive: true }));

describe('round trip', () => {
  const metadata = new Map([
    ['format', 'pt'],
    ['__proto__', '"quoted\\"\n🦙'],
  ]);
  const tensors = [...SAFETENSORS_TYPES].map(([type, width], i) => ({
    name: `${type} ${'"\\\u0000é'.slice(0, i % 5)}${i}`,
    type,
    shape: [3, 5],
    data: filled(15 * width, i),
  }));

  it('keeps tensors of every type, each aligned to its elements', () => {
    const read = readSafetensors(memorySource(safetensorsBytes({ metadata, tensors })));
    expect(read.metadata).toEqual(metadata);
    expect(read.tensors.size).toBe(tensors.length);
    for (const { name, type, shape, data } of tensors) {
      const found = read.tensors.get(name);
      expect(found).toMatchObject({ name, type, shape, bytes: data.length });
      expect((found?.offset ?? -1) % (SAFETENSORS_TYPES.get(type) ?? 0)).toBe(0);
      expect(found?.data()).toEqual(data);
    }
  });

  it('writes to a file what safetensorsBytes gives', async () => {
    const path = joinPath(folder, 'a.safetensors');
    const lazy = tensors.map((one) => ({ ...one, data: () => Promise.resolve(one.data) }));
    await writeSafetensors(path, { metadata, tensors: lazy });
    expect(new Uint8Array(await readFile(path))).toEqual(safetensorsBytes({ metadata, tensors }));
    expect(await readdir(folder)).toEqual(['a.safetensors']);
  });

  it('keeps scalars, empty tensors and empty files', () => {
    const shapes = [[], [0], [7, 0, 2 ** 50], [1, 1, 1, 1, 1, 1]];
    const some = shapes.map((shape, i) => ({
      name: String(i),
      type: 'f32',
      shape,
      data: raw.zeros(shape.includes(0) ? 0 : 4),
    }));
    const read = readSafetensors(memorySource(safetensorsBytes({ tensors: some })));
    expect([...read.tensors.values()].map((one) => one.shape)).toEqual(shapes);
    expect(readSafetensors(memorySource(safetensorsBytes({ tensors: [] }))).tensors.size).toBe(0);
  });

  it('writes headers that JSON.parse reads', () => {
    const text = fc.string({ unit: 'binary' });
    fc.assert(
      fc.property(fc.uniqueArray(text), fc.dictionary(text, text), (names, more) => {
        const some = names
          .filter((name) => name !== '__metadata__')
          .map((name, i) => ({ name, type: 'u8', shape: [i], data: filled(i) }));
        const bytes = safetensorsBytes({ metadata: more, tensors: some });
        const length = Number(new DataView(bytes.buffer).getBigUint64(0, true));
        const parsed = JSON.parse(Buffer.from(bytes.subarray(8, 8 + length)).toString());
        const read = readSafetensors(memorySource(bytes));
        expect(Object.entries(parsed.__metadata__)).toEqual(
          Object.entries(Object.fromEntries(read.metadata)),
        );
        for (const { name, data } of some) expect(read.tensors.get(name)?.data()).toEqual(data);
      }),
      { numRuns: 200 },
    );
  });

  it('reads headers with spaces, escapes and members in any order', () => {
    const header =
      ' \n{ "\\u00e9\\n" : {"data_offsets" : [0 , 2],\t"shape":[ 2 ] , "dtype":"U8" } , "e":{"shape":[0],"dtype":"F64","data_offsets":[2,2]}}  ';
    const bytes = file(header.trimStart(), 2);
    expect([...readSafetensors(memorySource(bytes)).tensors.keys()]).toEqual(['é\n', 'e']);
  });
});

const INVALID = 'BL_INVALID_FILE';
const one = `{"t":${tensor(0, 4, [4])}}`;
const cases: [string, Uint8Array, string, string][] = [
  ['nothing', raw.zeros(0), INVALID, 'header length at byte 0 needs 8 bytes'],
  ['2^63 header', join(raw.u64(2n ** 63n), raw.zeros(9)), INVALID, 'is 9223372036854775808'],
  [
    'long header',
    join(raw.u64(100_000_001), raw.zeros(9)),
    INVALID,
    'header length at byte 0 is 100000001, expected at most 100000000',
  ],
  [
    'header past the end',
    join(raw.u64(10), raw.zeros(9)),
    INVALID,
    'header at byte 8 needs 10 bytes, but the file ends after 9 more',
  ],
  ['not UTF-8', join(raw.u64(1), raw.bytes(0xff)), INVALID, 'header at byte 8 is not valid UTF-8'],
  ['empty header', file(''), INVALID, 'expected {; at character 0 of the header stands the end'],
  ['byte order mark', file('\ufeff{}'), INVALID, 'expected {'],
  ['leading space', file(' {}'), INVALID, 'expected {'],
  ['a list', file('[]'), INVALID, 'expected {'],
  ['unfinished', file('{"t"'), INVALID, 'header: expected :'],
  ['unfinished string', file('{"t\\"'), INVALID, 'expected a string with an end'],
  ['bad escape', file('{"\\x":1}'), INVALID, 'expected a JSON string'],
  ['raw newline', file('{"\n":1}'), INVALID, 'expected a JSON string'],
  ['lone surrogate', file('{"\\ud800":1}'), INVALID, 'lone surrogate'],
  ['trailing comma', file('{"__metadata__":{},}'), INVALID, 'key in header: expected a string'],
  ['text after', file('{}x'), INVALID, 'expected nothing after the header but spaces'],
  [
    'same tensor',
    file(`{"t":${tensor(0, 1, [1])},"t":${tensor(1, 2, [1])}}`, 2),
    INVALID,
    'header has "t" twice',
  ],
  [
    'same tensor, escaped',
    file(`{"t":${tensor(0, 1, [1])},"\\u0074":${tensor(1, 2, [1])}}`, 2),
    INVALID,
    'header has "t" twice',
  ],
  [
    'same member',
    file('{"t":{"dtype":"U8","dtype":"U8","shape":[],"data_offsets":[0,1]}}', 1),
    INVALID,
    'tensor "t" has "dtype" twice',
  ],
  [
    'same metadata',
    file('{"__metadata__":{"a":"1","a":"2"}}'),
    INVALID,
    '__metadata__ has "a" twice',
  ],
  ['metadata number', file('{"__metadata__":{"a":1}}'), INVALID, 'metadata "a": expected a string'],
  ['metadata text', file('{"__metadata__":"a"}'), INVALID, '__metadata__: expected {'],
  ['tensor null', file('{"t":null}'), INVALID, 'tensor "t": expected {'],
  [
    'unknown member',
    file('{"t":{"strides":[1]}}'),
    INVALID,
    'tensor "t" has "strides", expected dtype, shape and data_offsets',
  ],
  [
    'no dtype',
    file('{"t":{"shape":[],"data_offsets":[0,0]}}'),
    INVALID,
    'tensor "t" is incomplete',
  ],
  [
    'one offset',
    file('{"t":{"dtype":"U8","shape":[],"data_offsets":[0]}}'),
    INVALID,
    'tensor "t" is incomplete',
  ],
  [
    'three offsets',
    file('{"t":{"dtype":"U8","shape":[],"data_offsets":[0,1,2]}}'),
    INVALID,
    'has more than 2 numbers',
  ],
  [
    '17 dimensions',
    file(`{"t":${tensor(0, 1, new Array(17).fill(1))}}`, 1),
    INVALID,
    'has more than 16 numbers',
  ],
  ['negative length', file(`{"t":${tensor(0, 4, [-4])}}`, 4), INVALID, 'expected a whole number'],
  ['fraction', file(`{"t":${tensor(0, 4, [4.5])}}`, 4), INVALID, 'expected ]'],
  [
    'exponent',
    file('{"t":{"dtype":"U8","shape":[1e2],"data_offsets":[0,100]}}', 100),
    INVALID,
    'expected ]',
  ],
  [
    'leading zero',
    file('{"t":{"dtype":"U8","shape":[01],"data_offsets":[0,1]}}', 1),
    INVALID,
    'expected no leading zero',
  ],
  [
    '2^53',
    file(`{"t":${tensor(0, 2 ** 53, [1])}}`, 4),
    INVALID,
    'has 9007199254740992, expected at most 2^53 - 1',
  ],
  [
    'shape over 2^53',
    file(`{"t":${tensor(0, 4, [2 ** 50, 2 ** 50])}}`, 4),
    INVALID,
    'has 4 bytes, expected less than 2^53',
  ],
  [
    'wrong size',
    file(`{"t":${tensor(0, 4, [5])}}`, 4),
    INVALID,
    'has 4 bytes, expected 5 (U8 [5])',
  ],
  [
    'backwards',
    file(`{"t":${tensor(4, 0, [4])}}`, 4),
    INVALID,
    'has data_offsets [4, 0], expected begin <= end',
  ],
  [
    'unknown dtype',
    file(`{"t":${tensor(0, 4, [8], 'F4')}}`, 4),
    'BL_UNSUPPORTED',
    'tensor "t" has dtype "F4", expected one of BOOL, U8',
  ],
  [
    'lower case dtype',
    file(`{"t":${tensor(0, 4, [4], 'u8')}}`, 4),
    'BL_UNSUPPORTED',
    'has dtype "u8"',
  ],
  [
    'hole at the start',
    file(`{"t":${tensor(1, 5, [4])}}`, 5),
    INVALID,
    'begins at 1 of the data, expected 0',
  ],
  [
    'hole',
    file(`{"t":${tensor(0, 4, [4])},"u":${tensor(5, 6, [1])}}`, 6),
    INVALID,
    'tensor "u" begins at 5 of the data, expected 4',
  ],
  [
    'overlap',
    file(`{"t":${tensor(0, 4, [4])},"u":${tensor(3, 5, [2])}}`, 5),
    INVALID,
    'tensor "u" begins at 3 of the data, expected 4',
  ],
  ['missing data', file(one, 3), INVALID, 'the file has 3 bytes of data, expected 4'],
  ['data after the last', file(one, 5), INVALID, 'the file has 5 bytes of data, expected 4'],
];

describe('readSafetensors refuses', () => {
  it.each(cases)('%s', (_, bytes, code, message) => {
    const error = thrown(() => readSafetensors(memorySource(bytes)));
    expect(error).toBeInstanceOf(BitloomError);
    expect(error).toMatchObject({ code, operator: 'readSafetensors' });
    expect((error as Error).message).toContain(message);
  });

  it('long runs of anything, soon', () => {
    const count = 1_000_000;
    for (const run of ['\\"', '\\\\', '{', '[', ' ', '"', '{"a":', '0', '漢']) {
      for (const begin of ['{"', '{', '{"t":{"shape":[']) {
        const bytes = file(begin + run.repeat(count / run.length));
        expect(thrown(() => readSafetensors(memorySource(bytes)))).toMatchObject({ code: INVALID });
      }
    }
  });
});

describe('writeSafetensors refuses', () => {
  const good = { name: 'x', type: 'f32', shape: [1], data: raw.zeros(4) };
  it.each<[string, SafetensorsContent, string]>([
    [
      'type',
      { tensors: [{ ...good, type: 'F32' }] },
      'tensor "x" has type "F32", expected one of bool',
    ],
    ['shape', { tensors: [{ ...good, shape: [-1] }] }, 'tensor "x" has shape [-1]'],
    [
      'size',
      { tensors: [{ ...good, data: raw.zeros(5) }] },
      'tensor "x" has 5 bytes of data, expected 4 (f32 [1])',
    ],
    [
      'data',
      { tensors: [{ ...good, data: 'abcd' as unknown as Uint8Array }] },
      'tensor "x" has string data',
    ],
    ['name', { tensors: [{ ...good, name: '\udfff' }] }, 'expected valid Unicode'],
    ['same name', { tensors: [good, good] }, 'has a name that is taken'],
    ['reserved name', { tensors: [{ ...good, name: '__metadata__' }] }, 'has a name that is taken'],
    [
      'metadata',
      { metadata: { a: 1 as unknown as string }, tensors: [] },
      'metadata "a" has number',
    ],
  ])('a wrong %s', async (_, content, message) => {
    const before = await readdir(folder);
    const error = await writeSafetensors(joinPath(folder, 'never'), content).catch(
      (e: unknown) => e,
    );
    expect(error).toBeInstanceOf(TypeError);
    expect(error).toMatchObject({ code: 'BL_INVALID_ARGUMENT' });
    expect((error as Error).message).toContain(`writeSafetensors: `);
    expect((error as Error).message).toContain(message);
    expect(await readdir(folder)).toEqual(before);
  });
});
