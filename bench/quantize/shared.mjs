// What the cases of quantize, dequantize and pack share: 256 rows of a 4096-wide matrix.
import { bitloom } from '../native.mjs';

export const formats = [
  'q4_0',
  'q8_0',
  'q4_k',
  'u4_g128',
  't2_g256',
  'nf4_g64',
  'cbs4_g128',
  'lut4_row',
];
export const shape = ({ tiny }) => (tiny ? [16, 256] : [256, 4096]);
export const bytesOf = (format, [rows, cols]) =>
  bitloom.QuantizedTensor.empty(format, [1, cols]).bytes.length * rows;
