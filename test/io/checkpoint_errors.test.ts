// What importers refuse, and with which words.
import { describe, expect, it } from 'vitest';
import { importAwq, importCompressedTensors, importGptq } from '../../lib/io/index.js';
import { thrown } from '../reference/views.js';
import { floats } from './checkpoint_layers.js';
import { any, awq, but, gptq, int32, options, packed, pick } from './checkpoint_sound.js';

type Case = [name: string, call: () => unknown, code: string, message: string];
const G = 'importGptq: ';
const gptqCases: Case[] = [
  [
    '5 bits',
    () => importGptq(gptq, { ...options, bits: 5 }),
    'BL_UNSUPPORTED',
    `${G}bits is 5, expected 2, 3, 4, 8`,
  ],
  [
    'bits as text',
    () => importGptq(gptq, any({ bits: '4' })),
    'BL_UNSUPPORTED',
    `${G}bits is "4", expected 2, 3, 4, 8`,
  ],
  [
    'groups of 48',
    () => importGptq(gptq, { ...options, groupSize: 48 }),
    'BL_UNSUPPORTED',
    `${G}groupSize is 48, expected 32, 64, 128, 256, or -1 (the row of 64)`,
  ],
  [
    'no group size',
    () => importGptq(gptq, any({ bits: 4 })),
    'BL_UNSUPPORTED',
    `${G}groupSize is undefined, expected`,
  ],
  [
    'version 3',
    () => importGptq(gptq, any({ ...options, version: 3 })),
    'BL_UNSUPPORTED',
    `${G}version is 3, expected 1 or 2`,
  ],
  [
    'no tensor',
    () => importGptq(any({ ...gptq, qzeros: undefined }), options),
    'BL_INVALID_ARGUMENT',
    `${G}qzeros is undefined, expected a tensor with name, type, shape and data()`,
  ],
  [
    'null',
    () => importGptq(any({ ...gptq, qweight: null }), options),
    'BL_INVALID_ARGUMENT',
    `${G}qweight is null, expected`,
  ],
  [
    'unknown type',
    () => importGptq({ ...gptq, qweight: but(gptq.qweight, { type: 'i4' }) }, options),
    'BL_INVALID_DTYPE',
    `${G}qweight "l.qweight" has type "i4", expected e.g. i32, f16`,
  ],
  [
    'wrong type',
    () => importGptq({ ...gptq, qweight: but(gptq.qweight, { type: 'f32' }) }, options),
    'BL_INVALID_DTYPE',
    `${G}qweight "l.qweight" has type f32, expected i32`,
  ],
  [
    'scales in i32',
    () => importGptq({ ...gptq, scales: but(gptq.scales, { type: 'i32' }) }, options),
    'BL_INVALID_DTYPE',
    `${G}scales "l.scales" has type i32, expected f16 or bf16 or f32`,
  ],
  [
    'odd shape',
    () => importGptq({ ...gptq, qweight: but(gptq.qweight, { shape: [8, 0.5] }) }, options),
    'BL_INVALID_ARGUMENT',
    `${G}qweight "l.qweight" is no tensor, expected a shape of whole numbers and a function data()`,
  ],
  [
    'no data()',
    () => importGptq({ ...gptq, qweight: but(gptq.qweight, { data: 1 }) }, options),
    'BL_INVALID_ARGUMENT',
    `${G}qweight "l.qweight" is no tensor`,
  ],
  [
    'rank 1',
    () => importGptq({ ...gptq, qweight: but(gptq.qweight, { shape: [256] }) }, options),
    'BL_INVALID_SHAPE',
    `${G}qweight "l.qweight" has shape [256], expected [at least 1, at least 1] (= [K * bits / 32, N])`,
  ],
  [
    'nothing',
    () => importGptq({ ...gptq, qweight: but(gptq.qweight, { shape: [0, 32] }) }, options),
    'BL_INVALID_SHAPE',
    `${G}qweight "l.qweight" has shape [0, 32], expected [at least 1, at least 1]`,
  ],
  [
    '3 bits in 8 words',
    () => importGptq(gptq, { bits: 3, groupSize: 32 }),
    'BL_INVALID_SHAPE',
    `${G}qweight "l.qweight" has shape [8, 32], expected shape[0] to be a multiple of 3 (3 bits)`,
  ],
  [
    'too few scales',
    () => importGptq(gptq, { bits: 4, groupSize: 64 }),
    'BL_INVALID_SHAPE',
    `${G}scales "l.scales" has shape [2, 32], expected [1, 32] (= [groups of 64 in K = 64, N])`,
  ],
  [
    'zero points too wide',
    () => importGptq({ ...gptq, qzeros: but(gptq.qzeros, { shape: [2, 5] }) }, options),
    'BL_INVALID_SHAPE',
    `${G}qzeros "l.qzeros" has shape [2, 5], expected [2, 4] (= [groups, N * bits / 32])`,
  ],
  [
    'long g_idx',
    () => importGptq({ ...gptq, gIdx: but(gptq.gIdx, { shape: [65] }) }, options),
    'BL_INVALID_SHAPE',
    `${G}gIdx "l.g_idx" has shape [65], expected [64] (= [K])`,
  ],
  [
    'g_idx in i64',
    () => importGptq({ ...gptq, gIdx: but(gptq.gIdx, { type: 'i64' }) }, options),
    'BL_INVALID_DTYPE',
    `${G}gIdx "l.g_idx" has type i64, expected i32`,
  ],
  [
    'short data',
    () =>
      importGptq(
        { ...gptq, qweight: but(gptq.qweight, { data: () => new Uint8Array(1020) }) },
        options,
      ),
    'BL_INVALID_ARGUMENT',
    `${G}qweight "l.qweight" has 1020 bytes of data, expected 1024 (i32 [8, 32])`,
  ],
  [
    'data of another kind',
    () => importGptq({ ...gptq, qzeros: but(gptq.qzeros, { data: () => [1] }) }, options),
    'BL_INVALID_ARGUMENT',
    `${G}qzeros "l.qzeros" has object data, expected a Uint8Array`,
  ],
  [
    'a shape without bound',
    () =>
      importGptq(
        {
          ...gptq,
          qweight: but(gptq.qweight, { shape: [2 ** 40, 2 ** 40] }),
          scales: but(gptq.scales, { shape: [1, 2 ** 40] }),
          qzeros: but(gptq.qzeros, { shape: [1, 2 ** 37] }),
        },
        any({ bits: 4, groupSize: -1, gIdx: undefined }),
      ),
    'BL_INVALID_SHAPE',
    `${G}gIdx "l.g_idx" has shape [64], expected [8796093022208]`,
  ],
  [
    'data without bound',
    () =>
      importGptq(
        {
          qweight: but(gptq.qweight, { shape: [2 ** 40, 2 ** 40] }),
          scales: but(gptq.scales, { shape: [1, 2 ** 40] }),
          qzeros: but(gptq.qzeros, { shape: [1, 2 ** 37] }),
        },
        { bits: 4, groupSize: -1 },
      ),
    'BL_INVALID_ARGUMENT',
    `${G}qweight "l.qweight" has 1024 bytes of data, expected Infinity`,
  ],
];

