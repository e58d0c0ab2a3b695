import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  BitStack,
  type BitStackBlock,
  dequantize,
  matmul,
  mixed,
  mixedAsync,
  oneBit,
  oneBitAsync,
  quantize,
  quantizeMixed,
  signDelta,
  signDeltaAsync,
  Tensor,
} from '../../lib/index.js';
import { type ReferenceOptions, referenceOutputs } from '../reference/matmul.js';
import { gaussian } from '../reference/random.js';
import { isasHere, thrown } from '../reference/views.js';
import { bytesEqual, expectOutputs } from './cases.js';

const f32 = (values: Float32Array, shape: number[]): Tensor<'f32'> =>
  new Tensor('f32', values, shape);
const signsOf = (values: Float32Array): Float32Array => values.map((x) => (x < 0 ? -1 : 1));

describe('oneBit', () => {
  it.each(isasHere)('equals its formula at level %s', (isa) => {
    const [m, n, k] = [3, 21, 70];
    const x = gaussian(m * k, 1);
    const signs = signsOf(gaussian(n * k, 2));
    const g = gaussian(k, 3);
    const h = gaussian(n, 4);
    const weights = {
      signs: quantize(f32(signs, [n, k]), 'u1_row'),
      rowScale: f32(h, [n]),
      columnScale: f32(g, [k]),
    };
    const dense = Float64Array.from(signs, (s, i) => s * (g[i % k] as number));
    const residual = gaussian(m * n, 5);
    const o: ReferenceOptions = { rowScale: h, activation: 'silu', residual };
    const options = { isa, activation: 'silu', residual: f32(residual, [m, n]) } as const;
    expectOutputs(oneBit(f32(x, [m, k]), weights, options), referenceOutputs(x, x, dense, m, n, o));
  });

  it('refuses weights without their vectors', () => {
    const x = Tensor.zeros('f32', [1, 2]);
    const signs = quantize(new Tensor('f32', [1, -1, -1, -1], [2, 2]), 'u1_row');
    expect(thrown(() => oneBit(x, { signs } as never))).toMatchObject({
      code: 'BL_INVALID_ARGUMENT',
      message: 'oneBit: weights.rowScale is undefined, expected a Tensor',
    });
    expect(thrown(() => mixed(x, signs as never))).toMatchObject({
      code: 'BL_INVALID_ARGUMENT',
      message: 'mixed: weights is a QuantizedTensor, expected a MixedTensor',
    });
  });

  it('computes its example, and the same async', async () => {
    const weights = {
      signs: quantize(new Tensor('f32', [1, -1, -1, -1], [2, 2]), 'u1_row'),
      rowScale: new Tensor('f32', [2, 3], [2]),
      columnScale: new Tensor('f32', [10, 1], [2]),
    };
    const x = new Tensor('f32', [1, 4], [1, 2]);
    expect(oneBit(x, weights).toArray()).toEqual([12, -42]);
    expect((await oneBitAsync(x, weights)).toArray()).toEqual([12, -42]);
  });
});

