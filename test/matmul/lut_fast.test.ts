import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  dequantize,
  type Format,
  formats,
  type Isa,
  matmul,
  matmulAsync,
  matmulKernel,
  PreparedActivations,
  pack,
  prepareActivations,
  type QuantizedTensor,
  quantize,
  Tensor,
} from '../../lib/index.js';
import { gaussian } from '../reference/random.js';
import { bits, isasHere, thrown } from '../reference/views.js';

const taken = (Object.keys(formats) as Format[]).filter(
  (name) => /^(u|i)[123]z?_|^t2_/.test(name) || /^tq/.test(name),
);

function weights(format: Format, n: number, k: number, seed = 1): QuantizedTensor {
  return quantize(new Tensor('f32', gaussian(n * k, seed), [n, k]), format);
}

const rows = (values: Float32Array, k: number) => new Tensor('f32', values, [values.length / k, k]);

function fast(a: Tensor<'f32'>, b: QuantizedTensor, isa: Isa, threads = 1): Buffer {
  return bits(matmul(a, b, { compute: 'i8', algorithm: 'lut', tables: 'fast', isa, threads }));
}

/** Codes and scales as compute i8 rounds them, a group of 32. */
function rounded(x: Float32Array): { codes: number[]; scale: number } {
  const largest = Math.max(...x.map(Math.abs));
  return { codes: [...x].map((v) => Math.round((v * 127) / largest)), scale: largest / 127 };
}

/**
 * What `fast` may differ from `lossless` in a row of weights of `width` bits and group 128: 0.6 steps per lookup,
 * a step being the largest entry of the tables of 128 activations / 255 (bl_tables).
 */
function tableError(x: Float32Array, width: number, scales: number[]): number {
  const largest = (1 << width) - 1;
  let error = 0;
  for (let begin = 0; begin < x.length; begin += 128) {
    let step = 0;
    for (let i = begin; i < begin + 128; i += 32) {
      const { codes, scale } = rounded(x.slice(i, i + 32));
      for (let half = 0; half < 32; half += 16) {
        for (let first = 0; first < 4 * width; first++) {
          let entry = 0;
          for (let j = first; j < 16; j += 4 * width)
            entry += largest * Math.abs(codes[half + j] as number);
          step = Math.max(step, (scale * Math.max(entry, 63.75)) / 255);
        }
      }
    }
    const lookups = (128 * width) / 4;
    error += 0.6 * lookups * step * (scales[begin / 128] as number);
  }
  return error;
}

