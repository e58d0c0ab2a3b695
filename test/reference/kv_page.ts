/** Pages of a paged cache in float64, from the picture at the head of native/formats/kv_page.h. */
import type { KVFormat } from '../../lib/index.js';
import { bfloatToNumber, e8m0, element, halfToNumber } from './small_floats.js';

export interface PageShape {
  format: KVFormat;
  of: 'keys' | 'values';
  pageSize: number;
  dim: number;
}

const bitsOf: Record<KVFormat, number> = {
  f32: 32,
  f16: 16,
  bf16: 16,
  f8e4m3: 8,
  i8: 8,
  i4: 4,
  i2: 2,
  bfp8: 8,
  bfp4: 4,
};

export const isAffine = (format: KVFormat): boolean => format === 'i4' || format === 'i2';
export const isBlock = (format: KVFormat): boolean => format === 'bfp8' || format === 'bfp4';

const up = (value: number, multiple: number): number => Math.ceil(value / multiple) * multiple;

/** Where things stand in a page, in bytes. */
export function pageLayout({ format, of, pageSize, dim }: PageShape) {
  const bits = bitsOf[format];
  const n = 32 / bits;
  const units = Math.ceil(pageSize / 16);
  let header = 0;
  if (format === 'i8') header = units * 16 * 4;
  if (isAffine(format)) header = of === 'keys' ? dim * 4 : units * 16 * Math.ceil(dim / 32) * 4;
  if (isBlock(format)) header = units * 16 * Math.ceil(dim / 16);
  header = up(header, 64);
  const unit = 4 * (of === 'keys' ? Math.ceil(dim / n) * 16 : (16 / n) * up(dim, 16));
  return { bits, n, header, unit, bytes: header + units * unit };
}

/** The code of an element, without sign extension; channels to the end of the dword or of the lanes exist. */
export function pageCode(page: Uint8Array, shape: PageShape, token: number, c: number): number {
  const { bits, n, header, unit } = pageLayout(shape);
  const t = token % 16;
  const start = header + Math.floor(token / 16) * unit;
  const keys = shape.of === 'keys';
  const dword = keys ? Math.floor(c / n) * 16 + t : Math.floor(t / n) * up(shape.dim, 16) + c;
  const j = (keys ? c : t) % n;
  const value = new DataView(page.buffer, page.byteOffset).getUint32(start + 4 * dword, true);
  if (bits === 32) return value;
  if (bits >= 8) return Math.floor(value / 2 ** (bits * j)) % 2 ** bits;
  const byte = Math.floor(value / 2 ** (8 * (j % 4))) % 256;
  return Math.floor(byte / 2 ** (bits * Math.floor(j / 4))) % 2 ** bits;
}

/** The shared scale and offset of an element; 1 and 0 where there is none. */
export function pageScale(
  page: Uint8Array,
  shape: PageShape,
  token: number,
  c: number,
): { scale: number; offset: number } {
  const view = new DataView(page.buffer, page.byteOffset);
  const half = (at: number): number => halfToNumber(view.getUint16(at, true));
  const { format, dim } = shape;
  if (format === 'i8') return { scale: view.getFloat32(4 * token, true), offset: 0 };
  if (isBlock(format)) {
    return {
      scale: e8m0(view.getUint8(token * Math.ceil(dim / 16) + Math.floor(c / 16))),
      offset: 0,
    };
  }
  if (!isAffine(format)) return { scale: 1, offset: 0 };
  if (shape.of === 'keys') return { scale: half(2 * c), offset: half(2 * (dim + c)) };
  const at = 4 * (token * Math.ceil(dim / 32) + Math.floor(c / 32));
  return { scale: half(at), offset: half(at + 2) };
}

const float = new DataView(new ArrayBuffer(4));

/** The number that an element stands for. */
export function pageValue(page: Uint8Array, shape: PageShape, token: number, c: number): number {
  const code = pageCode(page, shape, token, c);
  const { scale, offset } = pageScale(page, shape, token, c);
  switch (shape.format) {
    case 'f32':
      float.setUint32(0, code);
      return float.getFloat32(0);
    case 'f16':
      return halfToNumber(code);
    case 'bf16':
      return bfloatToNumber(code);
    case 'f8e4m3':
      return element(code, 8, 3);
    case 'i4':
    case 'i2':
      return code * scale + offset;
    default: {
      const range = 2 ** bitsOf[shape.format];
      return (code >= range / 2 ? code - range : code) * scale;
    }
  }
}

/** Half a step around x where values in [low, high] share the scale, and what the scale's own rounding adds. */
export function roundTripBound(format: KVFormat, x: number, low: number, high: number): number {
  const largest = Math.max(Math.abs(low), Math.abs(high));
  switch (format) {
    case 'f32':
      return 0;
    case 'f16':
      return Math.abs(x) * 2 ** -11 + 2 ** -25;
    case 'bf16':
      return Math.abs(x) * 2 ** -8 + 2 ** -134;
    case 'f8e4m3':
      // Saturates.
      return Math.max(Math.abs(x) * 2 ** -4 + 2 ** -10, Math.abs(x) - 448);
    case 'i8':
      // A code is the product of two rounded f32: off by 127 * 3 * 2^-24 steps at most.
      return (largest / 127) * (0.5 + 2 ** -14);
    case 'i4':
    case 'i2': {
      // The offset and the scale are f16: rounded by 2^-11, or by 2^-25 where they are subnormal.
      const levels = format === 'i4' ? 15 : 3;
      const rounding = (Math.abs(low) + (high - low)) * 2 ** -11 + (levels + 1) * 2 ** -25;
      return ((high - low) / levels) * 0.5 * (1 + 2 ** -10) + rounding;
    }
    default:
      return blockStep(format, largest) / 2;
  }
}

/** 2^e, the smallest at which the largest magnitude's code does not exceed 2^(bits - 1) - 1. */
export function blockStep(format: KVFormat, largest: number): number {
  const top = 2 ** (bitsOf[format] - 1);
  let step = 2 ** -127;
  while (largest / step >= top - 0.5) step *= 2;
  return step;
}