describe('BitStack', () => {
  const [m, n, k] = [2, 18, 40];
  const x = f32(gaussian(m * k, 1), [m, k]);
  const rank = 3;
  const parts = [0, 1, 2].map((i) => ({
    signs: signsOf(gaussian(n * k, 10 + i)),
    u: gaussian(rank * n, 20 + i),
    v: gaussian(rank * k, 30 + i),
  }));
  const read = (i: number): BitStackBlock => {
    const { signs, u, v } = parts[i] as (typeof parts)[0];
    return {
      signs: quantize(f32(signs, [n, k]), 'u1_row'),
      u: f32(u.slice(), [rank, n]),
      v: f32(v.slice(), [rank, k]),
    };
  };
  /** The matrix that the first `count` blocks stand for. */
  const dense = (count: number): Float64Array =>
    Float64Array.from({ length: n * k }, (_, at) => {
      let sum = 0;
      for (const { signs, u, v } of parts.slice(0, count)) {
        for (let r = 0; r < rank; r++) {
          const scale = (u[r * n + Math.floor(at / k)] as number) * (v[r * k + (at % k)] as number);
          sum += (signs[at] as number) * scale;
        }
      }
      return sum;
    });

  it.each(isasHere)('adds the blocks that are loaded at level %s', (isa) => {
    const layer = new BitStack(3, read);
    for (const count of [1, 3, 2]) {
      layer.load(count);
      expect(layer.loaded).toBe(count);
      const bias = gaussian(n, 40);
      const expected = referenceOutputs(x.data, x.data, dense(count), m, n, {
        bias,
        activation: 'relu',
      });
      // Terms of several blocks cancel: their magnitudes are those of the terms, not of the sum.
      const bounds = expected.bounds.map((bound) => 32 * bound + 1e-5);
      const y = layer.forward(x, { isa, bias: f32(bias, [n]), activation: 'relu' });
      expectOutputs(y, { values: expected.values, bounds });
    }
    layer.dispose();
    expect(layer.loaded).toBe(0);
  });

  it('frees what it unloads, accumulates into out and runs async', async () => {
    const made: BitStackBlock[] = [];
    const layer = new BitStack(3, (i) => {
      made.push(read(i));
      return made.at(-1) as BitStackBlock;
    });
    layer.load(3);
    const { bytes } = layer;
    const y = layer.forward(x);
    const out = Tensor.zeros('f32', [m, n]);
    expect(bytesEqual(layer.forward(x, { out, residual: out }), y)).toBe(true);
    expect(bytesEqual(await layer.forwardAsync(x), y)).toBe(true);
    layer.load(1);
    expect(layer.bytes * 3).toBe(bytes);
    expect(made.map(({ signs }) => signs.disposed)).toEqual([false, true, true]);
  });

  it('says what is wrong', () => {
    const layer = new BitStack(3, read);
    const code = 'BL_INVALID_ARGUMENT';
    expect(thrown(() => layer.forward(x))).toMatchObject({
      code,
      message: 'BitStack: no block is loaded, expected load() first',
    });
    expect(thrown(() => layer.load(4))).toMatchObject({
      code: 'BL_OUT_OF_RANGE',
      message: 'BitStack: count is 4, expected 0 to 3 (= total)',
    });
    expect(thrown(() => new BitStack(0, read))).toMatchObject({
      code,
      message: 'BitStack: total is 0, expected at least 1',
    });
    const uneven = new BitStack(2, (i) => ({ ...read(i), v: Tensor.zeros('f32', [rank, k + i]) }));
    expect(thrown(() => uneven.load(2))).toMatchObject({
      code: 'BL_INVALID_SHAPE',
      message: 'BitStack: blocks[1].v has shape [3,41], expected [3,40]',
    });
  });
});

describe('signDelta', () => {
  const [m, n, k] = [3, 20, 64];
  const x = f32(gaussian(m * k, 1), [m, k]);
  const base = quantize(f32(gaussian(n * k, 2), [n, k]), 'u4_g32');
  const deltas = [0.25, -2].map((scale, i) => ({
    signs: quantize(f32(signsOf(gaussian(n * k, 3 + i)), [n, k]), 'u1_row'),
    scale,
  }));

  it.each(isasHere)('adds each delta to the same base at level %s', (isa) => {
    const bias = gaussian(n, 6);
    const weights = dequantize(base).data;
    const results = signDelta(x, base, deltas, { isa, bias: f32(bias, [n]), activation: 'gelu' });
    results.forEach((y, i) => {
      const { signs, scale } = deltas[i] as (typeof deltas)[0];
      const delta = dequantize(signs).data;
      const dense = Float64Array.from(weights, (w, at) => w + scale * (delta[at] as number));
      const { values, bounds } = referenceOutputs(x.data, x.data, dense, m, n, {
        bias,
        activation: 'gelu',
      });
      // The delta cancels the base in places: errors go with the magnitudes of both.
      expectOutputs(y, { values, bounds: bounds.map((bound) => 8 * bound + 1e-6) });
    });
    expect(results).toHaveLength(2);
  });

  it('gives the same async, nothing for no deltas, and says what does not fit', async () => {
    const once = signDelta(x, base, deltas);
    const again = await signDeltaAsync(x, base, deltas);
    again.forEach((y, i) => {
      expect(bytesEqual(y, once[i] as Tensor)).toBe(true);
    });
    expect(signDelta(x, base, [])).toEqual([]);
    const signs = quantize(Tensor.zeros('f32', [n, 32]), 'u1_row');
    expect(thrown(() => signDelta(x, base, [{ signs }]))).toMatchObject({
      code: 'BL_INVALID_SHAPE',
      message: 'signDelta: deltas[0].signs has shape [20,32], expected [20,64] (= base.shape)',
    });
  });
});