const alternating = Array.from({ length: 64 }, (_, k) => k % 2);
const gIdxCases: Case[] = [
  [-1, 'is -1, expected 0 to 1 (groups of 32)'],
  [2, 'is 2, expected 0 to 1 (groups of 32)'],
  [2 ** 31 - 1, 'is 2147483647, expected 0 to 1'],
  [-(2 ** 31), 'is -2147483648, expected 0 to 1'],
].map(([group, words]) => {
  const gIdx = int32('g', [64], alternating.with(7, group as number));
  return [
    `g_idx ${group}`,
    () => importGptq({ ...gptq, gIdx }, options),
    'BL_OUT_OF_RANGE',
    `${G}gIdx "g"[7] ${words}`,
  ];
});
gIdxCases.push([
  'unequal groups',
  () => importGptq({ ...gptq, gIdx: int32('g', [64], alternating.with(7, 0)) }, options),
  'BL_UNSUPPORTED',
  `${G}gIdx "g" gives group 0 33 columns, expected 32 (of 64)`,
]);
gIdxCases.push([
  'all columns in the last group',
  () =>
    importGptq(
      {
        ...gptq,
        gIdx: int32(
          'g',
          [64],
          alternating.map(() => 1),
        ),
      },
      options,
    ),
  'BL_UNSUPPORTED',
  `${G}gIdx "g" gives group 0 0 columns, expected 32 (of 64)`,
]);

