import { describe, expect, it } from 'vitest';
import { BitloomError } from '../../lib/errors.js';
import { GGML_TYPES, ggufBytes, memorySource, readGGUF } from '../../lib/io/index.js';
import { join, raw, thrown } from './raw.js';

const { u32, u64, string, zeros } = raw;
const MAGIC = raw.text('GGUF');

const header = (tensors: number | bigint, metadata: number | bigint, ...rest: Uint8Array[]) =>
  join(MAGIC, u32(3), u64(tensors), u64(metadata), ...rest);
/** A file with one metadata entry "k", room behind it. */
const entry = (type: number, ...value: Uint8Array[]) =>
  header(0, 1, string('k'), u32(type), ...value, zeros(64));
/** An entry of a tensor table. */
const info = (name: string, ne: (number | bigint)[], type: number, offset: number | bigint) =>
  join(string(name), u32(ne.length), ...ne.map(u64), u32(type), u64(offset));
/** A file with these tensors and `data` bytes of data. */
const table = (data: number, ...infos: Uint8Array[]) => {
  const start = header(infos.length, 0, ...infos);
  return join(start, zeros((32 - (start.length % 32)) % 32), zeros(data));
};
const alignment = (type: number, ...value: Uint8Array[]) =>
  header(0, 1, string('general.alignment'), u32(type), ...value, zeros(64));

const INVALID = 'BL_INVALID_FILE';
const UNSUPPORTED = 'BL_UNSUPPORTED';
const HUGE = 2n ** 63n;

