import { describe, expect, it } from 'vitest';
import {
  type PackWeightsOptions,
  pack,
  packWeights,
  packWeightsAsync,
  QuantizedTensor,
} from '../../lib/index.js';
import { gaussian } from '../reference/random.js';
import { codebookOf, quantized } from './cases.js';

const uses = ['decode', 'prefill', 'both', undefined] as const;
const copyOf = (w: QuantizedTensor) =>
  new QuantizedTensor(w.format, w.bytes.slice(), w.shape, {
    layout: w.layout,
    tensorScale: w.tensorScale,
    ...(w.codebook === undefined ? {} : { codebook: w.codebook }),
  });

describe('packWeights', () => {
  it('gives what pack gives, for every use, in new memory, and leaves the input', async () => {
    for (const format of ['q4_0', 'u3z_g64', 'q4_k', 'cb5_g32', 'f16'] as const) {
      const w = quantized(format, gaussian(35 * 256, 1), [35, 256]);
      const before = w.bytes.slice();
      const expected = pack(w);
      for (const use of uses) {
        const options: PackWeightsOptions = use === undefined ? {} : { for: use };
        for (const packed of [packWeights(w, options), await packWeightsAsync(w, options)]) {
          expect(packed.layout).toBe('lanes16');
          expect(packed.bytes.buffer).not.toBe(w.bytes.buffer);
          expect(Buffer.compare(packed.bytes, expected.bytes)).toBe(0);
        }
      }
      expect(Buffer.compare(w.bytes, before)).toBe(0);
    }
  });

  it('packs in place what keeps its size, else in new memory', async () => {
    for (const [format, cols, same] of [
      ['q8_0', 96, true],
      ['cb3_g64', 128, true],
      ['u4_row', 64, true],
      ['u4_row', 33, false],
      ['tq1_0', 256, false],
    ] as const) {
      const w = quantized(format, gaussian(33 * cols, 2), [33, cols]);
      const expected = pack(w);
      for (const call of [packWeights, packWeightsAsync]) {
        const own = copyOf(w);
        const packed = await call(own, { inPlace: true, threads: 2 });
        expect([format, cols, packed.bytes.buffer === own.bytes.buffer]).toEqual([
          format,
          cols,
          same,
        ]);
        expect(packed.codebook).toEqual(codebookOf(format));
        expect(Buffer.compare(packed.bytes, expected.bytes)).toBe(0);
      }
    }
  });

  it('keeps the tensor scale in place', () => {
    const w = new QuantizedTensor('nvfp4_g16', new Uint8Array(16 * 18), [16, 32], {
      tensorScale: 0.25,
    });
    expect(packWeights(w, { inPlace: true }).tensorScale).toBe(0.25);
    expect(packWeights(w).tensorScale).toBe(0.25);
  });

  it('gives packed weights back as they are', async () => {
    const packed = pack(quantized('q4_0', gaussian(512, 3), [16, 32]));
    expect(packWeights(packed)).toBe(packed);
    expect(await packWeightsAsync(packed, { inPlace: true })).toBe(packed);
  });

  it('refuses an unknown use, and an aborted signal', async () => {
    const w = quantized('q4_0', gaussian(512, 3), [16, 32]);
    const wrong = { for: 'training' } as unknown as PackWeightsOptions;
    const error = expect.objectContaining({
      code: 'BL_INVALID_ARGUMENT',
      message: 'packWeights: for is "training", expected decode, prefill, both or cuda',
    });
    expect(() => packWeights(w, wrong)).toThrow(error);
    await expect(packWeightsAsync(w, wrong)).rejects.toEqual(error);
    const signal = AbortSignal.abort(new Error('enough'));
    await expect(packWeightsAsync(w, { signal })).rejects.toThrow('enough');
    await expect(packWeightsAsync(pack(w), { signal })).rejects.toThrow('enough');
  });
});
