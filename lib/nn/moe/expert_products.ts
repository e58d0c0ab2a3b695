// The products of a mixture's layer and of its gradients, in two forms that agree bit for bit.
import { dsd, sdd } from '../../ops/block_sparse/block_sparse.js';
import { groupedMatmul, groupedOuter } from '../../ops/block_sparse/grouped_matmul.js';
import type { ProductCompute } from '../../ops/block_sparse/options.js';
import { topology } from '../../ops/block_sparse/topology.js';
import type { RunOptions } from '../../run.js';
import { type FloatDType, Tensor } from '../../tensor.js';

/** Options of a product. */
export interface ExpertRun extends Pick<RunOptions, 'isa' | 'threads'> {
  compute?: ProductCompute;
}

/**
 * Rows [rows, hidden], weights `wide` [experts, ffn, hidden] and `narrow` [experts, hidden, ffn]; the hidden layer as
 * the form has it: [rows, ffn], or the values of blocks.
 */
export interface ExpertProducts {
  /** rows * wide^T: the hidden layer. */
  expand(rows: Tensor, wide: Tensor): Tensor<'f32'>;
  /** hidden * narrow^T: rows. */
  contract(hidden: Tensor, narrow: Tensor): Tensor<'f32'>;
  /** hidden * wide: the gradient of expand's rows. */
  expandRows(hidden: Tensor, wide: Tensor): Tensor<'f32'>;
  /** rows * narrow: the gradient of contract's hidden layer. */
  contractHidden(rows: Tensor, narrow: Tensor): Tensor<'f32'>;
  /** Shape `[experts, ffn, hidden]`: the gradient of expand's weights. */
  expandWeights(hidden: Tensor, rows: Tensor): Tensor<'f32'>;
  /** Shape `[experts, hidden, ffn]`: the gradient of contract's weights. */
  contractWeights(rows: Tensor, hidden: Tensor): Tensor<'f32'>;
}

type Floats = Tensor<FloatDType>;

/** A product per expert. */
export function groupedProducts(offsets: Tensor<'i32'>, run: ExpertRun): ExpertProducts {
  const across = { ...run, transposeB: true };
  const times = (a: Tensor, b: Tensor, options: object) =>
    groupedMatmul<'f32'>(a as Floats, b as Floats, offsets, options);
  const outer = (a: Tensor, b: Tensor) =>
    groupedOuter<'f32'>(a as Floats, b as Floats, offsets, run);
  return {
    expand: (rows, wide) => times(rows, wide, run),
    contract: (hidden, narrow) => times(hidden, narrow, run),
    expandRows: (hidden, wide) => times(hidden, wide, across),
    contractHidden: (rows, narrow) => times(rows, narrow, across),
    expandWeights: outer,
    contractWeights: outer,
  };
}

/** Products of block-sparse matrices (MegaBlocks). Narrow weights are copied, transposed. */
export function blockSparseProducts(
  offsets: Tensor<'i32'>,
  ffn: number,
  blockSize: number,
  run: ExpertRun,
): ExpertProducts {
  const t = topology(offsets, ffn, blockSize);
  const flat = (wide: Tensor): Floats => {
    const [experts = 0, width = 0, hidden = 0] = wide.shape;
    return new Tensor<FloatDType>(wide.dtype as 'f32', wide.bytes, [experts * width, hidden]);
  };
  const sparse = (values: Tensor) => ({ topology: t, values: values as Floats });
  const rowsOf = (s: Tensor, b: Floats, rows: number) =>
    // Rows behind the topology's belong to no expert.
    dsd<'f32'>(sparse(s), b, { ...run, out: Tensor.zeros('f32', [rows, b.shape[1] as number]) });
  let rowCount = t.rows;
  const blocks = (rows: Tensor, b: Floats) => {
    rowCount = rows.shape[0] as number;
    return sdd<'f32'>(rows as Floats, b, t, { ...run, transposeB: true }).values;
  };
  const weights = (s: Tensor, rows: Tensor) => {
    const out = dsd<'f32'>(sparse(s), rows as Floats, { ...run, transposeA: true });
    const [all = 0, hidden = 0] = out.shape;
    return new Tensor('f32', out.bytes, [ffn === 0 ? 0 : all / ffn, ffn, hidden]);
  };
  return {
    expand: (rows, wide) => blocks(rows, flat(wide)),
    contract: (hidden, narrow) => rowsOf(hidden, flat(transposed(narrow)), rowCount),
    expandRows: (hidden, wide) => rowsOf(hidden, flat(wide), rowCount),
    contractHidden: (rows, narrow) => blocks(rows, flat(transposed(narrow))),
    expandWeights: weights,
    contractWeights: (rows, hidden) => transposed(weights(hidden, rows)) as Tensor<'f32'>,
  };
}

/** [n, r, c] as a new tensor [n, c, r]. */
function transposed(tensor: Tensor): Tensor {
  const [count = 0, rows = 0, columns = 0] = tensor.shape;
  const out = Tensor.zeros(tensor.dtype, [count, columns, rows]);
  const [from, to] = [tensor.data, out.data];
  for (let n = 0; n < count; n++) {
    const base = n * rows * columns;
    for (let r = 0; r < rows; r++) {
      for (let c = 0; c < columns; c++) {
        to[base + c * rows + r] = from[base + r * columns + c] as number;
      }
    }
  }
  return out;
}