const cases: [string, Uint8Array, string, string][] = [
  ['nothing', zeros(0), INVALID, 'magic at byte 0 needs 4 bytes, but the file ends after 0 more'],
  [
    'wrong magic',
    raw.text('GGML____'),
    INVALID,
    'magic at byte 0 is 0x4c4d4747, expected 0x46554747',
  ],
  ['only magic', MAGIC, INVALID, 'version at byte 4 needs 4 bytes'],
  [
    'version 1',
    join(MAGIC, u32(1), zeros(99)),
    UNSUPPORTED,
    'version at byte 4 is 1, expected 2 or 3',
  ],
  ['version 4', join(MAGIC, u32(4), zeros(99)), UNSUPPORTED, 'version at byte 4 is 4'],
  [
    'big endian',
    join(MAGIC, raw.bytes(0, 0, 0, 3), zeros(99)),
    UNSUPPORTED,
    'the file is big endian',
  ],
  ['no counts', join(MAGIC, u32(3), zeros(7)), INVALID, 'tensor count at byte 8 needs 8 bytes'],
  ['2^63 tensors', header(HUGE, 0), INVALID, 'tensor count at byte 8 is 9223372036854775808'],
  ['-1 tensors', header(-1, 0), INVALID, 'expected at most 2^53 - 1'],
  [
    'too many tensors',
    header(1000, 0, zeros(100)),
    INVALID,
    'is 1000, expected at most 4 in this file',
  ],
  ['2^63 entries', header(0, HUGE), INVALID, 'metadata count at byte 16 is 9223372036854775808'],
  [
    'too many entries',
    header(0, 100, zeros(130)),
    INVALID,
    'is 100, expected at most 10 in this file',
  ],
  [
    'long key',
    header(0, 1, u64(2 ** 16), zeros(2 ** 17)),
    INVALID,
    'is 65536, expected at most 65535',
  ],
  ['endless key', header(0, 1, u64(2 ** 40), zeros(99)), INVALID, 'needs 1099511627776 bytes'],
  ['2^63 key', header(0, 1, u64(HUGE), zeros(99)), INVALID, 'length of metadata key 0 at byte 24'],
  [
    'key not UTF-8',
    header(0, 1, u64(2), raw.bytes(0xc3, 0x28), zeros(99)),
    INVALID,
    'metadata key 0 at byte 32 is not valid UTF-8',
  ],
  [
    'value not UTF-8',
    entry(8, u64(1), raw.bytes(0xff)),
    INVALID,
    'metadata "k" at byte 45 is not valid UTF-8',
  ],
  [
    'type 13',
    entry(13),
    INVALID,
    'type of metadata "k" at byte 33 is 13, expected 0 (u8) to 12 (f64)',
  ],
  [
    'bool 2',
    entry(7, raw.bytes(2)),
    INVALID,
    'metadata "k" at byte 37 is 2, expected 0 or 1 (bool)',
  ],
  [
    'same key',
    header(0, 2, ...[0, 1].flatMap(() => [string('k'), u32(4), u32(1)])),
    INVALID,
    'metadata "k" at byte 41 occurs twice',
  ],
  [
    'array too long',
    entry(9, u32(4), u64(17)),
    INVALID,
    'length of metadata "k" at byte 41 is 17 (u32), but only 64 bytes follow',
  ],
  [
    '2^63 array',
    entry(9, u32(0), u64(HUGE)),
    INVALID,
    'length of metadata "k" at byte 41 is 9223372036854775808',
  ],
  ['2^50 array', entry(9, u32(0), u64(2 ** 50)), INVALID, 'is 1125899906842624 (u8)'],
  ['2^50 strings', entry(9, u32(8), u64(2 ** 50)), INVALID, 'is 1125899906842624 (string)'],
  ['array type 13', entry(9, u32(13), u64(0)), INVALID, 'type of elements of metadata "k"'],
  [
    'deep array',
    entry(9, ...[1, 2, 3, 4].flatMap(() => [u32(9), u64(1)]), u32(0), u64(0)),
    UNSUPPORTED,
    'nests arrays more than 4 deep',
  ],
  [
    'mixed arrays',
    entry(9, u32(9), u64(2), u32(0), u64(0), u32(1), u64(0)),
    UNSUPPORTED,
    'elements of types u8[] and i8[]',
  ],
  [
    'alignment 0',
    alignment(4, u32(0)),
    INVALID,
    'general.alignment is "0" (u32), expected a power of two',
  ],
  ['alignment 48', alignment(4, u32(48)), INVALID, 'general.alignment is "48" (u32)'],
  ['alignment u64', alignment(10, u64(32)), INVALID, 'general.alignment is "32" (u64)'],
  [
    'alignment array',
    alignment(9, u32(4), u64(1), u32(32)),
    INVALID,
    'general.alignment is an array (u32[])',
  ],
  [
    'name not UTF-8',
    table(32, join(u64(1), raw.bytes(0x80), zeros(32))),
    INVALID,
    'tensor name at byte 32 is not valid UTF-8',
  ],
  [
    'long name',
    table(2 ** 17, join(u64(2 ** 16), zeros(32))),
    INVALID,
    'tensor name length at byte 24 is 65536, expected at most 65535',
  ],
  [
    '5 dimensions',
    table(32, info('t', [1, 1, 1, 1, 1], 0, 0)),
    INVALID,
    'tensor "t" at byte 24 has 5 dimensions, expected at most 4',
  ],
  [
    '2^32 - 1 dimensions',
    table(32, join(string('t'), u32(2 ** 32 - 1), zeros(40))),
    INVALID,
    'has 4294967295 dimensions',
  ],
  [
    'dimension 0',
    table(32, info('t', [4, 0], 0, 0)),
    INVALID,
    'has shape [0, 4], expected whole numbers of at least 1',
  ],
  [
    'dimension -1',
    table(32, info('t', [4, -1], 0, 0)),
    INVALID,
    'dimension 1 of tensor "t" at byte 45 is 18446744073709551615',
  ],
  ['2^63 dimension', table(32, info('t', [HUGE], 0, 0)), INVALID, 'is 9223372036854775808'],
  [
    'product over 2^64',
    table(32, info('t', [2 ** 40, 2 ** 40], 0, 0)),
    INVALID,
    'expected at most 2^53 - 1 values in all',
  ],
  [
    'bytes over 2^53',
    table(32, info('t', [2 ** 51], 28, 0)),
    INVALID,
    'expected at most 2^53 - 1 bytes in all',
  ],
  [
    'half a block',
    table(99, info('t', [33, 2], 2, 0)),
    INVALID,
    'has rows of 33 values, expected a multiple of 32 (the block of q4_0)',
  ],
  [
    'unknown type',
    table(32, info('t', [4], 99, 0)),
    UNSUPPORTED,
    'tensor "t" at byte 24 has unknown type 99',
  ],
  [
    'dropped type',
    table(32, info('t', [32], 4, 0)),
    UNSUPPORTED,
    'type 4 (q4_2), which GGML has dropped',
  ],
  [
    'same name',
    table(64, info('t', [4], 0, 0), info('t', [4], 0, 32)),
    INVALID,
    'tensor "t" at byte 57 occurs twice',
  ],
  [
    'crooked offset',
    table(64, info('t', [4], 0, 16)),
    INVALID,
    'tensor "t" has offset 16, expected a multiple of 32',
  ],
  [
    'offset -32',
    table(64, info('t', [4], 0, -32)),
    INVALID,
    'offset of tensor "t" at byte 49 is 18446744073709551584',
  ],
  ['offset past the end', table(32, info('t', [4], 0, 2 ** 52)), INVALID, 'but the file has 96'],
  [
    'data past the end',
    table(32, info('t', [9], 0, 0)),
    INVALID,
    'tensor "t" needs bytes 64 to 100, but the file has 96',
  ],
  [
    'no data at all',
    header(1, 0, info('t', [4], 0, 0)),
    INVALID,
    'needs bytes 64 to 80, but the file has 57',
  ],
  [
    'overlap',
    table(128, info('t', [16], 0, 0), info('u', [4], 0, 32)),
    INVALID,
    'tensor "u" begins at byte 128, inside "t", which ends at 160',
  ],
  [
    'overlap backwards',
    table(128, info('t', [4], 0, 32), info('u', [16], 0, 0)),
    INVALID,
    'tensor "t" begins at byte 128, inside "u", which ends at 160',
  ],
  ['same data', table(128, info('t', [4], 0, 0), info('u', [4], 0, 0)), INVALID, 'inside "t"'],
];

