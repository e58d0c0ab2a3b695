import { checkOptions } from '../../arguments.js';
import {
  type AsyncOptions,
  type Call,
  checkedTensorValues,
  type RunOptions,
  run,
  runAsync,
  runValue,
  tensorValues,
} from '../../run.js';
import { type FloatDType, outputTensor, Tensor } from '../../tensor.js';

export interface MergeStatesOptions<D extends FloatDType = 'f32'> extends RunOptions {
  /** [rows, heads, dim]; must not overlap what is read. Default: a new f32 tensor. */
  out?: Tensor<D>;
  /** [rows, heads]. Default: a new tensor. */
  lse?: Tensor<'f32'>;
}

const known: ReadonlySet<string> = new Set<keyof (MergeStatesOptions & AsyncOptions)>([
  'isa',
  'threads',
  'stream',
  'signal',
  'out',
  'lse',
]);

/** Attention over some keys: what it gives, and the weight of those keys. */
export interface AttentionState<D extends FloatDType = 'f32'> {
  /** [rows, heads, dim] */
  output: Tensor<D>;
  /** [rows, heads]: ln(sum of exp(score)) */
  lse: Tensor<'f32'>;
}

/**
 * Joins attention over parts of the keys (of other threads, devices or machines) into attention over all:
 * `output = sum_i exp(lse_i - lse) * output_i`, `lse = ln(sum_i exp(lse_i))`. A part with lse -infinity counts for
 * nothing; where all have it, output is 0. The way of FlashDecoding (Dao et al. 2023) and TokenRing (Wang et al. 2024).
 *
 * @param outputs [parts, rows, heads, dim], f32, f16 or bf16
 * @param lses [parts, rows, heads]
 * @returns output [rows, heads, dim] and lse [rows, heads]: those of the options, or new f32 tensors
 * @throws `BL_INVALID_SHAPE`, `BL_INVALID_DTYPE`, `BL_INVALID_ARGUMENT` (overlapping memory, an option that is
 *   not known), before anything is written
 *
 * @example
 * ```ts
 * const outputs = new Tensor('f32', [1, 3], [2, 1, 1, 1]);
 * const lses = new Tensor('f32', [0, 0], [2, 1, 1]);
 * mergeStates(outputs, lses).output.toArray(); // [2]
 * ```
 */
export function mergeStates<D extends FloatDType = 'f32'>(
  outputs: Tensor<FloatDType>,
  lses: Tensor<'f32'>,
  options: MergeStatesOptions<D> = {},
): AttentionState<D> {
  return run(prepare(outputs, lses, options));
}

/** {@link mergeStates} on a worker thread. */
export function mergeStatesAsync<D extends FloatDType = 'f32'>(
  outputs: Tensor<FloatDType>,
  lses: Tensor<'f32'>,
  options: MergeStatesOptions<D> & AsyncOptions = {},
): Promise<AttentionState<D>> {
  return runAsync(() => prepare(outputs, lses, options), options);
}

function prepare<D extends FloatDType>(
  outputs: Tensor<FloatDType>,
  lses: Tensor<'f32'>,
  options: MergeStatesOptions<D>,
): Call<AttentionState<D>> {
  const op = 'mergeStates';
  checkOptions(op, options, known);
  const values = [
    ...checkedTensorValues(op, 'outputs', outputs),
    ...checkedTensorValues(op, 'lses', lses),
  ];
  const shape = outputs.shape.slice(1);
  const output = outputTensor(op, options.out, shape, outputs);
  const lse = options.lse ?? Tensor.empty('f32', shape.slice(0, 2), outputs.device);
  return {
    op,
    values: [
      ...values,
      ...tensorValues(output),
      ...checkedTensorValues(op, 'lse', lse),
      runValue(options),
    ],
    result: { output, lse },
  };
}
