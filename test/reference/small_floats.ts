/** Floats of 16 bits and less, from their definitions (IEEE 754, OCP Microscaling v1.0). */

export function halfToNumber(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const mantissa = bits & 1023;
  if (exponent === 31) return mantissa === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  if (exponent === 0) return sign * mantissa * 2 ** -24;
  return sign * (1 + mantissa / 1024) * 2 ** (exponent - 15);
}

export function bfloatToNumber(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 7) & 255;
  const mantissa = bits & 127;
  if (exponent === 255) return mantissa === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  if (exponent === 0) return sign * mantissa * 2 ** -133;
  return sign * (1 + mantissa / 128) * 2 ** (exponent - 127);
}

/**
 * A small float without special values: sign, exponent bits with a bias of half their range, `mantissaBits`
 * mantissa bits.
 */
function smallFloat(code: number, bits: number, mantissaBits: number): number {
  const sign = code >= 2 ** (bits - 1) ? -1 : 1;
  const exponentBits = bits - 1 - mantissaBits;
  const bias = 2 ** (exponentBits - 1) - 1;
  const exponent = Math.floor(code / 2 ** mantissaBits) % 2 ** exponentBits;
  const fraction = (code % 2 ** mantissaBits) / 2 ** mantissaBits;
  if (exponent === 0) return sign * fraction * 2 ** (1 - bias);
  return sign * (1 + fraction) * 2 ** (exponent - bias);
}

export const e2m1 = (code: number): number => smallFloat(code, 4, 1);

/** An element of OCP Microscaling: E4M3 has NaN at the top, E5M2 is as IEEE 754. */
export function element(code: number, bits: number, mantissaBits: number): number {
  const magnitude = code % 2 ** (bits - 1);
  if (bits === 8 && mantissaBits === 3 && magnitude === 0x7f) return Number.NaN;
  if (bits === 8 && mantissaBits === 2 && magnitude >= 0x7c) {
    if (magnitude > 0x7c) return Number.NaN;
    return code === magnitude ? Number.POSITIVE_INFINITY : Number.NEGATIVE_INFINITY;
  }
  return smallFloat(code, bits, mantissaBits);
}

export const e8m0 = (byte: number): number => (byte === 255 ? Number.NaN : 2 ** (byte - 127));
export const ue4m3 = (byte: number): number => element(byte % 128, 8, 3);
