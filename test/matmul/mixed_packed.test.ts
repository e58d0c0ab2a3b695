// Mixed widths packed, in groups of any size, and made of matrices by hand.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  dequantize,
  type Format,
  MixedTensor,
  mixed,
  mixedAsync,
  packWeights,
  packWeightsAsync,
  quantize,
  quantizeMixed,
  Tensor,
} from '../../lib/index.js';
import { quantized } from '../quantize/cases.js';
import { gaussian } from '../reference/random.js';
import { isasHere, thrown } from '../reference/views.js';
import { bytesEqual } from './cases.js';

const f32 = (values: Float32Array, shape: number[]): Tensor<'f32'> =>
  new Tensor('f32', values, shape);
const matrix = (n: number, k: number, seed: number): Tensor<'f32'> =>
  f32(gaussian(n * k, seed), [n, k]);

describe('packed mixed widths', () => {
  it.each(isasHere)('give the bits of those that are not packed, at level %s', (isa) => {
    const computes = ['f32', 'i8', 'bf16'] as const;
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 20 }),
        fc.integer({ min: 1, max: 50 }),
        fc.integer({ min: 1, max: 300 }),
        fc.constantFrom(32, 64, 96, 128),
        fc.array(fc.integer({ min: 1, max: 8 }), { minLength: 10, maxLength: 10 }),
        fc.boolean(),
        fc.constantFrom(...computes),
        (m, n, k, groupSize, someWidths, zeroPoint, compute) => {
          const widths = Uint8Array.from(someWidths.slice(0, Math.ceil(k / groupSize)));
          const w = quantizeMixed(matrix(n, k, k), widths, groupSize, { zeroPoint });
          const packed = packWeights(w, { isa });
          const x = matrix(m, k, m);
          expect(
            bytesEqual(mixed(x, packed, { isa, compute }), mixed(x, w, { isa, compute })),
          ).toBe(true);
          expect(packed.segments.every(({ weights }) => weights.layout === 'lanes16')).toBe(true);
          expect(packed.shape).toEqual([n, k]);
        },
      ),
      { numRuns: isa === 'scalar' ? 15 : 40 },
    );
  });

  it('come in place or in memory of their own, now or later, and once', async () => {
    const w = quantizeMixed(matrix(35, 256, 1), Uint8Array.of(3, 8, 1, 3), 64);
    const before = w.segments.map(({ weights }) => weights.bytes.slice());
    const packed = packWeights(w, { for: 'decode', threads: 2 });
    const later = await packWeightsAsync(w);
    packed.segments.forEach(({ weights }, i) => {
      expect(Buffer.compare(weights.bytes, later.segments[i]?.weights.bytes as Uint8Array)).toBe(0);
    });
    expect(w.segments.map(({ weights }) => weights.bytes)).toEqual(before);
    expect(packed.widths).toEqual(w.widths);
    expect(packWeights(packed)).toBe(packed);
    expect(await packWeightsAsync(packed)).toBe(packed);
    expect(packed.bits).toBe(w.bits);
    w.dispose();
    const x = matrix(2, 256, 2);
    expect(bytesEqual(await mixedAsync(x, later), mixed(x, packed))).toBe(true);
    const own = quantizeMixed(matrix(35, 256, 1), Uint8Array.of(3, 8, 1, 3), 64);
    const inPlace = packWeights(own, { inPlace: true });
    inPlace.segments.forEach(({ weights }, i) => {
      expect(weights.bytes.buffer).toBe(own.segments[i]?.weights.bytes.buffer);
      expect(Buffer.compare(weights.bytes, packed.segments[i]?.weights.bytes as Uint8Array)).toBe(
        0,
      );
    });
  });

  it('are refused for devices, and stop at a signal', async () => {
    const w = quantizeMixed(matrix(4, 64, 1), Uint8Array.of(3, 8), 32);
    expect(thrown(() => packWeights(w, { for: 'cuda' }))).toMatchObject({
      code: 'BL_UNSUPPORTED',
      message:
        'packWeights: for is "cuda", expected decode, prefill or both (weights is a MixedTensor)',
    });
    expect(thrown(() => packWeights(w, { for: 'training' as never })).code).toBe(
      'BL_INVALID_ARGUMENT',
    );
    await expect(packWeightsAsync(w, { signal: AbortSignal.abort() })).rejects.toMatchObject({
      name: 'AbortError',
    });
  });
});