const scales = (type: 'f16' | 'bf16' | 'f32', values: number[]) => {
  const input = floats('l.s', type, [values.slice(0, 32), values.slice(32)]);
  return () => importGptq({ ...gptq, scales: pick([input], 's') }, options);
};
const ones = Array.from({ length: 64 }, () => 1);
const scaleCases: Case[] = [
  [
    'infinite bf16',
    scales('bf16', ones.with(33, Infinity)),
    'BL_NON_FINITE',
    `${G}scales "l.s"[33] is not finite, expected a finite scale`,
  ],
  [
    'NaN f32',
    scales('f32', ones.with(1, Number.NaN)),
    'BL_NON_FINITE',
    `${G}scales "l.s"[1] is not finite`,
  ],
  [
    'NaN f16',
    () =>
      importGptq(
        { ...gptq, scales: but(gptq.scales, { data: () => new Uint8Array(128).fill(0x7e) }) },
        options,
      ),
    'BL_NON_FINITE',
    `${G}scales "l.scales"[0] is not finite`,
  ],
  [
    'f32 that is neither',
    scales('f32', ones.with(5, Math.fround(0.1))),
    'BL_UNSUPPORTED',
    `${G}scales "l.s"[5] is 0.10000000149011612 in f32, expected scales that are all exact in f16, or all in bf16`,
  ],
  [
    'f32 of both kinds',
    scales('f32', ones.with(5, 2 ** -100).with(40, 1 + 2 ** -10)),
    'BL_UNSUPPORTED',
    `${G}scales "l.s"[40] is 1.0009765625 in f32`,
  ],
];

const A = 'importAwq: ';
const awqCases: Case[] = [
  [
    '8 bits',
    () => importAwq(awq, { ...options, bits: 8 }),
    'BL_UNSUPPORTED',
    `${A}bits is 8, expected 4`,
  ],
  [
    'groups of 16',
    () => importAwq(awq, { ...options, groupSize: 16 }),
    'BL_UNSUPPORTED',
    `${A}groupSize is 16, expected`,
  ],
  [
    'qweight',
    () => importAwq({ ...awq, qweight: but(awq.qweight, { shape: [64] }) }, options),
    'BL_INVALID_SHAPE',
    `${A}qweight "l.qweight" has shape [64], expected [at least 1, at least 1] (= [K, N / 8])`,
  ],
  [
    'qzeros',
    () => importAwq({ ...awq, qzeros: but(awq.qzeros, { shape: [2, 3] }) }, options),
    'BL_INVALID_SHAPE',
    `${A}qzeros "l.qzeros" has shape [2, 3], expected [2, 4] (= [groups, N / 8])`,
  ],
  [
    'scales',
    () => importAwq({ ...awq, scales: but(awq.scales, { shape: [2, 4] }) }, options),
    'BL_INVALID_SHAPE',
    `${A}scales "l.scales" has shape [2, 4], expected [2, 32] (= [groups of 32 in K = 64, N])`,
  ],
  [
    'qzeros of another type',
    () => importAwq({ ...awq, qzeros: but(awq.qzeros, { type: 'u8' }) }, options),
    'BL_INVALID_DTYPE',
    `${A}qzeros "l.qzeros" has type u8, expected i32`,
  ],
];

