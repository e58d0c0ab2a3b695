// Bytes and values of ggml's own encoders and decoders (shared/golden/ggml_quantize.json: an unmodified
// library, inputs 0.1 + 2 cos(i)). Skipped where the file is not there.
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import {
  dequantize,
  type Format,
  formats,
  QuantizedTensor,
  quantize,
  Tensor,
} from '../../lib/index.js';
import { squaredError } from '../reference/random.js';

interface GoldenCase {
  type: string;
  quantized_hex: string;
  dequantized: number[];
}

const shared = process.env.BITLOOM_SHARED ?? join(import.meta.dirname, '../../../shared');
const file = join(shared, 'golden/ggml_quantize.json');
const present = existsSync(file);
const cases: GoldenCase[] = present
  ? (JSON.parse(readFileSync(file, 'utf8')).cases as GoldenCase[]).filter((golden) =>
      Object.hasOwn(formats, golden.type.toLowerCase()),
    )
  : [];

const input = Float32Array.from(
  { length: 512 },
  (_, i) => Math.fround(0.1) + Math.fround(2 * Math.fround(Math.cos(i))),
);
/** Formats whose minmax encoder is ggml's reference, byte for byte (mxfp4, nvfp4: on this input). */
const sameBytes = new Set([
  'q4_0',
  'q4_1',
  'q5_0',
  'q5_1',
  'q8_0',
  'tq1_0',
  'tq2_0',
  'mxfp4',
  'nvfp4',
]);

describe.skipIf(!present)('golden vectors of ggml (skipped without ../shared)', () => {
  it('covers the block formats that search or round', () => {
    expect(cases.map((golden) => golden.type.toLowerCase()).sort()).toEqual(
      [...sameBytes, 'iq4_nl', 'q2_k', 'q3_k', 'q4_k', 'q5_k', 'q6_k'].sort(),
    );
  });

  it.each(cases)('$type', ({ type, quantized_hex, dequantized }) => {
    const format = type.toLowerCase() as Format;
    const bytes = new Uint8Array(Buffer.from(quantized_hex, 'hex'));
    const golden = dequantize(new QuantizedTensor(format, bytes, [1, 512])).data;
    // The file does not tell -0 from 0: add 0 to make both 0.
    expect(golden.map((value) => value + 0)).toEqual(Float32Array.from(dequantized));

    const goldenError = squaredError(golden, input);
    const tensor = new Tensor('f32', input, [1, 512]);
    const minmax = quantize(tensor, format);
    if (sameBytes.has(format)) {
      expect(Buffer.from(minmax.bytes).toString('hex')).toBe(quantized_hex);
    } else {
      // Searched scales: as good as ggml's, whose search weighs large weights more.
      expect(squaredError(dequantize(minmax).data, input)).toBeLessThanOrEqual(1.05 * goldenError);
    }
    const mse = quantize(tensor, format, { method: 'mse' });
    expect(squaredError(dequantize(mse).data, input)).toBeLessThanOrEqual(goldenError);
  });
});
