import {
  checkObject,
  checkOptions,
  checkTensor,
  checkWeights,
  described,
} from '../../arguments.js';
import { argumentError } from '../../errors.js';
import { native } from '../../native.js';
import type { QuantizedTensor } from '../../quantized_tensor.js';
import {
  type AsyncOptions,
  type Call,
  optionalTensorValues,
  type RunOptions,
  run,
  runAsync,
  runValue,
  tensorValues,
  weightValues,
} from '../../run.js';
import type { FloatDType, Tensor } from '../../tensor.js';
import type { Algorithm, Tables } from './options.js';
import { PreparedActivations } from './prepared_activations.js';
import { algorithmId, tablesId } from './values.js';

export interface PrepareActivationsOptions extends RunOptions {
  /** The one form there is: int8 with a scale per 32. */
  compute?: 'i8';
  /**
   * The weights that they will be multiplied with: tables are made if `matmul` with one of them would look them up.
   * Default: no tables.
   */
  for?: QuantizedTensor | readonly QuantizedTensor[];
  /** The algorithm that these matmuls will be called with; default `'auto'`. */
  algorithm?: Algorithm;
  /** Which tables these matmuls will be told to look up; default `'lossless'`. */
  tables?: Tables;
  /** As x: `silu(gate) * x` is prepared, with the bits of `swiglu(gate, x)`. */
  gate?: Tensor<FloatDType>;
  /** The RMS norm of x (of `silu(gate) * x`, with a gate) is prepared, with the bits of `rmsNorm`. */
  norm?: { weight?: Tensor<FloatDType> /** Default 1e-5. */; epsilon?: number };
  /** Memory to write to, of x's shape and with the tables that are needed; default: new memory. */
  out?: PreparedActivations;
}

const op = 'prepareActivations';
// Every option, and those of prepareActivationsAsync.
const everyOption: Record<keyof (PrepareActivationsOptions & AsyncOptions), true> = {
  isa: true,
  threads: true,
  stream: true,
  signal: true,
  compute: true,
  for: true,
  algorithm: true,
  tables: true,
  gate: true,
  norm: true,
  out: true,
};
const optionNames: ReadonlySet<string> = new Set(Object.keys(everyOption));

/**
 * Brings activations into the form of `matmul` with `compute: 'i8'` once, for several matmuls that share them: q, k
 * and v; gate and up. The result stands in for `a`: products are the same bits as with `a` itself and `algorithm`
 * `'lut'` or `'dequant'`. It is made for few rows: tiles, which `'auto'` takes for many, round otherwise and need `a`.
 * Norm and gate are computed row by row on the way, so that their results never go through memory.
 *
 * @param x activations [..., M, K] (or [K]), f32, f16 or bf16
 * @throws `BL_INVALID_SHAPE`, `BL_INVALID_DTYPE`, `BL_INVALID_ARGUMENT` (also an option that is not known), before anything is written
 *
 * @example
 * ```ts
 * const shared = prepareActivations(x, { for: [q, k, v], norm: { weight, epsilon: 1e-5 } });
 * const [queries, keys, values] = [q, k, v].map((w) => matmul(shared, w));
 * ```
 */
export function prepareActivations(
  x: Tensor<FloatDType>,
  options: PrepareActivationsOptions = {},
): PreparedActivations {
  return run(prepare(x, options));
}

/** {@link prepareActivations} on a worker thread. */
export function prepareActivationsAsync(
  x: Tensor<FloatDType>,
  options: PrepareActivationsOptions & AsyncOptions = {},
): Promise<PreparedActivations> {
  return runAsync(() => prepare(x, options), options);
}

function prepare(
  x: Tensor<FloatDType>,
  options: PrepareActivationsOptions,
): Call<PreparedActivations> {
  checkTensor(op, 'x', x);
  checkOptions(op, options, optionNames);
  if (options.norm !== undefined) checkObject(op, 'norm', options.norm);
  if (options.compute !== undefined && options.compute !== 'i8') {
    throw argumentError(
      'BL_INVALID_ARGUMENT',
      `prepareActivations: compute is ${described(options.compute)}, expected i8`,
    );
  }
  if (options.out !== undefined && !(options.out instanceof PreparedActivations)) {
    throw argumentError(
      'BL_INVALID_ARGUMENT',
      `prepareActivations: out is ${described(options.out)}, expected PreparedActivations`,
    );
  }
  const tables = neededTables(x, options);
  const output = options.out ?? new PreparedActivations(x.shape, tables);
  if (output.shape.length !== x.shape.length || output.shape.some((n, i) => n !== x.shape[i])) {
    throw argumentError(
      'BL_INVALID_SHAPE',
      `prepareActivations: out.shape is [${output.shape}], expected [${x.shape}] (= x.shape)`,
    );
  }
  if ((tables & ~output.tables) !== 0) {
    throw argumentError(
      'BL_INVALID_ARGUMENT',
      `prepareActivations: out.tables is ${output.tables}, expected ${tables} for these weights`,
    );
  }
  return {
    op: 'prepareActivations',
    values: [
      ...tensorValues(x),
      ...optionalTensorValues(op, 'gate', options.gate),
      ...optionalTensorValues(op, 'norm.weight', options.norm?.weight),
      options.norm === undefined ? 0 : 1,
      options.norm?.epsilon ?? 1e-5,
      output.tables,
      output.bytes,
      runValue(options),
    ],
    result: output,
  };
}

function neededTables(x: Tensor<FloatDType>, options: PrepareActivationsOptions): number {
  const list = options.for === undefined ? [] : [options.for].flat();
  const algorithm = algorithmId(options.algorithm ?? 'auto', 'prepareActivations');
  const kind = tablesId(options.tables ?? 'lossless', 'prepareActivations');
  const rows = x.shape.slice(0, -1).reduce((product, size) => product * size, 1);
  let tables = 0;
  for (const b of list as QuantizedTensor[]) {
    checkWeights(op, 'for', b);
    if (b.cols !== x.shape.at(-1)) {
      throw argumentError(
        'BL_INVALID_SHAPE',
        `prepareActivations: weights have ${b.cols} columns, expected ${x.shape.at(-1)} (= columns of x)`,
      );
    }
    tables |= native.matmulTables(...weightValues(b), rows, algorithm, kind, runValue(options));
  }
  return tables;
}
