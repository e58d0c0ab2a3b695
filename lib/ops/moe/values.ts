// What routers written in TypeScript share: values of tensors as numbers, checks, new routes.
import { checkTensor, described } from '../../arguments.js';
import { argumentError } from '../../errors.js';
import { checkNotRecording } from '../../run.js';
import { type FloatDType, Tensor } from '../../tensor.js';
import { type MoERoutes, moeRoute } from './moe_route.js';

/** A matrix of numbers in rows, one after the other. */
export interface Matrix {
  values: ArrayLike<number>;
  rows: number;
  cols: number;
}

/** @throws `BL_INVALID_SHAPE` */
export function checkRank(op: string, name: string, tensor: Tensor, rank: number): void {
  if (tensor.shape.length === rank) return;
  throw argumentError(
    'BL_INVALID_SHAPE',
    `${op}: ${name}.rank is ${tensor.shape.length}, expected ${rank}`,
  );
}

/** @throws `BL_INVALID_SHAPE` unless axis `axis` is `expected`, which is `what` */
export function checkAxis(
  op: string,
  name: string,
  tensor: Tensor,
  axis: number,
  expected: number,
  what: string,
): void {
  if (tensor.shape[axis] === expected) return;
  throw argumentError(
    'BL_INVALID_SHAPE',
    `${op}: ${name}.shape[${axis}] is ${tensor.shape[axis]}, expected ${expected} (= ${what})`,
  );
}

/** @throws `BL_OUT_OF_RANGE` unless `value` is a whole number from `least` to `most` */
export function checkInteger(
  op: string,
  name: string,
  value: unknown,
  least: number,
  most: number,
): asserts value is number {
  if (Number.isInteger(value) && (value as number) >= least && (value as number) <= most) return;
  throw argumentError(
    'BL_OUT_OF_RANGE',
    `${op}: ${name} is ${described(value)}, expected a whole number from ${least} to ${most}`,
  );
}

/** @throws `BL_INVALID_ARGUMENT` unless `value` is one of `choices` */
export function checkChoice(
  op: string,
  name: string,
  value: unknown,
  choices: readonly string[],
): void {
  if (choices.includes(value as string)) return;
  throw argumentError(
    'BL_INVALID_ARGUMENT',
    `${op}: ${name} is ${described(value)}, expected ${choices.join(', ')}`,
  );
}

/** @throws `BL_INVALID_ARGUMENT` unless `value` is an array */
export function checkArray(op: string, name: string, value: unknown): void {
  if (Array.isArray(value)) return;
  throw argumentError(
    'BL_INVALID_ARGUMENT',
    `${op}: ${name} is ${described(value)}, expected an array`,
  );
}

/** @throws `BL_NON_FINITE` for a value of a matrix of `cols` columns that is not as `expected` */
function refuseValue(
  op: string,
  name: string,
  i: number,
  { values, cols }: Matrix,
  expected: string,
): never {
  const at = `${Math.floor(i / cols)}, ${i % cols}`;
  throw argumentError(
    'BL_NON_FINITE',
    `${op}: ${name}[${at}] is ${values[i]}, expected ${expected}`,
  );
}

/**
 * Values of a matrix of any float type and any strides.
 *
 * @throws `BL_INVALID_SHAPE`, `BL_INVALID_DTYPE`; `BL_INVALID_ARGUMENT` within a sequence
 */
export function matrixOf(op: string, name: string, tensor: Tensor): Matrix {
  checkNotRecording(op);
  checkTensor(op, name, tensor);
  checkRank(op, name, tensor, 2);
  if (!['f32', 'f16', 'bf16'].includes(tensor.dtype)) {
    throw argumentError(
      'BL_INVALID_DTYPE',
      `${op}: ${name}.dtype is ${tensor.dtype}, expected f32 or f16 or bf16`,
    );
  }
  const [rows = 0, cols = 0] = tensor.shape;
  const direct =
    tensor.dtype === 'f32' &&
    tensor.device === 'cpu' &&
    tensor.strides[1] === 1 &&
    tensor.strides[0] === cols;
  const values = direct
    ? (tensor.data as Float32Array).subarray(0, rows * cols)
    : Float64Array.from(tensor.toArray() as number[]);
  return { values, rows, cols };
}

/** {@link matrixOf}, of numbers. @throws `BL_NON_FINITE` */
export function finiteMatrixOf(op: string, name: string, tensor: Tensor): Matrix {
  const matrix = matrixOf(op, name, tensor);
  for (let i = 0; i < matrix.rows * matrix.cols; i++) {
    if (!Number.isFinite(matrix.values[i])) refuseValue(op, name, i, matrix, 'a finite number');
  }
  return matrix;
}

