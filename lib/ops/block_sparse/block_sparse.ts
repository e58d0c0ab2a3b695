import { checkObject, checkOptions, checkTensor } from '../../arguments.js';
import type { NativeValue } from '../../native.js';
import {
  type AsyncOptions,
  type Call,
  checkedTensorValues,
  run,
  runAsync,
  runValue,
  tensorValues,
} from '../../run.js';
import { type FloatDType, Tensor } from '../../tensor.js';
import { computeValue, flagValue, type ProductOptions } from './options.js';
import type { BlockSparseMatrix, Topology } from './topology.js';

/** Options of {@link sdd}, {@link dsd} and {@link dds}. */
export interface BlockSparseOptions<D extends FloatDType = FloatDType> extends ProductOptions<D> {
  /** The first operand is transposed. Default false. */
  transposeA?: boolean;
  /** The second operand is transposed. Default false. */
  transposeB?: boolean;
}

const known = new Set(['transposeA', 'transposeB', 'compute', 'out', 'isa', 'threads', 'stream']);

/**
 * The blocks of a product of dense matrices: `values` of `a * b` where the topology has blocks, the rest is not
 * computed. With the rows of a mixture and the experts' matrices one above the other this is their first layer.
 *
 * Row blocks that meet the same columns, as all those of an expert do, are one product with the kernels of `matmul` for
 * floats. Bits are those of {@link groupedMatmul}.
 *
 * @param a [m, k], with `transposeA` [k, m]; f32, f16 or bf16; m: the topology's rows at least
 * @param b [k, n], with `transposeB` [n, k]; f32, f16 or bf16; n: the topology's columns at least
 * @param options `out`: `[blocks, blockSize, blockSize]`
 * @throws `BL_INVALID_SHAPE`, `BL_OUT_OF_RANGE` (a topology that contradicts itself), `BL_INVALID_DTYPE`,
 *   `BL_INVALID_ARGUMENT`, before anything is written
 *
 * @example
 * ```ts
 * const h = sdd(rows, up, topology(offsets, ffn, 64), { transposeB: true });
 * const y = dsd(h, down); // down [experts * ffn, hidden]
 * ```
 */
export function sdd<D extends FloatDType = 'f32'>(
  a: Tensor<FloatDType>,
  b: Tensor<FloatDType>,
  topology: Topology,
  options: BlockSparseOptions<D> = {},
): BlockSparseMatrix<D> {
  return { topology, values: run(prepareSdd(a, b, topology, options)) };
}

/** {@link sdd} on a worker thread. */
export async function sddAsync<D extends FloatDType = 'f32'>(
  a: Tensor<FloatDType>,
  b: Tensor<FloatDType>,
  topology: Topology,
  options: BlockSparseOptions<D> & AsyncOptions = {},
): Promise<BlockSparseMatrix<D>> {
  const values = await runAsync(() => prepareSdd(a, b, topology, options), options);
  return { topology, values };
}

/**
 * A block-sparse matrix times a dense one: `s * b`, with `transposeA` `s^T * b`.
 *
 * @param s [m, k], with `transposeA` [k, m]
 * @param b [k, n], with `transposeB` [n, k]; f32, f16 or bf16; k: the topology's at least
 * @returns [m, n]; with `out` m may be larger than the topology's: rows behind are zero
 * @throws as {@link sdd}
 *
 * @example
 * ```ts
 * const gradient = dsd(hGradient, rows, { transposeA: true }); // of up [experts * ffn, hidden]
 * ```
 */
export function dsd<D extends FloatDType = 'f32'>(
  s: BlockSparseMatrix,
  b: Tensor<FloatDType>,
  options: BlockSparseOptions<D> = {},
): Tensor<D> {
  return run(prepareDsd(s, b, options));
}

/** {@link dsd} on a worker thread. */
export function dsdAsync<D extends FloatDType = 'f32'>(
  s: BlockSparseMatrix,
  b: Tensor<FloatDType>,
  options: BlockSparseOptions<D> & AsyncOptions = {},
): Promise<Tensor<D>> {
  return runAsync(() => prepareDsd(s, b, options), options);
}

