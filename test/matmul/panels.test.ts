import { expect, test } from 'vitest';
import { dequantize, type Format, formats, pack, quantize, Tensor } from '../../lib/index.js';
import type { QuantizedTensor } from '../../lib/quantized_tensor.js';

// Every format: canonical to lanes16 and back gives the same bytes, and both decode to the same bits.
const shapes: [number, number][] = [
  [16, 256],
  [35, 512],
];
const rowShapes: [number, number][] = [
  [16, 32],
  [33, 77],
  [17, 1],
];

test.each(Object.keys(formats) as Format[])('%s: lanes16 holds the same weights', (format) => {
  const info = formats[format];
  for (const [rows, cols] of info.kind === 'block' ? shapes : [...shapes, ...rowShapes]) {
    const values = Float32Array.from({ length: rows * cols }, () => 2 * Math.random() - 1);
    const codebook =
      info.kind === 'codebook'
        ? Float32Array.from({ length: 2 ** info.bits }, (_, i) => Math.sin(i) + i / 300)
        : undefined;
    const options = codebook === undefined ? {} : { codebook };
    const canonical = quantize(new Tensor('f32', values, [rows, cols]), format, options as never);
    const lanes = pack(canonical);
    expect(lanes.layout).toBe('lanes16');
    const bits = (w: QuantizedTensor) =>
      new Uint32Array((dequantize(w).data as Float32Array).buffer);
    expect(bits(lanes)).toEqual(bits(canonical));
    const back = pack(lanes, { layout: 'canonical' });
    expect(back.bytes).toEqual(canonical.bytes);
  }
});