describe('matmul lut with fast tables', () => {
  it('has the same bits at every level in every format', () => {
    for (const [i, format] of taken.entries()) {
      const k = /^tq/.test(format) ? 512 : 173;
      const canonical = weights(format, 35, k, i);
      const lanes = pack(canonical);
      const a = rows(gaussian(3 * k, 777 + i), k);
      const want = fast(a, canonical, 'scalar');
      for (const isa of isasHere) {
        const options = { compute: 'i8', algorithm: 'lut', tables: 'fast', isa } as const;
        expect(matmulKernel(a, canonical, options)).toMatch(/^matmul_lut_fast_i8_/);
        expect(fast(a, canonical, isa).equals(want), `${format} ${isa}`).toBe(true);
        expect(fast(a, lanes, isa).equals(want), `${format} ${isa} lanes16`).toBe(true);
      }
    }
    expect(taken.length).toBe(13 * 10 + 2);
  });

  it.each(isasHere)('takes any M, N, K and number of threads at level %s', (isa) => {
    fc.assert(
      fc.property(
        fc.constantFrom<Format>(
          'u1_g32',
          'i1z_row',
          't2_g64',
          'u2z_g128_bf16',
          'u3_g32',
          'i3z_row_bf16',
          'u2_g256',
        ),
        fc.integer({ min: 1, max: 9 }),
        fc.constantFrom(1, 15, 16, 17, 33, 129, 272),
        fc.oneof(
          fc.constantFrom(1, 31, 33, 63, 65, 127, 129, 257),
          fc.integer({ min: 1, max: 300 }),
        ),
        fc.constantFrom(1, 2, 3, 7),
        fc.integer(),
        (format, m, n, k, threads, seed) => {
          const b = weights(format, n, k, seed);
          const a = rows(gaussian(m * k, seed + 1), k);
          const want = fast(a, b, 'scalar');
          expect(fast(a, b, isa, threads).equals(want)).toBe(true);
          expect(fast(a, pack(b), isa, threads).equals(want)).toBe(true);
        },
      ),
      { numRuns: 25 },
    );
  });

  it.each(isasHere)('takes zeros, denormals, infinities and NaN at level %s', (isa) => {
    const k = 192;
    const values = gaussian(9 * k, 5);
    values.fill(0, 0, k);
    values.fill(-0, k, 2 * k);
    values.fill(1e-42, 2 * k, 3 * k);
    values[3 * k + 7] = Number.POSITIVE_INFINITY;
    values[4 * k + 8] = Number.NaN;
    values[5 * k + 9] = Number.NEGATIVE_INFINITY;
    values[6 * k + 10] = 3e38;
    values[7 * k + 11] = 1e30;
    for (let i = 0; i < k; i++) values[8 * k + i] = 1.5e-36 * (values[8 * k + i] as number);
    const a = rows(values, k);
    for (const format of ['u1_g64', 'u1z_g32', 't2_g128', 'u2z_row', 'u3_g64'] as Format[]) {
      const b = pack(
        quantize(new Tensor('f32', gaussian(32 * k, 6, 1e-3), [32, k]), format as Format),
      );
      expect(fast(a, b, isa).equals(fast(a, b, 'scalar')), format).toBe(true);
      const c = matmul(a, b, { compute: 'i8', algorithm: 'lut', tables: 'fast', isa }).data;
      expect(c.slice(0, 3 * 32).every((value) => value === 0)).toBe(true);
      expect(c.slice(3 * 32, 6 * 32).every(Number.isNaN)).toBe(true);
      // 3e38 overflows in a sum of activations; so it would in float32.
      expect(c.slice(7 * 32).every(Number.isFinite)).toBe(true);
    }
  });

  it.each(['u1_g128', 'i1_g128', 'u2_g128', 't2_g128', 'u2z_g128'] as Format[])(
    'stays within its bound of lossless tables in %s',
    (format) => {
      const [n, k] = [32, 512];
      const b = weights(format, n, k, 3);
      const width = Number(format[1]);
      const header = /z_/.test(format) ? 4 : 2;
      const blocks = b.bytes.length / (n * (k / 128));
      const scale = (row: number, group: number): number => {
        const view = new DataView(b.bytes.buffer, b.bytes.byteOffset);
        return new Tensor(
          'f16',
          new Uint16Array([view.getUint16((row * 4 + group) * blocks, true)]),
          [1],
        ).toArray()[0] as number;
      };
      expect(header).toBeLessThan(blocks);
      // Signs are {0, 2} - 1: a code counts twice.
      const weight = /1_/.test(format) && !/z/.test(format) ? 2 : 1;
      const patterns: ((i: number, x: number) => number)[] = [
        (_, x) => x,
        (_, x) => Math.abs(x),
        (i, x) => (i === 77 ? 1000 : x),
        (i) => (i % 2 === 0 ? 1 : -1),
        (i, x) => (i % 128 < 32 ? x * 1e-4 : x),
      ];
      for (const pattern of patterns) {
        const x = gaussian(k, 11).map((value, i) => pattern(i, value));
        const lossless = matmul(rows(x, k), b, { compute: 'i8', algorithm: 'lut' }).data;
        const c = matmul(rows(x, k), b, { compute: 'i8', algorithm: 'lut', tables: 'fast' }).data;
        for (let row = 0; row < n; row++) {
          const scales = [0, 1, 2, 3].map((group) => weight * Math.abs(scale(row, group)));
          const bound = tableError(x, width, scales);
          const off = Math.abs((c[row] as number) - (lossless[row] as number));
          expect(off).toBeLessThan(bound * 1.001);
        }
      }
    },
  );

  it.each([
    ['u1_g128', 9.5e-3],
    ['u2_g128', 1.7e-2],
    ['t2_g128', 1.4e-2],
    ['u3_g128', 1.4e-2],
  ] as [Format, number][])('has the relative error that it states in %s', (format, most) => {
    const [n, k] = [64, 2048];
    const b = weights(format, n, k, 5);
    const x = gaussian(4 * k, 6);
    const c = matmul(rows(x, k), b, { compute: 'i8', algorithm: 'lut', tables: 'fast' }).data;
    const w = dequantize(b).data as Float32Array;
    let error = 0;
    let total = 0;
    for (let i = 0; i < 4 * n; i++) {
      const [row, column] = [Math.floor(i / n), i % n];
      let sum = 0;
      for (let j = 0; j < k; j++) sum += (x[row * k + j] as number) * (w[column * k + j] as number);
      error += ((c[i] as number) - sum) ** 2;
      total += sum ** 2;
    }
    expect(Math.sqrt(error / total)).toBeLessThan(most);
    expect(Math.sqrt(error / total)).toBeGreaterThan(most / 3);
  });

  it('loses nothing where activations have 4 bits and a scale per row', () => {
    const [m, n, k] = [3, 33, 320];
    const a = rows(gaussian(m * k, 8), k);
    for (const format of ['u1_g128', 't2_g64', 'u3_g128'] as Format[]) {
      const b = weights(format, n, k);
      const options = {
        compute: 'i8',
        algorithm: 'lut',
        activationBits: 4,
        activationGroup: 'row',
      } as const;
      const exact = matmul(a, b, options).data;
      const c = matmul(a, b, { ...options, tables: 'fast' }).data;
      const scale = Math.max(...exact.map(Math.abs));
      for (let i = 0; i < c.length; i++) {
        expect(Math.abs((c[i] as number) - (exact[i] as number))).toBeLessThan(1e-5 * scale);
      }
    }
  });

  it.each(isasHere)('takes codes with scales of either sign at level %s', (isa) => {
    const [m, n, k] = [2, 33, 256];
    const codes = Int8Array.from(gaussian(m * k, 4), (v) =>
      Math.max(-127, Math.min(127, Math.round(v * 40))),
    );
    const a = new Tensor('i8', codes, [m, k]);
    for (const scales of [
      new Tensor('f32', [0.5, -2], [m]),
      new Tensor('f32', gaussian((m * k) / 32, 9), [m, k / 32]),
    ]) {
      for (const format of ['u1_g128', 'u2z_g32', 'u3_g64'] as Format[]) {
        const b = weights(format, n, k);
        const options = { aScales: scales, algorithm: 'lut' } as const;
        const c = matmul(a, b, { ...options, tables: 'fast', isa });
        expect(
          bits(c).equals(bits(matmul(a, b, { ...options, tables: 'fast', isa: 'scalar' }))),
        ).toBe(true);
        const exact = matmul(a, b, options).data;
        let error = 0;
        let total = 0;
        for (let i = 0; i < exact.length; i++) {
          error += ((c.data[i] as number) - (exact[i] as number)) ** 2;
          total += (exact[i] as number) ** 2;
        }
        expect(Math.sqrt(error / total)).toBeLessThan(3e-2);
      }
    }
  });

  it('writes the same prepared tables at every level, which give the same bits', async () => {
    const [m, k] = [5, 333];
    const x = rows(gaussian(m * k, 2), k);
    const want = new PreparedActivations([m, k], 15);
    prepareActivations(x, { isa: 'scalar', out: want });
    for (const isa of isasHere) {
      for (const threads of [1, 2, 3, 7]) {
        const out = new PreparedActivations([m, k], 15);
        prepareActivations(x, { isa, threads, out });
        expect(Buffer.compare(out.bytes, want.bytes)).toBe(0);
      }
    }
    const list = (['u1_g32', 't2_g64', 'u3_g32', 'u2_row'] as Format[]).map((f) =>
      weights(f, 33, k),
    );
    const options = { algorithm: 'lut', tables: 'fast' } as const;
    const shared = prepareActivations(x, { for: list, ...options });
    expect(shared.tables).toBe(12);
    expect(prepareActivations(x, { for: list[0] as QuantizedTensor, ...options }).tables).toBe(4);
    for (const b of list) {
      const direct = bits(matmul(x, b, { compute: 'i8', ...options }));
      expect(bits(matmul(shared, b, options)).equals(direct)).toBe(true);
      expect(bits(await matmulAsync(shared, b, options)).equals(direct)).toBe(true);
    }
  });

  it('is not fooled by hostile bytes', () => {
    const [m, k] = [2, 192];
    const b = weights('u3_g32', 33, k);
    const shared = new PreparedActivations([m, k], 15);
    prepareActivations(rows(gaussian(m * k), k), { out: shared });
    fc.assert(
      fc.property(fc.infiniteStream(fc.integer({ min: 0, max: 255 })), (stream) => {
        for (let i = 64; i < shared.bytes.length; i++) shared.bytes[i] = stream.next().value;
        const options = { algorithm: 'lut', tables: 'fast' } as const;
        const c = matmul(shared, b, { ...options, isa: 'scalar' });
        expect(c.data.length).toBe(m * 33);
        for (const isa of isasHere)
          expect(matmul(shared, b, { ...options, isa }).data.length).toBe(66);
      }),
      { numRuns: 5 },
    );
  });

  describe('errors', () => {
    const k = 64;
    const x = rows(gaussian(2 * k), k);
    const b = weights('t2_g32', 16, k);
    it.each([
      [
        'an unknown kind',
        () => matmul(x, b, { compute: 'i8', tables: 'exact' as 'fast' }),
        'BL_INVALID_ARGUMENT',
        'matmul: tables is "exact", expected lossless or fast',
      ],
      [
        'floats',
        () => matmul(x, b, { tables: 'fast' }),
        'BL_INVALID_ARGUMENT',
        'matmul: tables is 1 (fast), which needs compute i8',
      ],
      [
        'an unknown kind of prepared tables',
        () => prepareActivations(x, { for: b, tables: 'exact' as 'fast' }),
        'BL_INVALID_ARGUMENT',
        'prepareActivations: tables is "exact", expected lossless or fast',
      ],
      [
        'lossless tables in place of fast ones',
        () =>
          matmul(prepareActivations(x, { for: b, algorithm: 'lut' }), b, {
            algorithm: 'lut',
            tables: 'fast',
          }),
        'BL_UNSUPPORTED',
        'matmul: prepared has tables 2, expected 8 for format t2_g32',
      ],
      [
        'tables that do not exist',
        () => new PreparedActivations([2, k], 16),
        'BL_INVALID_ARGUMENT',
        'PreparedActivations: tables is 16, expected 0 to 15',
      ],
    ] as [string, () => unknown, string, string][])('%s', (_, body, code, message) => {
      const error = thrown(body);
      expect(error.message).toBe(message);
      expect(error.code).toBe(code);
    });
  });

  it('is a permission: other algorithms do not read it', () => {
    const b = weights('u2_g32', 33, 96);
    const a = rows(gaussian(2 * 96, 3), 96);
    const plain = matmul(a, b, { compute: 'i8', algorithm: 'dequant' });
    const told = matmul(a, b, { compute: 'i8', algorithm: 'dequant', tables: 'fast' });
    expect(bits(told).equals(bits(plain))).toBe(true);
  });
});
