// Pages that are not what their description says, and results that would be written into them.
import { describe, expect, it } from 'vitest';
import {
  type DecodeAttentionOptions,
  decodeAttention,
  KVPages,
  type KVSegment,
  Tensor,
} from '../../lib/index.js';
import { expectError } from '../reference/op_checks.js';
import { expectRefused, good, i32, pages, q } from './refused_segments.js';

/** A segment with something else in its pages than is true. */
const claim = (other: object): KVSegment => {
  const { keys, values, keyFormat, valueFormat, pageSize, numKvHeads, keyDim, valueDim, numPages } =
    pages;
  const all = {
    keys,
    values,
    keyFormat,
    valueFormat,
    pageSize,
    numKvHeads,
    keyDim,
    valueDim,
    numPages,
  };
  return { ...good, pages: { ...all, ...other } } as KVSegment;
};

describe('pages of decodeAttention', () => {
  it('every other page of a larger memory', () => {
    const [numPages, heads, bytes] = pages.keys.shape as [number, number, number];
    const twice = Tensor.zeros('u8', [2 * numPages, heads, bytes]);
    const strides = [2 * heads * bytes, bytes, 1];
    const keys = new Tensor('u8', twice.data, [numPages, heads, bytes], { strides });
    expectError(
      () => decodeAttention(q, [claim({ keys })]),
      'BL_INVALID_SHAPE',
      `decodeAttention: pages.keys has strides [${strides}], expected contiguous memory`,
    );
  });

  it('pages that are not what they say', () => {
    const format = 'a known format, 8 to 256 tokens in steps of 8 and 1 to 1024 channels';
    for (const [code, message, other] of [
      [
        'BL_INVALID_FORMAT',
        `keys has format 1, pages of 0 tokens and 8 channels, expected ${format}`,
        { pageSize: 0 },
      ],
      [
        'BL_INVALID_FORMAT',
        `keys has format 1, pages of 264 tokens and 8 channels, expected ${format}`,
        { pageSize: 264 },
      ],
      [
        'BL_INVALID_FORMAT',
        `keys has format 1, pages of 12 tokens and 8 channels, expected ${format}`,
        { pageSize: 12 },
      ],
      [
        'BL_INVALID_FORMAT',
        `keys has format 1, pages of 16 tokens and 1025 channels, expected ${format}`,
        { keyDim: 1025 },
      ],
      [
        'BL_INVALID_FORMAT',
        `values has format 1, pages of 16 tokens and -1 channels, expected ${format}`,
        { valueDim: -1 },
      ],
      [
        'BL_INVALID_SHAPE',
        'keys has 0 heads and 5 pages, expected at least 1 head and 0 to 2^31 - 1 pages',
        { numKvHeads: 0 },
      ],
      [
        'BL_INVALID_SHAPE',
        'keys has 2 heads and -5 pages, expected at least 1 head and 0 to 2^31 - 1 pages',
        { numPages: -5 },
      ],
      ['BL_INVALID_SHAPE', 'keys.dim is 7, expected 8 (= q.shape[2])', { keyDim: 7 }],
      [
        'BL_OUT_OF_RANGE',
        'keys has 2560 bytes, expected at least 3072 for 6 pages',
        { numPages: 6 },
      ],
      [
        'BL_OUT_OF_RANGE',
        `keys has 2560 bytes, expected at least ${(2 ** 31 - 1) * 512} for ${2 ** 31 - 1} pages`,
        { numPages: 2 ** 31 - 1 },
      ],
      [
        'BL_OUT_OF_RANGE',
        'keys has 2560 bytes, expected at least 5120 for 5 pages',
        { keyFormat: 'f32' },
      ],
      [
        'BL_OUT_OF_RANGE',
        'values has 5120 bytes, expected at least 10240 for 5 pages',
        { valueFormat: 'f32' },
      ],
      [
        'BL_INVALID_ARGUMENT',
        'keys.data is not aligned to 4 bytes',
        { keys: new Tensor('u8', new Uint8Array(2600).subarray(1), [2599]) },
      ],
    ] as [string, string, object][]) {
      expectRefused([claim(other)], code, message);
    }
    for (const [code, message, other] of [
      [
        'BL_INVALID_FORMAT',
        'pages.keyFormat is "q8_0", expected one of f32, f16, bf16, f8e4m3, i8, i4, i2, bfp8, bfp4',
        { keyFormat: 'q8_0' },
      ],
      [
        'BL_INVALID_FORMAT',
        'pages.valueFormat is "", expected one of f32, f16, bf16, f8e4m3, i8, i4, i2, bfp8, bfp4',
        { valueFormat: '' },
      ],
      ['BL_INVALID_ARGUMENT', 'pages.keys is undefined, expected a Tensor', { keys: undefined }],
    ] as [string, string, object][]) {
      expectRefused([claim(other)], code, message, {}, 'decodeAttention');
    }
  });

  it('results in the memory of pages', () => {
    const memory = new Float32Array(pages.keys.bytes.buffer, pages.keys.bytes.byteOffset, 64);
    const inside = (shape: number[]) =>
      new Tensor(
        'f32',
        memory.subarray(
          0,
          shape.reduce((a, b) => a * b),
        ),
        shape,
      );
    const wide = new KVPages({
      keyFormat: 'f16',
      numKvHeads: 2,
      keyDim: 8,
      valueDim: 5,
      numPages: 5,
    });
    const recent = new KVPages({
      keyFormat: 'f32',
      numKvHeads: 2,
      keyDim: 8,
      valueDim: 5,
      numPages: 1,
    });
    const second: KVSegment = {
      pages: recent,
      blockTable: i32([0, 0], 2, 1),
      lengths: i32([0, 0], 2),
    };
    const values = pages.values as Tensor<'u8'>;
    const ofValues = new Float32Array(values.bytes.buffer, values.bytes.byteOffset, 8);
    for (const [message, options] of [
      ['output overlaps keys', { out: inside([2, 4, 5]) }],
      ['lse overlaps keys', { lse: inside([2, 4]) }],
      ['lse overlaps values', { lse: new Tensor('f32', ofValues, [2, 4]) }],
    ] as [string, DecodeAttentionOptions][]) {
      expectRefused([good], 'BL_INVALID_ARGUMENT', `${message}, expected separate memory`, options);
    }
    const late = new Float32Array(recent.keys.bytes.buffer, recent.keys.bytes.byteOffset, 8);
    expectRefused(
      [{ ...good, pages: wide }, second],
      'BL_INVALID_ARGUMENT',
      'lse overlaps recent.keys, expected separate memory',
      { lse: new Tensor('f32', late, [2, 4]) },
    );
  });

  it('pages of which there are none', () => {
    const none = new KVPages({ keyFormat: 'f16', numKvHeads: 2, keyDim: 8, numPages: 0 });
    expect(() => decodeAttention(q, [{ ...good, pages: none, lengths: i32([0, 0], 2) }])).toThrow(
      'decodeAttention: pages.numPages is 0, expected at least 1, also where no sequence has a token',
    );
  });

  it('an output within the pages', () => {
    const floats = new KVPages({
      keyFormat: 'f32',
      numKvHeads: 2,
      keyDim: 8,
      valueDim: 5,
      numPages: 5,
    });
    for (const [name, data] of [
      ['keys', floats.keys.bytes],
      ['values', (floats.values as Tensor<'u8'>).bytes],
    ] as const) {
      const out = new Tensor('f32', data.subarray(0, 160), [2, 4, 5]);
      expectError(
        () => decodeAttention(q, [{ ...good, pages: floats }], { out }),
        'BL_INVALID_ARGUMENT',
        `attention: output overlaps ${name}, expected separate memory`,
      );
    }
  });
});
