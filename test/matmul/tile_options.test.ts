// The options of matmul with algorithm tile, which computes rows that int8 does not suit apart from the others.
import { describe, expect, it } from 'vitest';
import {
  add,
  type Isa,
  type MatmulOptions,
  matmul,
  matmulKernel,
  pack,
  QuantizedTensor,
  swiglu,
  Tensor,
} from '../../lib/index.js';
import { quantized } from '../quantize/cases.js';
import { referenceOutputs, roundGroups } from '../reference/matmul.js';
import { gaussian } from '../reference/random.js';
import { isasHere, thrown } from '../reference/views.js';
import { bytesEqual, decoded, expectOutputs } from './cases.js';

const f32 = (values: Float32Array, shape: number[]): Tensor<'f32'> =>
  new Tensor('f32', values, shape);
const tile = { algorithm: 'tile', compute: 'i8' } as const;

describe('matmul: options with algorithm tile', () => {
  const [m, h, k] = [35, 48, 576];
  const n = 2 * h;
  const values = gaussian(m * k, 1);
  for (const row of [3, 20, 34]) values[row * k + 7 * row] = 3000; // rows for bf16
  const a = f32(values, [m, k]);
  const b = quantized('u4_g32', gaussian(n * k, 2), [n, k]);
  const columns = (t: Tensor<'f32'>, begin: number, end: number): Tensor<'f32'> =>
    f32(
      Float32Array.from(
        { length: m * (end - begin) },
        (_, i) => t.data[Math.floor(i / (end - begin)) * n + begin + (i % (end - begin))] as number,
      ),
      [m, end - begin],
    );

  it.each(isasHere)('gives the bits of separate operators at level %s', (isa) => {
    const plain = matmul(a, b, { isa, ...tile });
    const residual = f32(gaussian(m * h, 3), [m, h]);
    const gated = swiglu(columns(plain, 0, h), columns(plain, h, n), { isa });
    const expected = add(gated, residual, { isa });
    for (const weights of [b, pack(b, { layout: 'lanes16' })]) {
      const y = matmul(a, weights, { isa, ...tile, activation: 'swiglu', residual });
      expect(bytesEqual(y, expected)).toBe(true);
    }
    const down = f32(gaussian(2 * 3 * k, 4), [2, 3, k]);
    const up = f32(gaussian(2 * n * 3, 5), [2, n, 3]);
    const ids = new Tensor(
      'i32',
      Int32Array.from({ length: m }, (_, row) => (row % 3) - 1),
      [m],
    );
    const zeros = quantized('f32', new Float32Array(n * k), [n, k]);
    const term = matmul(a, zeros, { isa, adapters: { down, up, ids } });
    const both = matmul(a, b, { isa, ...tile, adapters: { down, up, ids } });
    expect(bytesEqual(both, add(plain, term, { isa }))).toBe(true);
  });

  it('auto takes no tiles where a scale per 32 or 4 bits are asked for', () => {
    const many = f32(values, [m, k]);
    const kernel = (options: MatmulOptions): string | undefined =>
      matmulKernel(many, b, { compute: 'i8', isa: isasHere.at(-1) as Isa, ...options });
    const takesTiles = isasHere.includes('amx'); // other levels do with more rows
    if (takesTiles) expect(kernel({})).toMatch(/_tile_i8_/);
    expect(kernel({ activationGroup: 32 })).toMatch(/_dequant_i8_/);
    expect(kernel({ activationBits: 4 })).toMatch(/_dequant_i8_/);
    if (takesTiles) {
      expect(kernel({ activationBits: 4, activationGroup: 'row' })).toMatch(/_tile_i8_/);
    }
    const out = f32(new Float32Array(m * n), [m, n]);
    const call = { ...tile, activationGroup: 32, out } as const;
    expect(thrown(() => matmul(many, b, call))).toMatchObject({
      code: 'BL_UNSUPPORTED',
      message:
        'matmul: activationGroup is 32, expected row or none with algorithm tile, whose scales are of 512',
    });
    // One channel 80 times the rest: by 7 steps of the largest of 512 the others would be lost (error 0.18).
    const large = gaussian(m * k, 8);
    for (let row = 0; row < m; row++) large[row * k + 3] = 80 * (large[row * k + 3] as number);
    const expected = referenceOutputs(large, large, decoded(b), m, n).values;
    const c = matmul(f32(large, [m, k]), b, { compute: 'i8', activationBits: 4 }).data;
    let error = 0;
    let energy = 0;
    for (const [i, value] of expected.entries()) {
      error += ((c[i] as number) - value) ** 2;
      energy += value ** 2;
    }
    expect(Math.sqrt(error / energy)).toBeLessThan(0.09);
  });

  it.each(isasHere)('takes stacks of matrices at level %s', (isa) => {
    const x = f32(values.slice(0, 34 * k), [2, 17, k]);
    const stacked = matmul(x, b, { isa, ...tile, batch: 2 });
    const bytes = b.bytes.byteLength / 2;
    const parts = [0, 1].map((i) => {
      const half = new QuantizedTensor('u4_g32', b.bytes.subarray(i * bytes, (i + 1) * bytes), [
        h,
        k,
      ]);
      return matmul(f32(values.slice(i * 17 * k, (i + 1) * 17 * k), [17, k]), half, {
        isa,
        ...tile,
      }).toArray();
    });
    expect(stacked.toArray()).toEqual(parts.flat());
  });

  it.each(isasHere)('uses codes as they are, and rounds as it is told, at level %s', (isa) => {
    // One scale for a row of weights: tiles take their codes without rounding.
    const exact = quantized('u4_row', gaussian(n * k, 6), [n, k]);
    const scales = gaussian(m, 7).map(Math.abs);
    const codes = Int8Array.from({ length: m * k }, (_, i) => ((i * 37) % 255) - 127);
    const seen = Float64Array.from(
      codes,
      (code, i) => code * (scales[Math.floor(i / k)] as number),
    );
    const c = matmul(new Tensor('i8', codes, [m, k]), exact, {
      isa,
      ...tile,
      aScales: f32(scales, [m]),
    });
    expectOutputs(c, referenceOutputs(seen, seen, decoded(exact), m, n), 'codes');
    for (const activationBits of [8, 4] as const) {
      for (const options of [{}, { activationGroup: 'row' }] as const) {
        const perRow = 'activationGroup' in options;
        const y = matmul(a, exact, { isa, ...tile, activationBits, ...options });
        if (activationBits === 8 && !perRow) continue; // its own rounding, tested elsewhere
        const rounded = roundGroups(values, k, perRow ? k : 512, activationBits === 4 ? 7 : 127);
        const expected = referenceOutputs(rounded, values, decoded(exact), m, n);
        expectOutputs(y, expected, `${activationBits} ${perRow}`);
      }
    }
  });
});
