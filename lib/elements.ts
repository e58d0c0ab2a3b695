// Numbers of a dtype as bits: reading and writing single elements.
import { argumentError } from './errors.js';
import type { DType } from './generated.js';

/** Reads the element at a byte offset, exactly. */
export const readers: Record<DType, (view: DataView, offset: number) => number> = {
  f32: (view, offset) => view.getFloat32(offset, true),
  f16: (view, offset) => smallFloat(view.getUint16(offset, true), 5, 10, true),
  bf16: (view, offset) => smallFloat(view.getUint16(offset, true), 8, 7, true),
  i8: (view, offset) => view.getInt8(offset),
  u8: (view, offset) => view.getUint8(offset),
  i32: (view, offset) => view.getInt32(offset, true),
  f8e4m3: (view, offset) => smallFloat(view.getUint8(offset), 4, 3, false),
  f8e5m2: (view, offset) => smallFloat(view.getUint8(offset), 5, 2, true),
};

/** Value of a sign-exponent-mantissa code; without infinities only the all-ones code is NaN. */
function smallFloat(
  code: number,
  exponentBits: number,
  mantissaBits: number,
  infinities: boolean,
): number {
  const sign = (code >>> (exponentBits + mantissaBits)) & 1 ? -1 : 1;
  const maxExponent = 2 ** exponentBits - 1;
  const exponent = (code >>> mantissaBits) & maxExponent;
  const mantissa = code & (2 ** mantissaBits - 1);
  const bias = 2 ** (exponentBits - 1) - 1;
  if (exponent === maxExponent && (infinities || mantissa === 2 ** mantissaBits - 1)) {
    return mantissa === 0 && infinities ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  }
  const fraction = mantissa / 2 ** mantissaBits;
  return exponent === 0
    ? sign * fraction * 2 ** (1 - bias)
    : sign * (1 + fraction) * 2 ** (exponent - bias);
}

/** Rounds to nearest even at `mantissaBits`; what does not fit becomes infinity. */
function smallFloatBits(value: number, exponentBits: number, mantissaBits: number): number {
  const bias = 2 ** (exponentBits - 1) - 1;
  const sign = (value < 0 || Object.is(value, -0) ? 1 : 0) << (exponentBits + mantissaBits);
  const infinity = (2 ** exponentBits - 1) << mantissaBits;
  const magnitude = Math.abs(value);
  if (Number.isNaN(value)) return infinity | (1 << (mantissaBits - 1));
  if (magnitude === 0) return sign;
  const exponent = Math.max(Math.min(Math.floor(Math.log2(magnitude)), bias + 1), 1 - bias);
  const step = 2 ** (exponent - mantissaBits);
  const quotient = magnitude / step;
  const floor = Math.floor(quotient);
  const rest = quotient - floor;
  const rounded = rest > 0.5 || (rest === 0.5 && floor % 2 === 1) ? floor + 1 : floor;
  // rounded may carry into the next exponent; adding the integers does just that.
  const code = rounded + (exponent + bias - 1) * 2 ** mantissaBits;
  return sign | Math.min(code, infinity);
}

/** Numbers as a typed array of the dtype, rounded to nearest even; throws for the f8 types. */
export function valuesToBits(dtype: DType, values: number[]): ArrayBufferView {
  switch (dtype) {
    case 'f32':
      return Float32Array.from(values);
    case 'f16':
      return Uint16Array.from(values, (value) => smallFloatBits(value, 5, 10));
    case 'bf16':
      return Uint16Array.from(values, (value) => smallFloatBits(value, 8, 7));
    case 'i8':
      return Int8Array.from(values);
    case 'u8':
      return Uint8Array.from(values);
    case 'i32':
      return Int32Array.from(values);
    default:
      throw argumentError(
        'BL_UNSUPPORTED',
        `Tensor: numbers are not converted to ${dtype}; pass its bytes as a Uint8Array`,
      );
  }
}