describe('readGGUF refuses', () => {
  it.each(cases)('%s', (_, bytes, code, message) => {
    const error = thrown(() => readGGUF(memorySource(bytes)));
    expect(error).toBeInstanceOf(BitloomError);
    expect(error).toMatchObject({ code, operator: 'readGGUF' });
    expect((error as Error).message).toContain(message);
  });

  it('every truncation of a file', () => {
    const bytes = ggufBytes({
      metadata: { name: 'täst', tokens: ['a', 'bc'], n: 3, deep: [[1], [2]] },
      tensors: GGML_TYPES.slice(0, 3).map((type, i) => ({
        name: `t${i}`,
        type: type.name,
        shape: [type.blockSize],
        data: zeros(type.blockBytes),
      })),
    });
    expect(readGGUF(memorySource(bytes)).tensors.size).toBe(3);
    // The last tensor (18 bytes of q4_0) is padded to 32; that padding may be missing.
    for (let length = 0; length < bytes.length - 14; length++) {
      const error = thrown(() => readGGUF(memorySource(bytes.subarray(0, length))));
      expect(error).toMatchObject({ code: INVALID });
    }
    expect(readGGUF(memorySource(bytes.subarray(0, bytes.length - 14))).tensors.size).toBe(3);
  });

  it('more array elements than fit in memory, without making them', () => {
    const bytes = header(0, 1, string('k'), u32(9), u32(0), u64(2 ** 23 + 1), zeros(2 ** 23 + 1));
    expect(() => readGGUF(memorySource(bytes))).toThrow(
      '8388609 elements, expected at most 8388608',
    );
  });

  it('more text than fit in memory, without keeping it', () => {
    // A file of a terabyte whose metadata is one list of strings of 2^20 zeros each.
    const start = entry(9, u32(8), u64(2 ** 23)).subarray(0, 49);
    const one = join(u64(2 ** 20), zeros(2 ** 20));
    let read = 0;
    const source = {
      size: 2 ** 40,
      dispose: () => {},
      bytes: (offset: number, length: number) => {
        read += length;
        const bytes = new Uint8Array(length);
        for (let at = offset; at < offset + length; ) {
          const within = (at - start.length) % one.length;
          const from = at < start.length ? start.subarray(at) : one.subarray(within);
          const part = from.subarray(0, offset + length - at);
          bytes.set(part, at - offset);
          at += part.length;
        }
        return bytes;
      },
    };
    const error = thrown(() => readGGUF(source));
    expect((error as Error).message).toContain('expected all metadata in the first 134217728');
    expect(read).toBeLessThan(2 ** 29);
  });

  it('strings longer than any text, without making them', () => {
    const bytes = entry(8, u64(2 ** 26 + 1), zeros(2 ** 26));
    expect(() => readGGUF(memorySource(bytes))).toThrow('67108865, expected at most 67108864');
  });
});

describe('readGGUF accepts', () => {
  it('a file without anything', () => {
    expect(readGGUF(memorySource(header(0, 0)))).toMatchObject({ version: 3, alignment: 32 });
  });

  it('gaps between tensors and data after the last', () => {
    const file = readGGUF(memorySource(table(999, info('t', [4], 0, 512), info('u', [4], 0, 64))));
    expect([...file.tensors.values()].map((tensor) => tensor.offset)).toEqual([608, 160]);
  });

  it('sources that give windows only, however large the strings', () => {
    const long = 'ü'.repeat(700_000);
    const bytes = ggufBytes({ metadata: { a: long, b: [long, 'x'] }, tensors: [] });
    let largest = 0;
    const source = {
      ...memorySource(bytes),
      size: bytes.length,
      bytes: (offset: number, length: number) => {
        largest = Math.max(largest, length);
        return bytes.slice(offset, offset + length);
      },
    };
    expect(readGGUF(source).metadata.get('b')).toEqual([long, 'x']);
    expect(largest).toBe(1_400_000);
  });
});
