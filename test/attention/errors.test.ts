// Every error of attention over k and v; those of pages: decode_errors.test.ts.
import { describe, expect, it } from 'vitest';
import { attention, attentionAsync, type FloatDType, Tensor } from '../../lib/index.js';
import { native } from '../../lib/native.js';
import { runValue, tensorValues } from '../../lib/run.js';
import type { Options } from '../reference/attention_cases.js';
import { expectError, onDevice } from '../reference/op_checks.js';

const f32 = (...shape: number[]) => Tensor.zeros('f32', shape);
const i32 = (...values: number[]) => new Tensor('i32', values, [values.length]);
const q = f32(2, 4, 8);
const k = f32(3, 2, 8);
const v = f32(3, 2, 5);

/** As expectError, and nothing is written. */
function expectRefused(
  body: (out: Tensor<'f32'>) => unknown,
  code: string,
  message: string,
  shape = [2, 4, 5],
): void {
  const out = f32(...shape);
  out.data.fill(7);
  expectError(() => body(out), code, `attention: ${message}`);
  expect(out.data.every((value) => value === 7)).toBe(true);
}

/** Options of the wrong type, too. */
type Loose = { [K in keyof Options]?: unknown } & { lse?: Tensor; probabilities?: Tensor };

describe('attention errors', () => {
  it.each<[string, Tensor<FloatDType>, Tensor<FloatDType>, Tensor<FloatDType>, string]>([
    ['q rank', f32(4, 8), k, v, 'q.rank is 2, expected 3'],
    ['k rank', q, f32(3, 16), v, 'k.rank is 2, expected 3'],
    ['v rank', q, k, f32(3, 10), 'v.rank is 2, expected 3'],
    ['head_dim 0', f32(2, 4, 0), f32(3, 2, 0), v, 'q.shape[2] is 0, expected at least 1'],
    ['no kv heads', q, f32(3, 0, 8), f32(3, 0, 5), 'k.shape[1] is 0, expected at least 1 kv head'],
    ['heads', f32(2, 5, 8), k, v, 'q.shape[1] is 5, expected a multiple of 2 (= k.shape[1])'],
    ['head_dim', q, f32(3, 2, 7), v, 'k.shape[2] is 7, expected 8 (= q.shape[2])'],
    ['keys', q, k, f32(4, 2, 5), 'v.shape[0] is 4, expected 3 (= k.shape[0])'],
    ['kv heads', q, k, f32(3, 1, 5), 'v.shape[1] is 1, expected 2 (= k.shape[1])'],
  ])('%s', (_, badQ, badK, badV, message) => {
    expectRefused((out) => attention(badQ, badK, badV, { out }), 'BL_INVALID_SHAPE', message);
  });

  it('dtypes', () => {
    const cast = (x: Tensor): Tensor<FloatDType> => x as Tensor<FloatDType>;
    const f16 = Tensor.zeros('f16', [3, 2, 5]);
    expectRefused(
      (out) => attention(q, k, f16, { out }),
      'BL_INVALID_DTYPE',
      'v.dtype is f16, expected f32 (= k.dtype)',
    );
    for (const [name, inputs] of [
      ['q', [cast(Tensor.zeros('i8', [2, 4, 8])), k, v]],
      ['k', [q, cast(Tensor.zeros('i8', [3, 2, 8])), v]],
      ['v', [q, k, cast(Tensor.zeros('i8', [3, 2, 5]))]],
    ] as [string, [Tensor<FloatDType>, Tensor<FloatDType>, Tensor<FloatDType>]][]) {
      expectRefused(
        (out) => attention(...inputs, { out }),
        'BL_INVALID_DTYPE',
        `${name}.dtype is i8, expected f32 or f16 or bf16`,
      );
    }
  });

  const { POSITIVE_INFINITY: inf, NaN: nan } = Number;
  const u8 = (...shape: number[]) => Tensor.zeros('u8', shape);
  const vector = (...shape: number[]) => Tensor.zeros('i32', shape);
  const cu = { cuQueries: i32(0, 2), cuKeys: i32(0, 3) };
  const rows: [string, Loose, string][] = [
    ['BL_OUT_OF_RANGE', { window: -1 }, 'window is -1, expected at least 0'],
    ['BL_OUT_OF_RANGE', { window: 1.5 }, 'window is not a 32-bit integer'],
    ['BL_OUT_OF_RANGE', { scale: inf }, 'scale is inf, expected a finite number'],
    ['BL_OUT_OF_RANGE', { scale: nan }, 'scale is nan, expected a finite number'],
    ['BL_OUT_OF_RANGE', { softCap: -1 }, 'softCap is -1, expected a finite number of at least 0'],
    ['BL_OUT_OF_RANGE', { softCap: inf }, 'softCap is inf, expected a finite number of at least 0'],
    ['BL_OUT_OF_RANGE', { softCap: nan }, 'softCap is nan, expected a finite number of at least 0'],
    [
      'BL_OUT_OF_RANGE',
      { causal: true, prefix: -1 },
      'prefix is -1, causalBlock 0, sinkTokens 0, expected at least 0',
    ],
    [
      'BL_OUT_OF_RANGE',
      { causal: true, causalBlock: -2, prefix: 1 },
      'prefix is 1, causalBlock -2, sinkTokens 0, expected at least 0',
    ],
    [
      'BL_OUT_OF_RANGE',
      { sinkTokens: -3 },
      'prefix is 0, causalBlock 0, sinkTokens -3, expected at least 0',
    ],
    [
      'BL_INVALID_ARGUMENT',
      { prefix: 1 },
      'prefix is 1 and causalBlock 0, expected 0 when not causal',
    ],
    [
      'BL_INVALID_ARGUMENT',
      { causalBlock: 4 },
      'prefix is 0 and causalBlock 4, expected 0 when not causal',
    ],
    ['BL_INVALID_ARGUMENT', { compute: 'f64' }, 'compute is "f64", expected f32, bf16 or i8'],
    ['BL_INVALID_ARGUMENT', { compute: 8n }, 'compute is 8, expected f32, bf16 or i8'],
    ['BL_INVALID_ARGUMENT', { causal: 'no' }, 'causal is "no", expected true or false'],
    // Vectors of heads
    ['BL_INVALID_SHAPE', { slopes: f32(3) }, 'slopes.shape[0] is 3, expected 4 (= q.shape[1])'],
    ['BL_INVALID_SHAPE', { slopes: f32(4, 1) }, 'slopes.rank is 2, expected 1'],
    ['BL_INVALID_DTYPE', { slopes: vector(4) }, 'slopes.dtype is i32, expected f32'],
    ['BL_INVALID_SHAPE', { sinks: f32(5) }, 'sinks.shape[0] is 5, expected 4 (= q.shape[1])'],
    [
      'BL_INVALID_SHAPE',
      { windows: vector(2) },
      'windows.shape[0] is 2, expected 4 (= q.shape[1])',
    ],
    ['BL_INVALID_DTYPE', { windows: f32(4) }, 'windows.dtype is f32, expected i32'],
    [
      'BL_INVALID_SHAPE',
      { sinkCounts: vector(1) },
      'sinkCounts.shape[0] is 1, expected 4 (= q.shape[1])',
    ],
    ['BL_OUT_OF_RANGE', { windows: i32(0, 1, -2, 3) }, 'windows[2] is -2, expected at least 0'],
    [
      'BL_OUT_OF_RANGE',
      { sinkCounts: i32(0, 1, 2, -3) },
      'sinkCounts[3] is -3, expected at least 0',
    ],
    // Masks
    ['BL_INVALID_SHAPE', { mask: f32(2, 3) }, 'mask.rank is 2, expected 3'],
    [
      'BL_INVALID_DTYPE',
      { mask: Tensor.zeros('i8', [1, 2, 3]) },
      'mask.dtype is i8, expected f32 or u8',
    ],
    [
      'BL_INVALID_SHAPE',
      { mask: f32(2, 2, 3) },
      'mask.shape[0] is 2, expected 1 or 4 (= q.shape[1])',
    ],
    ['BL_INVALID_SHAPE', { mask: u8(1, 3, 3) }, 'mask.shape[1] is 3, expected 2 (= q.shape[0])'],
    [
      'BL_INVALID_SHAPE',
      { mask: u8(4, 2, 4) },
      'mask.shape[2] is 4, expected at most 3 (the keys of the shortest sequence)',
    ],
    [
      'BL_INVALID_SHAPE',
      { mask: u8(1, 2, 2), cuQueries: i32(0, 1, 2), cuKeys: i32(0, 1, 3) },
      'mask.shape[2] is 2, expected at most 1 (the keys of the shortest sequence)',
    ],
    [
      'BL_INVALID_SHAPE',
      { blockMask: { mask: u8(2, 2), queries: 1, keys: 1 } },
      'blockMask.rank is 2, expected 3',
    ],
    [
      'BL_INVALID_DTYPE',
      { blockMask: { mask: f32(1, 2, 3), queries: 1, keys: 1 } },
      'blockMask.dtype is f32, expected u8',
    ],
    [
      'BL_OUT_OF_RANGE',
      { blockMask: { mask: u8(1, 2, 3), queries: 0, keys: 1 } },
      'blockMask is of blocks of 0 queries and 1 keys, expected at least 1 of each',
    ],
    [
      'BL_OUT_OF_RANGE',
      { blockMask: { mask: u8(1, 2, 3), queries: 1, keys: -1 } },
      'blockMask is of blocks of 1 queries and -1 keys, expected at least 1 of each',
    ],
    [
      'BL_UNSUPPORTED',
      { blockMask: { mask: u8(1, 2, 3), queries: 1, keys: 1 }, ...cu },
      'blockMask is given with several sequences or pages, expected k and v of one sequence',
    ],
    [
      'BL_INVALID_SHAPE',
      { blockMask: { mask: u8(2, 2, 3), queries: 1, keys: 1 } },
      'blockMask.shape[0] is 2, expected 1 or 4 (= q.shape[1])',
    ],
    [
      'BL_INVALID_SHAPE',
      { blockMask: { mask: u8(1, 2, 2), queries: 2, keys: 2 } },
      'blockMask.shape[1] is 2, expected 1 (= ceil(queries / blockQueries))',
    ],
    [
      'BL_INVALID_SHAPE',
      { blockMask: { mask: u8(1, 1, 3), queries: 2, keys: 2 } },
      'blockMask.shape[2] is 3, expected 2 (= ceil(keys / blockKeys))',
    ],
    ['BL_INVALID_ARGUMENT', { blockMask: 3 }, 'blockMask is 3, expected an object'],
    [
      'BL_INVALID_ARGUMENT',
      { blockMask: { mask: u8(1, 2, 3), queries: 1 } },
      'blockMask.keys is not a number',
    ],
    // Sequences
    [
      'BL_INVALID_ARGUMENT',
      { cuQueries: i32(0, 2) },
      'one of cuQueries and cuKeys is given, expected both or none',
    ],
    [
      'BL_INVALID_ARGUMENT',
      { cuKeys: i32(0, 3) },
      'one of cuQueries and cuKeys is given, expected both or none',
    ],
    [
      'BL_INVALID_SHAPE',
      { ...cu, cuQueries: vector(2, 1) },
      'cuQueries is not a vector of at least 1 offset',
    ],
    ['BL_INVALID_DTYPE', { ...cu, cuQueries: f32(2) }, 'cuQueries.dtype is f32, expected i32'],
    [
      'BL_INVALID_SHAPE',
      { ...cu, cuKeys: i32(0, 1, 3) },
      'cuKeys.shape[0] is 3, expected 2 (= sequences + 1)',
    ],
    [
      'BL_OUT_OF_RANGE',
      { ...cu, cuQueries: i32(1, 2) },
      'cuQueries goes from 1 to 2, expected 0 to 2 (= q.shape[0])',
    ],
    [
      'BL_OUT_OF_RANGE',
      { ...cu, cuKeys: i32(0, 4) },
      'cuKeys goes from 0 to 4, expected 0 to at most 3 (= k.shape[0])',
    ],
    [
      'BL_OUT_OF_RANGE',
      { cuQueries: i32(0, 3, 2), cuKeys: i32(0, 1, 3) },
      'cuQueries[2] is 2, expected at least 3 (the one before)',
    ],
    [
      'BL_OUT_OF_RANGE',
      { cuQueries: i32(0, 1, 1, 2), cuKeys: i32(0, -5, 2, 3) },
      'cuKeys[1] is -5, expected at least 0 (the one before)',
    ],
    // What is written beside
    ['BL_INVALID_SHAPE', { lse: f32(8) }, 'lse.rank is 1, expected 2'],
    ['BL_INVALID_DTYPE', { lse: Tensor.zeros('f16', [2, 4]) }, 'lse.dtype is f16, expected f32'],
    ['BL_INVALID_SHAPE', { lse: f32(3, 4) }, 'lse.shape[0] is 3, expected 2 (= q.shape[0])'],
    ['BL_INVALID_SHAPE', { lse: f32(2, 3) }, 'lse.shape[1] is 3, expected 4 (= q.shape[1])'],
    [
      'BL_INVALID_SHAPE',
      { lse: new Tensor('f32', new Float32Array(8), [2, 4], { strides: [0, 1] }) },
      'lse.strides[0] is 0, expected at least 1: an output must not overlap itself',
    ],
    [
      'BL_INVALID_SHAPE',
      { probabilities: f32(2, 4, 3) },
      'probabilities.shape[0] is 2, expected 4 (= q.shape[1])',
    ],
    [
      'BL_INVALID_SHAPE',
      { probabilities: f32(4, 3, 3) },
      'probabilities.shape[1] is 3, expected 2 (= q.shape[0])',
    ],
    [
      'BL_INVALID_SHAPE',
      { probabilities: f32(4, 2, 4) },
      'probabilities.shape[2] is 4, expected 3 (the keys of the longest sequence)',
    ],
    [
      'BL_INVALID_SHAPE',
      {
        probabilities: new Tensor('f32', new Float32Array(48), [4, 2, 3], { strides: [12, 6, 2] }),
      },
      'probabilities.strides[2] is 2, expected 1',
    ],
    // Of the wrong kind
    ['BL_INVALID_ARGUMENT', { mask: 'all' }, 'mask is "all", expected a Tensor'],
    ['BL_INVALID_ARGUMENT', { lse: null as unknown as Tensor }, 'lse is null, expected a Tensor'],
  ];
  it.each(rows.map(([code, options, message]) => [code, message, options] as const))(
    'refuses with %s: %s',
    (code, message, options) => {
      expectRefused((out) => attention(q, k, v, { ...(options as Options), out }), code, message);
    },
  );

  it('options that are not known', () => {
    expect(() => attention(q, k, v, { windo: 3 } as Options)).toThrow(
      /^attention: option "windo" is not known, expected one of isa, threads, .*window, /,
    );
    expect(() => attention(q, k, v, null as unknown as Options)).toThrow(
      expect.objectContaining({ code: 'BL_INVALID_ARGUMENT' }),
    );
  });

  it('output', () => {
    for (const [axis, name, shape] of [
      [0, 'q.shape[0]', [3, 4, 5]],
      [1, 'q.shape[1]', [2, 3, 5]],
      [2, 'v.shape[2]', [2, 4, 6]],
    ] as const) {
      expectError(
        () => attention(q, k, v, { out: Tensor.zeros('f32', shape) }),
        'BL_INVALID_SHAPE',
        `attention: output.shape[${axis}] is ${shape[axis]}, expected ${[2, 4, 5][axis]} (= ${name})`,
      );
    }
    const memory = new Float32Array(64);
    const square = new Tensor('f32', memory.subarray(0, 32), [4, 1, 8]);
    const apart = f32(4, 1, 8);
    const out = () => new Tensor('f32', memory.subarray(31, 63), [4, 1, 8]);
    for (const [name, inputs] of [
      ['q', [square, apart, apart]],
      ['k', [apart, square, apart]],
      ['v', [apart, apart, square]],
    ] as const) {
      expectError(
        () => attention(...inputs, { out: out() }),
        'BL_INVALID_ARGUMENT',
        `attention: output overlaps ${name}, expected separate memory`,
      );
    }
    const view = (begin: number, shape: number[]) =>
      new Tensor('f32', memory.subarray(begin, begin + shape.reduce((a, b) => a * b)), shape);
    const bytes = new Tensor('u8', new Uint8Array(memory.buffer, 0, 16), [1, 4, 4]);
    const [lse, probabilities] = [view(0, [4, 1]), view(0, [1, 4, 4])];
    for (const [name, options] of [
      ['output overlaps mask', { mask: view(20, [1, 4, 4]), out: out() }],
      ['output overlaps slopes', { slopes: view(40, [1]), out: out() }],
      ['output overlaps sinks', { sinks: view(31, [1]), out: out() }],
      ['lse overlaps mask', { lse, mask: view(3, [1, 4, 4]) }],
      ['lse overlaps slopes', { lse, slopes: view(3, [1]) }],
      ['lse overlaps output', { lse, out: view(3, [4, 1, 8]) }],
      ['probabilities overlaps mask', { probabilities, mask: bytes }],
      ['probabilities overlaps output', { probabilities, out: view(15, [4, 1, 8]) }],
      ['probabilities overlaps lse', { probabilities, lse }],
    ] as [string, Options][]) {
      expectError(
        () => attention(apart, apart, apart, options),
        'BL_INVALID_ARGUMENT',
        `attention: ${name}, expected separate memory`,
      );
    }
  });

  // What lib/ops/attention never passes, but another caller of the addon or of the C ABI may.
  it.skipIf(onDevice)('numbers that are no choice', () => {
    const out = f32(2, 4, 5);
    const call = (causal: number, compute: number) =>
      native.attention(
        ...tensorValues(q),
        ...tensorValues(out),
        0,
        causal,
        0,
        compute,
        1,
        ...tensorValues(k),
        ...tensorValues(v),
        runValue({}),
      );
    expect(() => call(2, 0)).toThrow('attention: causal is 2, expected 0 or 1');
    expect(() => call(1, 3)).toThrow('attention: compute is 3, expected f32, i8 or bf16');
    expect(() => call(1, -1)).toThrow('attention: compute is -1, expected f32, i8 or bf16');
  });

  it('rejects the promise of the async form', async () => {
    await expect(attentionAsync(q, k, f32(1, 2, 5))).rejects.toMatchObject({
      code: 'BL_INVALID_SHAPE',
    });
    await expect(attentionAsync(q, k, v, { cuQueries: i32(0, 2) })).rejects.toMatchObject({
      code: 'BL_INVALID_ARGUMENT',
    });
  });

  it('gives an empty result for zero queries, heads or value_dim', () => {
    expect(attention(f32(0, 4, 8), k, v).shape).toEqual([0, 4, 5]);
    expect(attention(f32(2, 0, 8), k, v).shape).toEqual([2, 0, 5]);
    expect(attention(q, k, f32(3, 2, 0)).shape).toEqual([2, 4, 0]);
    expect(attention(q, k, f32(3, 2, 0), { lse: f32(2, 4) }).shape).toEqual([2, 4, 0]);
  });

  it('gives 0 where there are no keys, or none is seen', () => {
    for (const [keys, options] of [
      [0, {}],
      [0, { causal: true }],
      [1, { causal: true }],
    ] as const) {
      const lse = f32(2, 4);
      const ones = (...shape: number[]) =>
        new Tensor('f32', new Float32Array(shape.reduce((a, b) => a * b)).fill(1), shape);
      const out = attention(q, ones(keys, 2, 8), ones(keys, 2, 5), { ...options, lse });
      const none = keys === 0 ? 2 : 1;
      const row = (t: number) => [...out.data.slice(t * 20, t * 20 + 20)];
      for (let t = 0; t < 2; t++) {
        expect(row(t)).toEqual(new Array(20).fill(t < none ? 0 : 1));
        expect([...lse.data.slice(4 * t, 4 * t + 4)]).toEqual(
          new Array(4).fill(t < none ? Number.NEGATIVE_INFINITY : 0),
        );
      }
    }
  });
});
