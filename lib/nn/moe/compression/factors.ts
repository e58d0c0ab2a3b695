// Experts in factors, and what they stand for.
import { matmul } from '../../../ops/matmul/matmul.js';
import type { MoEExpert } from '../../../ops/moe/experts.js';
import { dequantize } from '../../../ops/quantize/dequantize.js';
import { QuantizedTensor } from '../../../quantized_tensor.js';
import { Tensor } from '../../../tensor.js';
import { transposed } from '../../low_rank/truncated_svd.js';
import { type DenseExpert, type ExpertMatrices, takeRows } from './layer.js';

/** The same function without factors: `gate reduce`, `up reduce`, `expand down`, then the neurons that were kept. */
export function expandedExpert({
  gate,
  up,
  down,
  reduce,
  expand,
  kept,
}: DenseExpert): ExpertMatrices {
  const inner = (matrix: Tensor<'f32'>) =>
    reduce === undefined ? matrix : product(matrix, reduce);
  const outer = expand === undefined ? down : product(expand, down);
  const own: ExpertMatrices = {
    ...(gate === undefined ? {} : { gate: inner(gate) }),
    up: inner(up),
    down: outer,
  };
  if (kept === undefined) return own;
  return {
    ...(own.gate === undefined ? {} : { gate: above(own.gate, kept.gate as Tensor<'f32'>) }),
    up: above(own.up, kept.up),
    down: beside(own.down, kept.down),
  };
}

function product(a: Tensor<'f32'>, b: Tensor<'f32'>): Tensor<'f32'> {
  const across = transposed(b);
  const w = new QuantizedTensor('f32', across.bytes, across.shape as [number, number]);
  return matmul(a, w, { compute: 'f32' });
}

function beside(first: Tensor<'f32'>, second: Tensor<'f32'>): Tensor<'f32'> {
  return transposed(above(transposed(first), transposed(second)));
}

/** An expert of a model, and the neurons that it has besides, as whole matrices in f32. */
export function decodedExpert(expert: MoEExpert, kept?: MoEExpert): ExpertMatrices {
  const own = decodedParts(expert);
  return expandedExpert(kept === undefined ? own : { ...own, kept: decodedParts(kept) });
}

function decodedParts({ gate, up, down, reduce, expand }: MoEExpert): DenseExpert {
  return {
    ...(gate === undefined ? {} : { gate: dequantize(gate) }),
    up: dequantize(up),
    down: dequantize(down),
    ...(reduce === undefined ? {} : { reduce: dequantize(reduce) }),
    ...(expand === undefined ? {} : { expand: dequantize(expand) }),
  };
}

/** Rows of both, one matrix. */
export function above(first: Tensor<'f32'>, second: Tensor<'f32'>): Tensor<'f32'> {
  const values = new Float32Array(first.size + second.size);
  values.set(first.data);
  values.set(second.data, first.size);
  return new Tensor('f32', values, [
    (first.shape[0] as number) + (second.shape[0] as number),
    first.shape[1] as number,
  ]);
}

/** Rows [begin, end). */
export const rowsBetween = (matrix: Tensor<'f32'>, begin: number, end: number): Tensor<'f32'> =>
  takeRows(
    matrix,
    Array.from({ length: end - begin }, (_, i) => begin + i),
  );
