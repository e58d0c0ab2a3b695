// pack over the matrix's own bytes, and layout lanes16, whose picture is native/formats/panel.h.
import { describe, expect, it } from 'vitest';
import {
  dequantize,
  embedding,
  type Format,
  type Layout,
  pack,
  packAsync,
  QuantizedTensor,
  Tensor,
} from '../../lib/index.js';
import { gaussian } from '../reference/random.js';
import { quantized } from './cases.js';

const layouts: Layout[] = ['canonical', 'lanes16'];

function copyOf<F extends Format>(
  w: QuantizedTensor<F>,
  layout: Layout = w.layout,
): QuantizedTensor<F> {
  return new QuantizedTensor(w.format, w.bytes.slice(), w.shape, { layout });
}

/** Where lanes16 puts the bytes of a canonical matrix, from the picture. */
function lanesReference(canonical: QuantizedTensor, blockBytes: number): Uint8Array {
  const { rows, cols, bytes } = canonical;
  const blocks = cols / 32;
  const rowBytes = blocks * blockBytes;
  const out = bytes.slice();
  for (let row = 0; row < Math.floor(rows / 16) * 16; row++) {
    const lane = row % 16;
    for (let block = 0; block < blocks; block++) {
      const base = (row - lane) * rowBytes + block * 16 * blockBytes;
      const from = row * rowBytes + block * blockBytes;
      for (let i = 0; i < 2; i++) out[base + 2 * lane + i] = bytes[from + i] as number;
      for (let i = 0; i < blockBytes - 2; i++) {
        const word = Math.floor(i / 4);
        const flip = blockBytes === 34 ? 0x80 : 0; // signed codes become unsigned
        out[base + 32 + 4 * (16 * word + lane) + (i % 4)] = (bytes[from + 2 + i] as number) ^ flip;
      }
    }
  }
  return out;
}

describe('pack', () => {
  it.each([
    ['q4_0', 18],
    ['q8_0', 34],
  ] as const)(
    '%s: lanes16 is as pictured, and what lies in it decodes the same',
    (format, blockBytes) => {
      for (const rows of [1, 15, 16, 17, 50]) {
        const w = quantized(format, gaussian(rows * 96, rows), [rows, 96]);
        const packed = pack(w, { layout: 'lanes16' });
        expect(Buffer.compare(packed.bytes, lanesReference(w, blockBytes))).toBe(0);
        expect(dequantize(packed).toArray()).toEqual(dequantize(w).toArray());
        const ids = new Tensor('i32', [rows - 1, 0], [2]);
        expect(embedding(packed, ids).toArray()).toEqual(embedding(w, ids).toArray());
      }
    },
  );

  it('gives the same in place as apart, from any layout to any, on any number of threads', () => {
    const w = quantized('q8_0', gaussian(83 * 128, 3), [83, 128]);
    for (const from of layouts) {
      const source = pack(w, { layout: from });
      for (const to of layouts) {
        const apart = pack(source, { layout: to });
        for (const threads of [1, 2, 3, 7]) {
          const own = copyOf(source);
          const out = new QuantizedTensor('q8_0', own.bytes, own.shape, { layout: to });
          expect(pack(own, { out, threads })).toBe(out);
          expect(Buffer.compare(out.bytes, apart.bytes)).toBe(0);
        }
      }
    }
  });

  it('packs bit streams in place too, and async', async () => {
    const w = quantized('u3z_g64', gaussian(21 * 130, 4), [21, 130]);
    const own = copyOf(w);
    const out = new QuantizedTensor('u3z_g64', own.bytes, own.shape, { layout: 'lanes16' });
    await packAsync(own, { out });
    expect(Buffer.compare(out.bytes, pack(w).bytes)).toBe(0);
  });

  it('refuses to pack in place what changes its size, partial overlap and a layout that is not that of out', () => {
    const tight = quantized('u4_row', gaussian(16 * 40), [16, 40]);
    const memory32 = new Uint8Array(16 * 40);
    memory32.set(tight.bytes);
    const own = new QuantizedTensor('u4_row', memory32, [16, 40]);
    const padded = new QuantizedTensor('u4_row', memory32, [16, 40], { layout: 'lanes16' });
    expect(() => pack(own, { out: padded })).toThrow(
      expect.objectContaining({
        code: 'BL_INVALID_ARGUMENT',
        message: "pack: output has 544 bytes, expected 352 (= input's) to pack in place",
      }),
    );
    const memory = new Uint8Array(34 * 33);
    const w = new QuantizedTensor('q8_0', memory, [32, 32]);
    const beside = new QuantizedTensor('q8_0', memory.subarray(34), [32, 32], {
      layout: 'lanes16',
    });
    expect(() => pack(w, { out: beside })).toThrow(
      expect.objectContaining({
        code: 'BL_INVALID_ARGUMENT',
        message: 'pack: output overlaps input in part, expected the same or separate memory',
      }),
    );
    expect(() => pack(w, { out: beside, layout: 'canonical' })).toThrow(
      expect.objectContaining({
        code: 'BL_INVALID_LAYOUT',
        message: 'pack: out.layout is lanes16, expected canonical (= layout)',
      }),
    );
  });
});