const C = 'importCompressedTensors: ';
const shapeOf = (values: number[]) => int32('s', [values.length], values);
const compressedCases: Case[] = [
  [
    '6 bits',
    () => importCompressedTensors(packed, { ...options, bits: 6 }),
    'BL_UNSUPPORTED',
    `${C}bits is 6, expected 2, 3, 4, 8`,
  ],
  [
    'three lengths',
    () => importCompressedTensors({ ...packed, weightShape: shapeOf([32, 64, 1]) }, options),
    'BL_INVALID_SHAPE',
    `${C}weightShape "s" has shape [3], expected [2]`,
  ],
  [
    'a negative length',
    () => importCompressedTensors({ ...packed, weightShape: shapeOf([-32, 64]) }, options),
    'BL_INVALID_SHAPE',
    `${C}weightShape "s" holds [-32, 64], expected lengths of at least 1`,
  ],
  [
    '2^63 rows',
    () =>
      importCompressedTensors(
        {
          ...packed,
          weightShape: but(packed.weightShape, {
            data: () => new Uint8Array(BigInt64Array.of(2n ** 63n - 1n, 64n).buffer),
          }),
        },
        options,
      ),
    'BL_INVALID_SHAPE',
    `${C}weightShape "l.weight_shape" holds [9223372036854776000, 64]`,
  ],
  [
    'another shape',
    () => importCompressedTensors({ ...packed, weightShape: shapeOf([32, 72]) }, options),
    'BL_INVALID_SHAPE',
    `${C}weightPacked "l.weight_packed" has shape [32, 8], expected [32, 9] (= [N, K / 8], weight_shape is [32, 72])`,
  ],
  [
    'other bits',
    () => importCompressedTensors(packed, { ...options, bits: 3 }),
    'BL_INVALID_SHAPE',
    `${C}weightPacked "l.weight_packed" has shape [32, 8], expected [32, 7]`,
  ],
  [
    'channel scales',
    () => importCompressedTensors(packed, { ...options, groupSize: -1 }),
    'BL_INVALID_SHAPE',
    `${C}weightScale "l.weight_scale" has shape [32, 2], expected [32, 1] (= [N, groups of 64 in K = 64])`,
  ],
  [
    'zero points not packed',
    () => importCompressedTensors({ ...packed, weightZeroPoint: int32('z', [32, 2], []) }, options),
    'BL_INVALID_SHAPE',
    `${C}weightZeroPoint "z" has shape [32, 2], expected [4, 2] (= [N / 8, groups])`,
  ],
  [
    'zero points in u8',
    () =>
      importCompressedTensors(
        { ...packed, weightZeroPoint: but(packed.weightZeroPoint, { type: 'u8' }) },
        options,
      ),
    'BL_INVALID_DTYPE',
    `${C}weightZeroPoint "l.weight_zero_point" has type u8, expected i32 or i8`,
  ],
  [
    'a zero point of -9',
    () =>
      importCompressedTensors(
        {
          ...packed,
          weightZeroPoint: {
            name: 'z',
            type: 'i8',
            shape: [32, 2],
            data: () => new Uint8Array(64).fill(247, 3),
          },
        },
        options,
      ),
    'BL_OUT_OF_RANGE',
    `${C}weightZeroPoint "z"[3] is -9, expected -8 to 7 (4 bits)`,
  ],
  [
    'some columns without a group',
    () =>
      importCompressedTensors(
        { ...packed, weightGIdx: int32('g', [64], alternating.with(9, -1)) },
        options,
      ),
    'BL_OUT_OF_RANGE',
    `${C}weightGIdx "g"[9] is -1, expected 0 to 1`,
  ],
];

describe.each([
  ['importGptq', gptqCases],
  ['g_idx', gIdxCases],
  ['scales', scaleCases],
  ['importAwq', awqCases],
  ['importCompressedTensors', compressedCases],
] as const)('%s refuses', (_, cases) => {
  it.each(cases as Case[])('%s', (_name, call, code, message) => {
    const error = thrown(call);
    expect(error.message).toContain(message);
    expect(error.code).toBe(code);
    expect(error.name === 'BitloomError').toBe(code === 'BL_UNSUPPORTED');
  });
});