describe('groups of columns', () => {
  it.each([
    [64, 64],
    [96, 32],
    [192, 64],
    [384, 128],
    [512, 256],
  ])('of %i share a scale by %i', (groupSize, scaleGroup) => {
    const k = 2 * groupSize;
    const source = matrix(3, k, groupSize);
    const w = quantizeMixed(source, Uint8Array.of(5, 5), groupSize);
    expect(w.segments.map(({ weights }) => weights.format)).toEqual([`u5_g${scaleGroup}`]);
    const plain = quantize(source, `u5_g${scaleGroup}` as Format);
    expect(Buffer.compare(w.segments[0]?.weights.bytes as Uint8Array, plain.bytes)).toBe(0);
  });

  it('may be none', () => {
    const w = quantizeMixed(Tensor.zeros('f32', [3, 0]), new Uint8Array(0), 32);
    expect(w.segments).toEqual([]);
    const bias = f32(Float32Array.of(1, 2, 3), [3]);
    expect(mixed(Tensor.zeros('f32', [2, 0]), w, { bias }).toArray()).toEqual([1, 2, 3, 1, 2, 3]);
    expect(packWeights(w)).toBe(w);
  });
});

describe('MixedTensor', () => {
  it('takes matrices of any format that has the bits', () => {
    const [n, k] = [18, 100];
    const narrow = quantized('nf4_g32', gaussian(n * 40, 1), [n, 40]);
    const wide = quantized('cb7_row', gaussian(n * 60, 2), [n, 60]);
    const w = new MixedTensor([n, k], 20, Uint8Array.of(7, 4, 7, 4, 7), [narrow, wide]);
    const x = gaussian(k, 3);
    const parts = [dequantize(narrow).data, dequantize(wide).data] as const;
    const y = mixed(f32(x, [1, k]), packWeights(w)).data;
    for (let row = 0; row < n; row++) {
      let sum = 0;
      for (let column = 0; column < k; column++) {
        const group = Math.floor(column / 20);
        const [part, width] = group % 2 === 0 ? [parts[1], 60] : [parts[0], 40];
        const at = Math.floor(group / 2) * 20 + (column % 20);
        sum += (x[column] as number) * (part[row * width + at] as number);
      }
      expect(Math.abs((y[row] as number) - sum)).toBeLessThan(1e-5);
    }
  });

  it('says what does not fit', () => {
    const four = quantized('u4_g32', gaussian(2 * 32, 1), [2, 32]);
    const two = quantized('u2_g32', gaussian(2 * 32, 1), [2, 32]);
    const widths = Uint8Array.of(4, 2);
    const check = (code: string, message: string, ...given: unknown[]): void =>
      expect(
        thrown(() => new MixedTensor(...(given as ConstructorParameters<typeof MixedTensor>))),
      ).toMatchObject({ code, message: `MixedTensor: ${message}` });
    check(
      'BL_INVALID_SHAPE',
      'there are 1 matrices, expected 2 (one for each width)',
      [2, 64],
      32,
      widths,
      [four],
    );
    check(
      'BL_INVALID_FORMAT',
      'matrices[0] is of format u4_g32, expected one of 2 bits',
      [2, 64],
      32,
      widths,
      [four, two],
    );
    check(
      'BL_INVALID_SHAPE',
      'matrices[1] has shape [2,32], expected [2,31] (columns of 4 bits)',
      [2, 63],
      31,
      Uint8Array.of(4, 2, 2),
      [two, four],
    );
    check(
      'BL_OUT_OF_RANGE',
      'groupSize is 0.5, expected a whole number of at least 1',
      [2, 64],
      0.5,
      widths,
      [two, four],
    );
  });
});