describe('mixed', () => {
  it('looks up the tables that are asked for in every product', () => {
    const [m, n, k] = [2, 20, 256];
    const w = quantizeMixed(f32(gaussian(n * k, 1), [n, k]), Uint8Array.of(1, 2), 128);
    const x = f32(gaussian(m * k, 2), [m, k]);
    const options = { compute: 'i8', algorithm: 'lut', tables: 'fast' } as const;
    const [first, second] = w.segments.map(({ weights, columns }) => ({
      weights,
      columnOrder: columns,
    }));
    if (first === undefined || second === undefined) throw new Error('expected two segments');
    const { columnOrder } = second;
    const addend = matmul(x, first.weights, { ...options, columnOrder: first.columnOrder });
    const expected = matmul(x, second.weights, { ...options, columnOrder, addend });
    expect(bytesEqual(mixed(x, w, options), expected)).toBe(true);
  });

  it.each(isasHere)('equals the reference for any widths at level %s', (isa) => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 5 }),
        fc.integer({ min: 1, max: 20 }),
        fc.integer({ min: 1, max: 170 }),
        fc.array(fc.integer({ min: 1, max: 8 }), { minLength: 6, maxLength: 6 }),
        fc.boolean(),
        fc.integer({ min: 1, max: 1000 }),
        (m, n, k, someWidths, zeroPoint, seed) => {
          const widths = Uint8Array.from(someWidths.slice(0, Math.ceil(k / 32)));
          const values = gaussian(n * k, seed);
          const w = quantizeMixed(f32(values, [n, k]), widths, 32, { zeroPoint });
          expect(w.shape).toEqual([n, k]);
          const dense = new Float64Array(n * k);
          for (const { weights, columns, width } of w.segments) {
            const part = dequantize(weights).data;
            part.forEach((value, at) => {
              const column = columns.data[at % weights.cols] as number;
              expect(widths[Math.floor(column / 32)]).toBe(width);
              dense[Math.floor(at / weights.cols) * k + column] = value;
            });
          }
          const x = gaussian(m * k, seed + 1);
          const bias = gaussian(n, seed + 2);
          const y = mixed(f32(x, [m, k]), w, { isa, bias: f32(bias, [n]), activation: 'silu' });
          const { values: expected, bounds } = referenceOutputs(x, x, dense, m, n, {
            bias,
            activation: 'silu',
          });
          expectOutputs(y, { values: expected, bounds: bounds.map((bound) => 2 * bound) });
        },
      ),
      { numRuns: 30 },
    );
  });

  it('is the product itself where all widths are one, and better with more bits', async () => {
    const [m, n, k] = [4, 33, 128];
    const x = f32(gaussian(m * k, 1), [m, k]);
    const source = f32(gaussian(n * k, 2), [n, k]);
    const one = quantizeMixed(source, Uint8Array.of(4, 4), 64);
    const plain = matmul(x, quantize(source, 'u4_g64'));
    expect(bytesEqual(mixed(x, one), plain)).toBe(true);
    expect(bytesEqual(await mixedAsync(x, one), plain)).toBe(true);
    const few = quantizeMixed(source, Uint8Array.of(2, 3), 64);
    expect(few.bits).toBeLessThan(one.bits);
    const half = quantizeMixed(
      new Tensor('f16', source.toArray(), [n, k]),
      Uint8Array.of(8, 4),
      64,
    );
    const out = Tensor.zeros('f16', [m, n]);
    const y = mixed(x, half, { out, compute: 'i8' });
    expect(y).toBe(out);
    y.toArray().forEach((value, i) => {
      expect(Math.abs(value - (plain.data[i] as number))).toBeLessThan(8);
    });
    few.dispose();
    expect(few.segments[0]?.weights.disposed).toBe(true);
  });

  it('says what is wrong', () => {
    const source = Tensor.zeros('f32', [2, 100]);
    const check = (code: string, message: string, body: () => unknown): void =>
      expect(thrown(body)).toMatchObject({ code, message });
    check(
      'BL_INVALID_SHAPE',
      'quantizeMixed: widths has 3 entries, expected 4 (= ceil(cols / groupSize))',
      () => quantizeMixed(source, Uint8Array.of(1, 2, 3), 32),
    );
    check('BL_OUT_OF_RANGE', 'quantizeMixed: widths[1] is 9, expected 1 to 8', () =>
      quantizeMixed(source, Uint8Array.of(1, 9, 3, 4), 32),
    );
    check('BL_INVALID_SHAPE', 'quantizeMixed: x.rank is 1, expected 2', () =>
      quantizeMixed(Tensor.zeros('f32', [5]), Uint8Array.of(1), 32),
    );
    check('BL_INVALID_ARGUMENT', 'quantizeMixed: groupSize is 48, expected a multiple of 32', () =>
      quantizeMixed(source, Uint8Array.of(1), 48),
    );
    check('BL_INVALID_ARGUMENT', 'quantizeMixed: widths is null, expected a Uint8Array', () =>
      quantizeMixed(source, null as never, 32),
    );
    check('BL_INVALID_ARGUMENT', 'quantizeMixed: options is null, expected an object', () =>
      quantizeMixed(source, Uint8Array.of(1, 2, 3, 4), 32, null as never),
    );
    const w = quantizeMixed(source, Uint8Array.of(1, 2, 3, 4), 32);
    check('BL_INVALID_SHAPE', 'mixed: x has 99 columns, expected 100 (= weights.cols)', () =>
      mixed(Tensor.zeros('f32', [1, 99]), w),
    );
  });
});
