// What grouped and block-sparse products share.
import { described } from '../../arguments.js';
import { argumentError } from '../../errors.js';
import type { RunOptions } from '../../run.js';
import type { FloatDType, Tensor } from '../../tensor.js';

/** In what numbers products are formed: f32, or operands rounded to bf16 and sums in f32. */
export type ProductCompute = 'f32' | 'bf16';

/** Options of all products here. */
export interface ProductOptions<D extends FloatDType = FloatDType> extends RunOptions {
  /** Default: `'bf16'` where both operands are bf16, else `'f32'`. */
  compute?: ProductCompute;
  /** Where the result goes, f32, f16 or bf16. Default: a new f32 tensor. */
  out?: Tensor<D>;
}

/** bl_compute of a call. */
export function computeValue(
  op: string,
  compute: ProductCompute | undefined,
  a: Tensor,
  b: Tensor,
): number {
  const name = compute ?? (a.dtype === 'bf16' && b.dtype === 'bf16' ? 'bf16' : 'f32');
  if (name === 'f32') return 0;
  if (name === 'bf16') return 2;
  throw argumentError(
    'BL_INVALID_ARGUMENT',
    `${op}: compute is ${described(name)}, expected f32, bf16`,
  );
}

/** 0 or 1 of a flag that is false by default. */
export function flagValue(op: string, name: string, value: boolean | undefined): number {
  if (value === undefined || value === false) return 0;
  if (value === true) return 1;
  throw argumentError(
    'BL_INVALID_ARGUMENT',
    `${op}: ${name} is ${described(value)}, expected true or false`,
  );
}
