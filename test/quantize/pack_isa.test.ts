// Packing at each level of this machine gives the bytes that the scalar code gives, whatever the canonical bytes are.
import { describe, expect, it } from 'vitest';
import { type Format, formats, machine, pack, QuantizedTensor } from '../../lib/index.js';
import { weightsBytes } from '../../lib/quantized_tensor.js';
import { codebookOf, formatNames } from './cases.js';

const levels = (['avx2', 'avx512'] as const).filter((isa) => machine().isas.includes(isa));

/** Any bytes: scales that are NaN, spare bits that are set, codes that no encoder makes. */
function anyBytes(bytes: number, seed: number): Uint8Array {
  let state = (seed * 2654435761 + 1) >>> 0;
  const made = new Uint8Array(bytes);
  for (let i = 0; i < bytes; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    made[i] = state >>> 24;
  }
  return made;
}

/** Whole spans, several and none; row ends within blocks, bytes and columns; panels that are not full. */
function shapesOf(format: Format): [number, number][] {
  const { kind, blockElements } = formats[format];
  if (kind === 'block' && blockElements > 1) {
    return [1, 3, 17].map((blocks, i) => [i === 0 ? 35 : 16, blocks * blockElements]);
  }
  return [33, 1, 65, 257, 288, 523].map((cols, i) => [i === 0 ? 35 : 16, cols]);
}

describe('pack by level', () => {
  it.each(formatNames)('%s: the bytes of the scalar code', (format) => {
    const codebook = codebookOf(format);
    for (const [rows, cols] of shapesOf(format)) {
      const data = anyBytes(weightsBytes(format, rows, cols), rows + cols);
      const options = codebook === undefined ? {} : { codebook };
      const weights = new QuantizedTensor(format, data, [rows, cols], options);
      const expected = pack(weights, { isa: 'scalar' });
      for (const isa of levels) {
        const packed = pack(weights, { isa, threads: rows > 16 ? 2 : 1 });
        expect([isa, cols, Buffer.compare(packed.bytes, expected.bytes)]).toEqual([isa, cols, 0]);
      }
    }
  });

  it('reads no byte beyond the matrix and writes none beyond the packed one', () => {
    for (const format of ['u1_g32', 'u3z_g64', 'q4_0', 'q6_k', 'i5_row', 'f16'] as const) {
      const bytes = weightsBytes(format, 16, 256);
      for (const isa of levels) {
        const memory = anyBytes(bytes + 64, 7);
        const weights = new QuantizedTensor(format, memory.subarray(0, bytes), [16, 256]);
        const room = new Uint8Array(bytes + 128).fill(0xa5);
        const out = new QuantizedTensor(format, room.subarray(64, 64 + bytes), [16, 256], {
          layout: 'lanes16',
        });
        pack(weights, { isa, out });
        const before = out.bytes.slice();
        memory.fill(0, bytes);
        pack(weights, { isa, out });
        expect(Buffer.compare(out.bytes, before)).toBe(0);
        expect(room.subarray(0, 64).every((byte) => byte === 0xa5)).toBe(true);
        expect(room.subarray(64 + bytes).every((byte) => byte === 0xa5)).toBe(true);
      }
    }
  });
});
