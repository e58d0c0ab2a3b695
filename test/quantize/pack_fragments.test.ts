// Layout fragments, whose picture is native/formats/fragments.h: there and back for every format, and the place of codes.
import { describe, expect, it } from 'vitest';
import {
  dequantize,
  embedding,
  type Format,
  formats,
  matmul,
  pack,
  QuantizedTensor,
  Tensor,
  weightsBytes,
} from '../../lib/index.js';
import { onDevice } from '../reference/op_checks.js';
import { gaussian } from '../reference/random.js';
import { quantized } from './cases.js';

/** Code of row r and weight k in the one 4-bit plane of a matrix, from the picture. */
function nibble(packed: QuantizedTensor, r: number, k: number): number {
  const units = Math.ceil(packed.cols / 64);
  const unit = 256 + (Math.floor(r / 16) * units + Math.floor(k / 64)) * 512;
  const [h, t, u, v, e] = [(k >> 5) & 1, (k >> 3) & 3, (k >> 2) & 1, (k >> 1) & 1, k & 1];
  const lane = 4 * (r % 8) + t;
  const pair = 2 * ((r >> 3) & 1) + v;
  const word = new DataView(packed.bytes.buffer, packed.bytes.byteOffset).getUint32(
    unit + 16 * lane + 4 * (2 * h + u),
    true,
  );
  return (word >>> (4 * pair + 16 * e)) & 15;
}

describe('pack to fragments', () => {
  it('puts the codes of q4_0 where the picture has them', () => {
    const w = quantized('q4_0', gaussian(37 * 96, 5), [37, 96]);
    const packed = pack(w, { layout: 'fragments' });
    for (let r = 0; r < 48; r++) {
      for (let k = 0; k < 128; k++) {
        const block = r * 54 + Math.floor(k / 32) * 18 + 2;
        const i = k % 32;
        const byte = w.bytes[block + (i % 16)] as number;
        const code = r < 37 && k < 96 ? (i < 16 ? byte & 15 : byte >> 4) : 0;
        expect(nibble(packed, r, k)).toBe(code);
      }
    }
  });

  it.each(Object.keys(formats) as Format[])('%s: nothing is lost', (format) => {
    const info = formats[format];
    const block = info.kind === 'block' ? info.blockElements : 1;
    const cols = block * Math.max(1, Math.ceil(72 / block));
    for (const rows of [1, 17]) {
      const w = quantized(format, gaussian(rows * cols, rows), [rows, cols]);
      const packed = pack(w, { layout: 'fragments' });
      expect(packed.layout).toBe('fragments');
      expect(packed.bytes.byteLength).toBe(weightsBytes(format, rows, cols, 'fragments'));
      const lanes = pack(w, { layout: 'lanes16' });
      const same = (a: Uint8Array, b: Uint8Array) => expect(Buffer.compare(a, b)).toBe(0);
      same(pack(packed, { layout: 'canonical' }).bytes, w.bytes);
      same(pack(packed, { layout: 'lanes16' }).bytes, lanes.bytes);
      same(pack(lanes, { layout: 'fragments', threads: 2 }).bytes, packed.bytes);
      same(pack(packed, { layout: 'fragments' }).bytes, packed.bytes);
      same(dequantize(packed).bytes, dequantize(w).bytes);
    }
  });

  it.skipIf(onDevice)('serves embedding, and no matmul of the CPU', () => {
    const w = quantized('u4_g64', gaussian(20 * 128, 3), [20, 128]);
    const packed = pack(w, { layout: 'fragments' });
    const ids = new Tensor('i32', [19, 0, 7], [3]);
    expect(embedding(packed, ids).toArray()).toEqual(embedding(w, ids).toArray());
    expect(() => matmul(Tensor.zeros('f32', [1, 128]), packed)).toThrow(
      expect.objectContaining({
        code: 'BL_INVALID_LAYOUT',
        message:
          'matmul: b.layout is fragments, which CUDA devices read, expected canonical or lanes16',
      }),
    );
    const same = new QuantizedTensor('u4_g64', w.bytes, w.shape);
    expect(() =>
      pack(same, {
        out: new QuantizedTensor('u4_g64', packed.bytes, w.shape, { layout: 'fragments' }),
      }),
    ).not.toThrow();
  });
});
