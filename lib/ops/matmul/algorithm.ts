import { argumentError } from '../../errors.js';

/**
 * How `matmul` forms products. `lut`: tables of partial sums of the activations, looked up by the weights' codes.
 * `dequant`: codes unpacked in registers and multiplied. `tile`: weights unpacked once per cache block for many
 * activation rows, on the matrix unit where there is one. `auto` (default): what is fastest for the shape, format
 * and machine.
 */
export type Algorithm = 'auto' | 'lut' | 'dequant' | 'tile';
const ids: Record<Algorithm, number> = { auto: 0, lut: 1, dequant: 2, tile: 3 };

/** Its number in the C ABI; throws `BL_INVALID_ARGUMENT` for an unknown one. */
export function algorithmId(op: string, algorithm: Algorithm = 'auto'): number {
  if (!Object.hasOwn(ids, algorithm)) {
    throw argumentError(
      'BL_INVALID_ARGUMENT',
      `${op}: algorithm is ${JSON.stringify(algorithm)}, expected auto, lut, dequant or tile`,
    );
  }
  return ids[algorithm];
}
