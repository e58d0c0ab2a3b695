import { argumentError } from '../../../errors.js';
import type { MoEExpert } from '../../../ops/moe/experts.js';
import { dequantize } from '../../../ops/quantize/dequantize.js';
import { Tensor } from '../../../tensor.js';

/** Matrices of one expert, f32 and contiguous. */
export interface DenseExpert {
  /** Shape `[ffn, hidden]`; without it the expert is `down f(up x)`. */
  gate?: Tensor<'f32'> | undefined;
  /** Shape `[ffn, hidden]` */
  up: Tensor<'f32'>;
  /** Shape `[hidden, ffn]` */
  down: Tensor<'f32'>;
}

/** The experts of a layer and their router, as compression reads and gives them. */
export interface ExpertLayer {
  /** Shape `[experts, hidden]` */
  router: Tensor<'f32'>;
  experts: readonly DenseExpert[];
}

/** @throws `BL_INVALID_SHAPE` unless the router has a row for each expert and their shapes fit. Returns hidden. */
export function checkLayer(op: string, { router, experts }: ExpertLayer): number {
  const [rows, hidden = 0] = router.shape;
  if (router.shape.length !== 2 || rows !== experts.length || rows === 0) {
    throw argumentError(
      'BL_INVALID_SHAPE',
      `${op}: router.shape is [${router.shape}], expected a row for each of ${experts.length} experts`,
    );
  }
  experts.forEach(({ gate, up, down }, e) => {
    const [ffn] = up.shape;
    for (const [name, part, shape] of [
      ['up', up, [ffn, hidden]],
      ['gate', gate, [ffn, hidden]],
      ['down', down, [hidden, ffn]],
    ] as const) {
      if (part === undefined || `${part.shape}` === `${shape}`) continue;
      throw argumentError(
        'BL_INVALID_SHAPE',
        `${op}: experts[${e}].${name}.shape is [${part.shape}], expected [${shape}]`,
      );
    }
  });
  return hidden;
}

/** Rows of a matrix in this order. */
export function takeRows(matrix: Tensor<'f32'>, order: readonly number[]): Tensor<'f32'> {
  const cols = matrix.shape[1] as number;
  const values = new Float32Array(order.length * cols);
  order.forEach((row, i) => {
    values.set(matrix.data.subarray(row * cols, (row + 1) * cols), i * cols);
  });
  return new Tensor('f32', values, [order.length, cols]);
}

/** Columns of a matrix in this order. */
export function takeColumns(matrix: Tensor<'f32'>, order: readonly number[]): Tensor<'f32'> {
  const [rows = 0, cols = 0] = matrix.shape;
  const values = new Float32Array(rows * order.length);
  const { data } = matrix;
  for (let r = 0; r < rows; r++) {
    order.forEach((c, i) => {
      values[r * order.length + i] = data[r * cols + c] as number;
    });
  }
  return new Tensor('f32', values, [rows, order.length]);
}

/** `sum of weights[i] * matrices[i]`, in float64, rounded once. */
export function combine(
  matrices: readonly Tensor<'f32'>[],
  weights: readonly number[],
): Tensor<'f32'> {
  const [first] = matrices as [Tensor<'f32'>];
  const sums = new Float64Array(first.data.length);
  matrices.forEach(({ data }, m) => {
    const weight = weights[m] as number;
    if (weight === 0) return;
    for (let i = 0; i < sums.length; i++) {
      sums[i] = (sums[i] as number) + weight * (data[i] as number);
    }
  });
  return new Tensor('f32', Float32Array.from(sums), first.shape);
}

/** The expert with its inner neurons in another order: the same function. */
export function permuteNeurons(expert: DenseExpert, order: readonly number[]): DenseExpert {
  return {
    ...(expert.gate === undefined ? {} : { gate: takeRows(expert.gate, order) }),
    up: takeRows(expert.up, order),
    down: takeColumns(expert.down, order),
  };
}

/** An expert of a model in f32. */
export function decodedExpert({ gate, up, down }: MoEExpert): DenseExpert {
  return {
    ...(gate === undefined ? {} : { gate: dequantize(gate) }),
    up: dequantize(up),
    down: dequantize(down),
  };
}
