import { checkObject, checkTensor } from '../../arguments.js';
import {
  type AsyncOptions,
  type Call,
  optionalTensorValues,
  type RunOptions,
  run,
  runAsync,
  runValue,
  tensorValues,
} from '../../run.js';
import { type FloatDType, outputTensor, type Tensor } from '../../tensor.js';
import { type RopeTurns, ropeNumbers } from './values.js';

export interface RopeOptions<D extends FloatDType = 'f32'> extends RunOptions, RopeTurns {
  /** Where to write, of x's shape; may be x itself. Default: a new f32 tensor. */
  out?: Tensor<D>;
}

/**
 * Rotary position embedding (Su et al. 2021): turns pair i of each head by the angle
 * `positions[token] * theta^(-2i / rotaryDim)`:
 * `a' = a cos - b sin`, `b' = a sin + b cos`.
 *
 * @param x [..., tokens, heads, headDim], f32, f16 or bf16
 * @param positions [tokens], not negative; the same for all leading axes
 * @returns as x: `options.out`, or a new f32 tensor
 * @throws `BL_INVALID_SHAPE`, `BL_INVALID_DTYPE`, `BL_OUT_OF_RANGE` (a position, factor or dimension),
 *   `BL_INVALID_ARGUMENT` (unknown mode or scaling; out overlaps x in part), before anything is written
 *
 * @example
 * ```ts
 * const q = new Tensor('f32', [1, 0, 0, 1], [1, 1, 4]);
 * rope(q, new Tensor('i32', [3], [1]), { out: q }); // in place
 * ```
 */
export function rope<D extends FloatDType = 'f32'>(
  x: Tensor<FloatDType>,
  positions: Tensor<'i32'>,
  options: RopeOptions<D> = {},
): Tensor<D> {
  return run(prepare(x, positions, options));
}

/** {@link rope} on a worker thread. */
export function ropeAsync<D extends FloatDType = 'f32'>(
  x: Tensor<FloatDType>,
  positions: Tensor<'i32'>,
  options: RopeOptions<D> & AsyncOptions = {},
): Promise<Tensor<D>> {
  return runAsync(() => prepare(x, positions, options), options);
}

function prepare<D extends FloatDType>(
  x: Tensor<FloatDType>,
  positions: Tensor<'i32'>,
  options: RopeOptions<D>,
): Call<Tensor<D>> {
  checkTensor('rope', 'x', x);
  checkTensor('rope', 'positions', positions);
  checkObject('rope', 'options', options);
  const numbers = ropeNumbers('rope', '', options);
  const output = outputTensor('rope', options.out, x.shape, x);
  return {
    op: 'rope',
    values: [
      ...tensorValues(x),
      ...tensorValues(positions),
      ...optionalTensorValues('rope', 'freqFactors', options.freqFactors),
      ...tensorValues(output),
      ...numbers,
      runValue(options),
    ],
    result: output,
  };
}
