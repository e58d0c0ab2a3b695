// matmul of weights in layout fragments on a device, against float64 on the dequantized weights.
import { describe, expect, it } from 'vitest';
import {
  dequantize,
  type Format,
  formats,
  matmul,
  matmulAsync,
  matmulKernel,
  matmulWorkspaceBytes,
  packWeights,
  type QuantizedTensor,
  quantize,
  Tensor,
} from '../../lib/index.js';

const cuda = 'cuda:0';
const code = (value: string) => expect.objectContaining({ code: value });

/** Values that look random, in [-1, 1]. */
function values(count: number, seed: number): Float32Array {
  let state = seed * 2654435761 + 1;
  return Float32Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 31 - 1;
  });
}

function product(a: readonly number[], w: readonly number[], k: number): number[] {
  const [m, n] = [a.length / k, w.length / k];
  return Array.from({ length: m * n }, (_, i) => {
    const [row, column] = [Math.floor(i / n) * k, (i % n) * k];
    let sum = 0;
    for (let j = 0; j < k; j++) sum += (a[row + j] as number) * (w[column + j] as number);
    return sum;
  });
}

/** Root of the sum of squares of the difference, relative to the expected. */
function error(actual: readonly number[], expected: readonly number[]): number {
  let [difference, size] = [0, 0];
  expected.forEach((value, i) => {
    difference += (value - (actual[i] as number)) ** 2;
    size += value * value;
  });
  return Math.sqrt(difference / size);
}

const x1 = (k: number): Tensor<'f32'> => new Tensor('f32', values(k, 5), [1, k]);
const weights = (format: Format, n: number, k: number): QuantizedTensor =>
  quantize(new Tensor('f32', values(n * k, 3), [n, k]), format);

// One format of each kind of code, and odd widths.
const kinds = [
  'q4_0',
  'q8_0',
  'q4_k',
  'u1_g32',
  't2_g64',
  'u3_g32',
  'u4z_g128',
  'i5_g64',
  'u6_g32',
  'i7_g32',
];
const tables = ['nf4_g64', 'mxfp4', 'nvfp4_g16', 'bfp4_g32', 'f16', 'bf16'];

