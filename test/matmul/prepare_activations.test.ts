import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  type Format,
  matmul,
  matmulAsync,
  matmulKernel,
  PreparedActivations,
  pack,
  prepareActivations,
  prepareActivationsAsync,
  quantize,
  rmsNorm,
  sequence,
  swiglu,
  Tensor,
} from '../../lib/index.js';
import { gaussian, randomBytes } from '../reference/random.js';
import { bits, floatTypes, isasHere, strided, thrown } from '../reference/views.js';

const weights = (format: Format, n: number, k: number, seed = 1) =>
  pack(quantize(new Tensor('f32', gaussian(n * k, seed), [n, k]), format));
const activations = (m: number, k: number, seed = 2) =>
  new Tensor('f32', gaussian(m * k, seed), [m, k]);

describe('prepareActivations', () => {
  it.each(isasHere)('gives matmul the bits of its own preparation at level %s', (isa) => {
    const formats: Format[] = [
      'q4_0',
      'q2_k',
      'q8_0',
      'u1_g64',
      't2_g128',
      'u3z_g32',
      'i3_row',
      'u5_g32',
    ];
    for (const format of formats) {
      const k = 256;
      const b = weights(format, 19, k);
      for (const m of [1, 3, 9]) {
        const x = activations(m, k, m);
        for (const algorithm of ['auto', 'lut', 'dequant'] as const) {
          if (algorithm === 'lut' && !/^[uit][123]/.test(format)) continue;
          const options = { algorithm, isa } as const;
          const prepared = prepareActivations(x, { for: b, ...options });
          const own = matmul(x, b, { compute: 'i8', ...options });
          expect(bits(matmul(prepared, b, options))).toEqual(bits(own));
          expect(matmulKernel(prepared, b, options)).toBe(
            matmulKernel(x, b, { compute: 'i8', ...options }),
          );
        }
      }
    }
  });

  it('writes the same bytes at every level, for any M and K and number of threads', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 0, max: 20 }),
        fc.oneof(
          fc.constantFrom(0, 1, 31, 32, 33, 63, 64, 65, 257),
          fc.integer({ min: 1, max: 99 }),
        ),
        fc.constantFrom(0, 1, 2, 3),
        fc.constantFrom(1, 2, 3, 7),
        fc.integer(),
        (m, k, tables, threads, seed) => {
          const x = activations(m, k, seed);
          const want = new PreparedActivations([m, k], tables);
          prepareActivations(x, { isa: 'scalar', out: want });
          for (const isa of isasHere) {
            const out = new PreparedActivations([m, k], tables);
            prepareActivations(x, { isa, threads, out });
            expect(Buffer.compare(out.bytes, want.bytes)).toBe(0);
          }
        },
      ),
      { numRuns: 40 },
    );
  });

  it('is shared by weights of several formats', () => {
    const [m, k] = [2, 320];
    const list = (['u1_g32', 't2_g64', 'u3_g32', 'q8_0'] as Format[]).map((f) => weights(f, 33, k));
    const x = activations(m, k);
    const shared = prepareActivations(x, { for: list, algorithm: 'lut' });
    expect(shared.tables).toBe(3);
    for (const b of list) {
      for (const algorithm of b.format === 'q8_0'
        ? (['auto'] as const)
        : (['auto', 'lut'] as const)) {
        expect(bits(matmul(shared, b, { algorithm }))).toEqual(
          bits(matmul(x, b, { compute: 'i8', algorithm })),
        );
      }
    }
  });

  it.each(isasHere)('has the bits of rmsNorm and swiglu before it at level %s', (isa) => {
    const [m, k] = [5, 201];
    for (const dtype of floatTypes) {
      const x = strided(dtype, gaussian(m * k, 3), [m, k]);
      const gate = strided(dtype, gaussian(m * k, 4), [m, k]);
      const weight = new Tensor('f32', gaussian(k, 5), [k]);
      const cases = [
        {
          options: { norm: { weight, epsilon: 1e-3 } },
          plain: () => rmsNorm(x, weight, { epsilon: 1e-3, isa }),
        },
        { options: { norm: {} }, plain: () => rmsNorm(x, undefined, { isa }) },
        { options: { gate }, plain: () => swiglu(gate, x, { isa }) },
        {
          options: { gate, norm: { weight } },
          plain: () => rmsNorm(swiglu(gate, x, { isa }), weight, { isa }),
        },
      ];
      for (const { options, plain } of cases) {
        const fused = new PreparedActivations([m, k], 3);
        prepareActivations(x, { ...options, isa, out: fused });
        const apart = new PreparedActivations([m, k], 3);
        prepareActivations(plain(), { isa, out: apart });
        expect(Buffer.compare(fused.bytes, apart.bytes)).toBe(0);
      }
    }
  });

  it('runs on a worker thread and in sequences', async () => {
    const [m, k] = [3, 128];
    const [x, b] = [activations(m, k), weights('u2_g32', 32, k)];
    const want = bits(matmul(x, b, { compute: 'i8' }));
    const prepared = await prepareActivationsAsync(x, { for: b });
    expect(bits(await matmulAsync(prepared, b))).toEqual(want);
    expect(bits(await sequence(() => matmul(prepareActivations(x, { for: b }), b)))).toEqual(want);
  });

  it('goes with what is done to the outputs', () => {
    const [m, k, n] = [3, 96, 64];
    const [x, b] = [activations(m, k), weights('t2_g32', n, k)];
    const options = {
      compute: 'i8',
      algorithm: 'lut',
      bias: new Tensor('f32', gaussian(n, 7), [n]),
      activation: 'swiglu',
      residual: new Tensor('f32', gaussian((m * n) / 2, 8), [m, n / 2]),
    } as const;
    const prepared = prepareActivations(x, { for: b, algorithm: 'lut' });
    expect(bits(matmul(prepared, b, options))).toEqual(bits(matmul(x, b, options)));
  });

  it('keeps the leading axes', () => {
    const x = new Tensor('f32', gaussian(2 * 3 * 64), [2, 3, 64]);
    const b = weights('u4_g32', 20, 64);
    expect(matmul(prepareActivations(x), b).shape).toEqual([2, 3, 20]);
    expect(matmul(prepareActivations(new Tensor('f32', gaussian(64), [64])), b).shape).toEqual([
      20,
    ]);
  });

  it('is freed by dispose()', () => {
    using prepared = prepareActivations(activations(1, 64));
    prepared.dispose();
    expect(prepared.disposed).toBe(true);
    const error = thrown(() => matmul(prepared, weights('q8_0', 16, 64)));
    expect(error.message).toBe('PreparedActivations: used after dispose()');
  });

  describe('refuses', () => {
    const k = 64;
    const x = activations(2, k);
    const b = weights('t2_g32', 16, k);
    const cases: [string, () => unknown, string, string][] = [
      [
        'other columns',
        () => matmul(prepareActivations(activations(2, 32)), b),
        'BL_INVALID_SHAPE',
        'matmul: b.cols is 64, expected 32 (= columns of prepared)',
      ],
      [
        'other rows',
        () => matmul(prepareActivations(x), b, { out: Tensor.zeros('f32', [3, 16]) }),
        'BL_INVALID_SHAPE',
        'matmul: out has 3 rows, expected 2 (= rows of prepared)',
      ],
      [
        'compute f32',
        () => matmul(prepareActivations(x), b, { compute: 'f32' }),
        'BL_INVALID_ARGUMENT',
        'matmul: compute is 0, expected 1 (i8) with prepared',
      ],
      [
        'algorithm tile',
        () => matmul(prepareActivations(x), b, { algorithm: 'tile' }),
        'BL_UNSUPPORTED',
        'matmul: algorithm is 3 (tile), expected 0 (auto), 1 (lut) or 2 (dequant) with prepared',
      ],
      [
        'what needs the activations themselves',
        () =>
          matmul(prepareActivations(x), b, { columnScale: new Tensor('f32', gaussian(k), [k]) }),
        'BL_UNSUPPORTED',
        'matmul: columnScale is given with prepared, expected the activations themselves',
      ],
      [
        'batches',
        () => matmul(prepareActivations(x), b, { batch: 2, out: Tensor.zeros('f32', [2, 8]) }),
        'BL_UNSUPPORTED',
        'matmul: batch is 2, expected at most 1 with prepared',
      ],
      [
        'another rounding',
        () => matmul(prepareActivations(x), b, { activationBits: 4 }),
        'BL_UNSUPPORTED',
        'matmul: activationBits and activationGroup are given with prepared, which is rounded already',
      ],
      [
        'missing tables',
        () => matmul(prepareActivations(x), b, { algorithm: 'lut' }),
        'BL_UNSUPPORTED',
        'matmul: prepared has tables 0, expected 2 for format t2_g32',
      ],
      [
        'formats without integers',
        () => matmul(prepareActivations(x), weights('nf4_g32', 16, k)),
        'BL_UNSUPPORTED',
        'matmul: algorithm is auto, which cannot do compute i8 of format nf4_g32, expected a format of integers, or activations that are not prepared',
      ],
      [
        'a gate of another shape',
        () => prepareActivations(x, { gate: activations(3, k) }),
        'BL_INVALID_SHAPE',
        'prepareActivations: gate.shape[0] is 3, expected 2 (= x.shape[0])',
      ],
      [
        'a weight of another size',
        () => prepareActivations(x, { norm: { weight: new Tensor('f32', gaussian(63), [63]) } }),
        'BL_INVALID_SHAPE',
        'prepareActivations: norm.weight.shape[0] is 63, expected 64 (= columns of x)',
      ],
      [
        'a negative epsilon',
        () => prepareActivations(x, { norm: { epsilon: -1 } }),
        'BL_INVALID_ARGUMENT',
        'prepareActivations: epsilon is -1, expected a finite number of at least 0',
      ],
      [
        'memory of another shape',
        () => prepareActivations(x, { out: new PreparedActivations([1, k]) }),
        'BL_INVALID_SHAPE',
        'prepareActivations: out.shape is [1,64], expected [2,64] (= x.shape)',
      ],
      [
        'memory without the tables',
        () =>
          prepareActivations(x, { for: b, algorithm: 'lut', out: new PreparedActivations([2, k]) }),
        'BL_INVALID_ARGUMENT',
        'prepareActivations: out.tables is 0, expected 2 for these weights',
      ],
      [
        'weights with other columns',
        () => prepareActivations(x, { for: weights('q8_0', 16, 32) }),
        'BL_INVALID_SHAPE',
        'prepareActivations: weights have 32 columns, expected 64 (= columns of x)',
      ],
    ];
    it.each(cases)('%s', (_, body, code, message) => {
      const error = thrown(body);
      expect(error.message).toBe(message);
      expect(error.code).toBe(code);
    });
  });

  it('is not fooled by hostile bytes', () => {
    const [m, k] = [2, 64];
    const b = weights('t2_g32', 33, k);
    const header = (change: (view: DataView) => void) => {
      const prepared = prepareActivations(activations(m, k), { for: b, algorithm: 'lut' });
      change(new DataView(prepared.bytes.buffer, prepared.bytes.byteOffset));
      return thrown(() => matmul(prepared, b)).message;
    };
    const blank = new PreparedActivations([m, k], 2);
    expect(thrown(() => matmul(blank, b)).message).toMatch(/does not begin as/);
    expect(header((view) => view.setUint8(0, 1))).toMatch(/does not begin as/);
    expect(header((view) => view.setBigInt64(8, 3n, true))).toMatch(/do not fit each other/);
    expect(header((view) => view.setBigInt64(8, -1n, true))).toMatch(/do not fit each other/);
    expect(header((view) => view.setBigInt64(8, 2n ** 62n, true))).toMatch(/do not fit each other/);
    expect(header((view) => view.setBigInt64(16, 2n ** 63n - 1n, true))).toMatch(/do not fit each/);
    expect(header((view) => view.setInt32(24, 7, true))).toMatch(/do not fit each other/);
    expect(header((view) => view.setBigInt64(32, 2n ** 40n, true))).toMatch(
      /do not fit each other/,
    );
    // A header that fits itself, but not the memory.
    const large = new PreparedActivations([4 * m, k], 2);
    prepareActivations(activations(4 * m, k), { out: large });
    const small = new PreparedActivations([m, k], 2);
    small.bytes.set(large.bytes.subarray(0, 64));
    const error = thrown(() => matmul(small, b, { out: Tensor.zeros('f32', [4 * m, 33]) }));
    expect(error.code).toBe('BL_BUFFER_TOO_SMALL');
    // Behind a header any bytes: numbers, but no crash.
    for (const isa of isasHere) {
      for (const algorithm of ['lut', 'dequant'] as const) {
        const noise = prepareActivations(activations(m, k), { for: b, algorithm: 'lut' });
        noise.bytes.set(randomBytes(noise.bytes.length - 64, 9), 64);
        expect(matmul(noise, b, { algorithm, isa }).shape).toEqual([m, 33]);
      }
    }
  });
});
