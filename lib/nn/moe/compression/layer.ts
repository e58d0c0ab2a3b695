import { checkObject, checkTensor, described } from '../../../arguments.js';
import { argumentError } from '../../../errors.js';
import { Tensor } from '../../../tensor.js';

/** Matrices of one expert, f32 and contiguous. */
export interface ExpertMatrices {
  /** Shape `[ffn, hidden]`; without it the expert is `down f(up x)`. */
  gate?: Tensor<'f32'> | undefined;
  /** Shape `[ffn, hidden]` */
  up: Tensor<'f32'>;
  /** Shape `[hidden, ffn]` */
  down: Tensor<'f32'>;
}

/** One expert, f32 and contiguous; what `lowRankExperts` gives has factors, which others that change experts do not take. */
export interface DenseExpert extends ExpertMatrices {
  /** Shape `[rank, hidden]`: gate and up are `[ffn, rank]` and take `reduce x`. */
  reduce?: Tensor<'f32'> | undefined;
  /** Shape `[hidden, rank]`: down is `[rank, ffn]`, and the expert gives `expand` of it. */
  expand?: Tensor<'f32'> | undefined;
  /** Neurons besides, whole: their `down f(...)` is added. */
  kept?: ExpertMatrices | undefined;
}

/** The experts of a layer and their router, as compression reads and gives them. */
export interface ExpertLayer {
  /** Shape `[experts, hidden]` */
  router: Tensor<'f32'>;
  experts: readonly DenseExpert[];
  /** Shape `[experts]`: added to scores when experts are chosen, as `bias` of `moeRoute`; of routers that have one (DeepSeek-V3). */
  bias?: Tensor<'f32'> | undefined;
  /** Experts of a token. Default: as before, at most as many as there are. */
  topK?: number | undefined;
}

/**
 * @throws `BL_INVALID_SHAPE` unless the router has a row for each expert and their shapes fit, `BL_INVALID_DTYPE`, `BL_OUT_OF_RANGE`
 * @returns hidden
 */
export function checkLayer(op: string, layer: ExpertLayer): number {
  checkObject(op, 'layer', layer);
  const { router, experts, bias, topK } = layer;
  checkTensor(op, 'router', router);
  if (!Array.isArray(experts)) {
    throw argumentError(
      'BL_INVALID_ARGUMENT',
      `${op}: experts is ${described(experts)}, expected an array`,
    );
  }
  const [rows, hidden = 0] = router.shape;
  if (router.shape.length !== 2 || rows !== experts.length || rows === 0) {
    throw argumentError(
      'BL_INVALID_SHAPE',
      `${op}: router.shape is [${router.shape}], expected a row for each of ${experts.length} experts`,
    );
  }
  if (topK !== undefined && !(Number.isInteger(topK) && topK >= 1 && topK <= experts.length)) {
    throw argumentError(
      'BL_OUT_OF_RANGE',
      `${op}: topK is ${topK}, expected 1 to ${experts.length} (experts of the layer)`,
    );
  }
  checkMatrix(op, 'router', router, router.shape);
  if (bias !== undefined) checkMatrix(op, 'bias', bias, [experts.length]);
  experts.forEach((expert: DenseExpert, e) => {
    checkObject(op, `experts[${e}]`, expert);
    checkMatrices(op, `experts[${e}]`, expert, hidden);
    if (expert.kept !== undefined) checkMatrices(op, `experts[${e}].kept`, expert.kept, hidden);
    if (
      (expert.kept === undefined) !== (experts[0]?.kept === undefined) ||
      (expert.kept !== undefined && !expert.kept.gate !== !expert.gate)
    ) {
      throw argumentError(
        'BL_INVALID_SHAPE',
        `${op}: experts[${e}].kept is ${expert.kept === undefined ? 'missing' : 'given'}, expected neurons of all experts or of none, with a gate as the others`,
      );
    }
  });
  return hidden;
}

function checkMatrices(
  op: string,
  name: string,
  { gate, up, down, reduce, expand }: DenseExpert,
  hidden: number,
): void {
  checkTensor(op, `${name}.up`, up);
  checkTensor(op, `${name}.down`, down);
  const [ffn] = up.shape;
  const inner = reduce?.shape[0] ?? hidden;
  const outer = expand?.shape[1] ?? hidden;
  for (const [part, matrix, shape] of [
    ['up', up, [ffn, inner]],
    ['gate', gate, [ffn, inner]],
    ['down', down, [outer, ffn]],
    ['reduce', reduce, [inner, hidden]],
    ['expand', expand, [hidden, outer]],
  ] as const) {
    if (matrix !== undefined) checkMatrix(op, `${name}.${part}`, matrix, shape);
  }
}

function checkMatrix(
  op: string,
  name: string,
  matrix: Tensor<'f32'>,
  shape: readonly (number | undefined)[],
): void {
  if (`${matrix.shape}` !== `${shape}`) {
    throw argumentError(
      'BL_INVALID_SHAPE',
      `${op}: ${name}.shape is [${matrix.shape}], expected [${shape}]`,
    );
  }
  if ((matrix.dtype as string) !== 'f32') {
    throw argumentError(
      'BL_INVALID_DTYPE',
      `${op}: ${name}.dtype is ${matrix.dtype}, expected f32`,
    );
  }
  if (!matrix.contiguous) {
    throw argumentError(
      'BL_INVALID_SHAPE',
      `${op}: ${name}.strides is [${matrix.strides}], expected those of contiguous rows`,
    );
  }
}

/** {@link checkLayer} of experts without factors. */
export function checkDense(op: string, layer: ExpertLayer): number {
  const hidden = checkLayer(op, layer);
  const e = layer.experts.findIndex(({ reduce, expand, kept }) => reduce ?? expand ?? kept);
  if (e < 0) return hidden;
  throw argumentError(
    'BL_INVALID_ARGUMENT',
    `${op}: experts[${e}] has factors, expected whole matrices`,
  );
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

/** Entries of a router's bias in this order, as a layer's property; nothing where there is none. */
export function takeBias(
  bias: Tensor<'f32'> | undefined,
  order: readonly number[],
): { bias?: Tensor<'f32'> } {
  if (bias === undefined) return {};
  const { data } = bias;
  const values = Float32Array.from(order, (e) => data[e] as number);
  return { bias: new Tensor('f32', values, [order.length]) };
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