describe('matmul on a device', () => {
  it.each([...kinds, ...tables].filter((format) => format in formats) as Format[])(
    '%s: few and many rows, odd sizes',
    async (format) => {
      const block = formats[format].blockElements;
      for (const [m, n, blocks] of [
        [1, 33, 5],
        [3, 64, 4],
        [18, 40, 3],
      ] as const) {
        const k = block > 1 && formats[format].kind === 'block' ? block * blocks : 32 * blocks * 2;
        const w = weights(format, n, k);
        const x = new Tensor('f32', values(m * k, 5), [m, k]);
        const moved = await packWeights(w, { for: 'cuda' }).to(cuda);
        const y = matmul(await x.to(cuda), moved);
        expect([y.device, y.shape]).toEqual([cuda, [m, n]]);
        const expected = product(x.toArray(), dequantize(w).toArray(), k);
        // Activations and weights in f16 (2^-11 each), sums in f32.
        expect(error((await y.to('cpu')).toArray(), expected)).toBeLessThan(1e-3);
      }
    },
  );

  it('applies the epilogue', async () => {
    const [m, n, k] = [4, 48, 128];
    const w = weights('u4_g32', n, k);
    const x = new Tensor('f32', values(m * k, 5), [m, k]);
    const bias = new Tensor('f32', values(n, 7), [n]);
    const residual = new Tensor('f32', values(m * n, 9), [m, n]);
    const there = await packWeights(w, { for: 'cuda' }).to(cuda);
    const options = { activation: 'silu' as const, scale: 0.5 };
    const y = await matmulAsync(await x.to(cuda), there, {
      ...options,
      bias: await bias.to(cuda),
      residual: await residual.to(cuda),
    });
    const expected = matmul(x, w, { ...options, bias, residual }).toArray();
    expect(error(y.toSync('cpu').toArray(), expected)).toBeLessThan(1e-3);
  });

  it.each(['q4_0', 'q8_0', 'u4_g128', 'u4z_g64', 't2_g64', 'u5_g32', 'q4_k', 'i8_row'] as const)(
    "%s: compute 'i8' has the scalar kernel's bits",
    async (format) => {
      const [m, n, k] = [18, 40, 512];
      const w = weights(format, n, k);
      const x = new Tensor('f32', values(m * k, 5), [m, k]);
      const [moved, there] = [await packWeights(w, { for: 'cuda' }).to(cuda), await x.to(cuda)];
      const scalar = { compute: 'i8', algorithm: 'dequant', isa: 'scalar' } as const;
      for (const activationBits of [4, 8] as const) {
        const y = matmul(there, moved, { compute: 'i8', activationBits }).toSync('cpu');
        expect(y.toArray()).toEqual(matmul(x, w, { ...scalar, activationBits }).toArray());
      }
      // A scale per row: sums of integers over a group of weights, or over all of K.
      const y = matmul(there, moved, { compute: 'i8', activationGroup: 'row' }).toSync('cpu');
      const expected = matmul(x, w, { ...scalar, activationGroup: 'row' }).toArray();
      expect(error(y.toArray(), expected)).toBeLessThan(1e-6);
      // Few rows: warps share K.
      const few = matmul(await new Tensor('f32', x.data.slice(0, 3 * k), [3, k]).to(cuda), moved, {
        compute: 'i8',
      }).toSync('cpu');
      const first = matmul(x, w, scalar)
        .toArray()
        .slice(0, 3 * n);
      expect(error(few.toArray(), first)).toBeLessThan(1e-6);
    },
  );

  it.each(['u4_g128', 'mxfp4', 'e4m3_g32', 'q8_0', 'nf4_g64'] as const)(
    "%s: compute 'e4m3' has the processor's numbers",
    async (format) => {
      const [n, k] = [40, 512];
      const w = weights(format, n, k);
      const moved = await packWeights(w, { for: 'cuda' }).to(cuda);
      // f16 weights where the kernel has no exact ones.
      const most = format === 'nf4_g64' ? 1e-3 : 1e-6;
      for (const m of [3, 18]) {
        const x = new Tensor('f32', values(m * k, 5), [m, k]);
        const there = await x.to(cuda);
        for (const activationGroup of [32, 'row'] as const) {
          const options = { compute: 'e4m3', activationGroup } as const;
          const y = await (await matmulAsync(there, moved, options)).to('cpu');
          expect(error(y.toArray(), matmul(x, w, options).toArray())).toBeLessThan(most);
        }
      }
      expect(() => matmul(x1(k), w, { compute: 'e4m3', algorithm: 'lut' })).toThrow(
        code('BL_UNSUPPORTED'),
      );
    },
  );

  it('multiplies codes with codes', async () => {
    const [m, n, k] = [20, 33, 192];
    const w = weights('i8_row', n, k);
    const codes = Int8Array.from(values(m * k, 11), (value) => Math.round(value * 127));
    const x = new Tensor('i8', codes, [m, k]);
    const aScales = new Tensor('f32', values(m, 12), [m]);
    const there = await packWeights(w, { for: 'cuda' }).to(cuda);
    const y = matmul(await x.to(cuda), there, { aScales: await aScales.to(cuda) }).toSync('cpu');
    const expected = matmul(x, w, { aScales, algorithm: 'dequant', isa: 'scalar' }).toArray();
    expect(error(y.toArray(), expected)).toBeLessThan(1e-6);
  });

  it('has no kernel and no workspace of the processor', async () => {
    const x = await new Tensor('f32', values(64, 5), [1, 64]).to(cuda);
    const there = await packWeights(weights('u4_g32', 16, 64), { for: 'cuda' }).to(cuda);
    expect([matmulKernel(x, there), matmulWorkspaceBytes(x, there)]).toEqual([
      undefined,
      undefined,
    ]);
  });

  it('says what it wants', async () => {
    const w = weights('u4_g32', 16, 64);
    const x = await new Tensor('f32', values(64, 5), [1, 64]).to(cuda);
    const canonical = await w.to(cuda);
    expect(() => matmul(x, canonical)).toThrow(/layout/);
    const there = await packWeights(w, { for: 'cuda' }).to(cuda);
    expect(() => matmul(x, w)).toThrow(/b is on cpu, expected cuda:0/);
    expect(() => matmul(x, there, { compute: 'i1' })).toThrow(code('BL_UNSUPPORTED'));
    const wrong = await new Tensor('f32', values(32, 5), [1, 32]).to(cuda);
    expect(() => matmul(wrong, there)).toThrow(code('BL_INVALID_SHAPE'));
  });
});