/**
 * A dense matrix times a block-sparse one: `a * s`, with `transposeB` `a * s^T`.
 *
 * @param a [m, k], with `transposeA` [k, m]; f32, f16 or bf16; k: the topology's at least
 * @param s [k, n], with `transposeB` [n, k]
 * @returns [m, n]; with `out` n may be larger than the topology's: columns behind are zero
 * @throws as {@link sdd}
 *
 * @example
 * ```ts
 * const gradient = dds(outGradient, h, { transposeA: true }); // of down^T [hidden, experts * ffn]
 * ```
 */
export function dds<D extends FloatDType = 'f32'>(
  a: Tensor<FloatDType>,
  s: BlockSparseMatrix,
  options: BlockSparseOptions<D> = {},
): Tensor<D> {
  return run(prepareDds(a, s, options));
}

/** {@link dds} on a worker thread. */
export function ddsAsync<D extends FloatDType = 'f32'>(
  a: Tensor<FloatDType>,
  s: BlockSparseMatrix,
  options: BlockSparseOptions<D> & AsyncOptions = {},
): Promise<Tensor<D>> {
  return runAsync(() => prepareDds(a, s, options), options);
}

type Op = 'sdd' | 'dsd' | 'dds';

function topologyValues(op: Op, topology: Topology): NativeValue[] {
  checkObject(op, 'topology', topology);
  const names = [
    'rowStarts',
    'columnStarts',
    'offsets',
    'columnIndices',
    'rowIndices',
    'transposeOffsets',
    'transposeIndices',
  ] as const;
  return names.flatMap((name) => checkedTensorValues(op, `topology.${name}`, topology[name]));
}

function callOf<D extends FloatDType>(
  op: Op,
  [a, b]: [Tensor, Tensor],
  shape: number[],
  topology: Topology,
  options: BlockSparseOptions<D>,
): Call<Tensor<D>> {
  const indices = topologyValues(op, topology);
  const flags = [
    flagValue(op, 'transposeA', options.transposeA),
    flagValue(op, 'transposeB', options.transposeB),
    computeValue(op, options.compute, a, b),
  ];
  const out = options.out ?? (Tensor.empty('f32', shape, a.device) as Tensor as Tensor<D>);
  const values = [...tensorValues(a), ...tensorValues(b), ...checkedTensorValues(op, 'out', out)];
  return { op, values: [...values, ...indices, ...flags, runValue(options)], result: out };
}

function prepareSdd<D extends FloatDType>(
  a: Tensor,
  b: Tensor,
  topology: Topology,
  options: BlockSparseOptions<D>,
): Call<Tensor<D>> {
  checkTensor('sdd', 'a', a);
  checkTensor('sdd', 'b', b);
  checkOptions('sdd', options, known);
  checkObject('sdd', 'topology', topology);
  const { blocks, blockSize } = topology;
  return callOf('sdd', [a, b], [blocks, blockSize, blockSize], topology, options);
}

function prepareDsd<D extends FloatDType>(
  s: BlockSparseMatrix,
  b: Tensor,
  options: BlockSparseOptions<D>,
): Call<Tensor<D>> {
  checkObject('dsd', 's', s);
  checkTensor('dsd', 's.values', s.values);
  checkTensor('dsd', 'b', b);
  checkOptions('dsd', options, known);
  checkObject('dsd', 's.topology', s.topology);
  const m = options.transposeA === true ? s.topology.columns : s.topology.rows;
  const n = b.shape[options.transposeB === true ? 0 : 1] ?? 0;
  return callOf('dsd', [s.values, b], [m, n], s.topology, options);
}

function prepareDds<D extends FloatDType>(
  a: Tensor,
  s: BlockSparseMatrix,
  options: BlockSparseOptions<D>,
): Call<Tensor<D>> {
  checkTensor('dds', 'a', a);
  checkObject('dds', 's', s);
  checkTensor('dds', 's.values', s.values);
  checkOptions('dds', options, known);
  checkObject('dds', 's.topology', s.topology);
  const m = a.shape[options.transposeA === true ? 1 : 0] ?? 0;
  const n = options.transposeB === true ? s.topology.rows : s.topology.columns;
  return callOf('dds', [a, s.values], [m, n], s.topology, options);
}