/** {@link matrixOf}, of what `moeRoute` takes as logits. @throws `BL_NON_FINITE` */
export function logitsOf(op: string, name: string, tensor: Tensor): Matrix {
  const matrix = matrixOf(op, name, tensor);
  const { values, rows, cols } = matrix;
  if (cols === 0) {
    throw argumentError(
      'BL_INVALID_SHAPE',
      `${op}: ${name}.shape[1] is 0, expected at least 1 expert`,
    );
  }
  for (let t = 0; t < rows; t++) {
    let largest = Number.NEGATIVE_INFINITY;
    for (let i = t * cols; i < (t + 1) * cols; i++) {
      const value = values[i] as number;
      if (!(value < Number.POSITIVE_INFINITY)) refuseValue(op, name, i, matrix, 'a number');
      largest = Math.max(largest, value);
    }
    if (largest === Number.NEGATIVE_INFINITY) {
      throw argumentError(
        'BL_NON_FINITE',
        `${op}: ${name}[${t}] are all -infinity, expected a number among them`,
      );
    }
  }
  return matrix;
}

/** Softmax or sigmoid of all experts, as {@link moeRoute} computes it. @throws as that */
export function scoresOf(
  op: string,
  logits: Tensor<FloatDType>,
  scoring: 'softmax' | 'sigmoid',
): Tensor<'f32'> {
  logitsOf(op, 'logits', logits);
  const scores = Tensor.zeros('f32', logits.shape);
  moeRoute(logits, { topK: 1, scoring, scores });
  return scores;
}

/** Indices and weights of routes as numbers. */
export interface RouteValues {
  indices: Int32Array;
  weights: Float32Array;
  tokens: number;
  topK: number;
}

function checkRouteTensor(op: string, name: string, tensor: Tensor, dtype: string): void {
  checkTensor(op, name, tensor);
  checkRank(op, name, tensor, 2);
  if (tensor.dtype === dtype) return;
  throw argumentError(
    'BL_INVALID_DTYPE',
    `${op}: ${name}.dtype is ${tensor.dtype}, expected ${dtype}`,
  );
}

/**
 * Experts of routes, [tokens, topK].
 *
 * @throws `BL_INVALID_SHAPE`, `BL_INVALID_DTYPE`, `BL_OUT_OF_RANGE` (an index that is no expert's and not -1);
 *   `BL_INVALID_ARGUMENT` within a sequence
 */
export function indicesOf(
  op: string,
  name: string,
  tensor: Tensor<'i32'>,
  numExperts: number,
): Int32Array {
  checkNotRecording(op);
  checkRouteTensor(op, name, tensor, 'i32');
  const topK = tensor.shape[1] as number;
  const indices = Int32Array.from(tensor.toArray());
  const odd = indices.findIndex((e) => e < -1 || e >= numExperts);
  if (odd >= 0) {
    throw argumentError(
      'BL_OUT_OF_RANGE',
      `${op}: ${name}[${Math.floor(odd / topK)}, ${odd % topK}] is ${indices[odd]}, expected -1 to ${numExperts - 1}`,
    );
  }
  return indices;
}

/** @throws as {@link indicesOf} */
export function routeValues(op: string, routes: MoERoutes, numExperts: number): RouteValues {
  if (typeof routes !== 'object' || routes === null) {
    throw argumentError(
      'BL_INVALID_ARGUMENT',
      `${op}: routes is ${described(routes)}, expected an object`,
    );
  }
  const indices = indicesOf(op, 'routes.indices', routes.indices, numExperts);
  const [tokens = 0, topK = 0] = routes.indices.shape;
  checkRouteTensor(op, 'routes.weights', routes.weights, 'f32');
  checkAxis(op, 'routes.weights', routes.weights, 0, tokens, 'indices.shape[0]');
  checkAxis(op, 'routes.weights', routes.weights, 1, topK, 'indices.shape[1]');
  const weights = Float32Array.from(routes.weights.toArray() as number[]);
  return { indices, weights, tokens, topK };
}

/** Routes of these values. */
export function makeRoutes({ indices, weights, tokens, topK }: RouteValues): MoERoutes {
  return {
    indices: new Tensor('i32', indices, [tokens, topK]),
    weights: new Tensor('f32', weights, [tokens, topK]),
  };
}

/** Routes to nowhere, to be filled. */
export function emptyRoutes(tokens: number, topK: number): RouteValues {
  const count = tokens * topK;
  return {
    indices: new Int32Array(count).fill(-1),
    weights: new Float32Array(count),
    tokens,
    topK,
  };
}

/** Places of `values` by falling value, of equals the lower place first. */
export function orderOf(values: ArrayLike<number>): number[] {
  return Array.from(values, (_, i) => i).sort(
    (a, b) => (values[b] as number) - (values[a] as number) || a - b,
  );
}
