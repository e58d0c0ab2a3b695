// The options of matmul with algorithm tile, which computes rows that int8 does not suit apart from the others.
import { describe, expect, it } from 'vitest';
import { add, matmul, pack, QuantizedTensor, swiglu, Tensor } from '../../lib/index.js';
import { quantized } from '../quantize/cases.js';
import { referenceOutputs, roundGroups } from '../reference/matmul.js';
import { gaussian } from '../reference/random.js';
import { isasHere } from '../reference/views.js';
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
      for (const activationGroup of [32, 'row'] as const) {
        const y = matmul(a, exact, { isa, ...tile, activationBits, activationGroup });
        if (activationBits === 8 && activationGroup === 32) continue; // its own rounding, tested elsewhere
        const group = activationGroup === 'row' ? k : 512;
        const rounded = roundGroups(values, k, group, activationBits === 4 ? 7 : 127);
        expectOutputs(
          y,
          referenceOutputs(rounded, values, decoded(exact), m, n),
          `${activationBits} ${activationGroup}`,
        );
      }
    }
  });
});
