// The scale of a whole matrix, for formats whose blocks' scales have a small range.
import type { Format } from '../../generated.js';
import type { FloatDType, Tensor } from '../../tensor.js';

// The largest weight that a block of nvfp4_g16 holds: E2M1's largest element times E4M3's largest scale.
const largestWeight = 6 * 448;

/** Whether `quantize` chooses a tensor scale for a format by itself. */
export function hasTensorScale(format: Format): boolean {
  return format === 'nvfp4_g16';
}

/** The tensor scale for weights of at most `largest`; 1 where that is 0, not finite, or too small to divide. */
export function tensorScaleFor(largest: number): number {
  const scale = Math.fround(largest / largestWeight);
  if (!(scale > 0) || !Number.isFinite(scale)) return 1;
  // Rounded up, the scale of the largest f32 would decode to infinity.
  return Number.isFinite(Math.fround(scale * largestWeight)) ? scale : scale * (1 - 2 ** -23);
}

/** The largest magnitude in a tensor; NaN is passed over. */
export function largestMagnitude(tensor: Tensor<FloatDType>): number {
  const direct = tensor.dtype === 'f32' && tensor.contiguous && tensor.bytes.byteOffset % 4 === 0;
  const values = direct ? (tensor as Tensor<'f32'>).data : tensor.toArray();
  let largest = 0;
  for (let i = 0; i < tensor.size; i++) {
    const magnitude = Math.abs(values[i] as number);
    if (magnitude > largest) largest = magnitude;
  }
  return largest;
}
