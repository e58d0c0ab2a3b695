// What `matmul` can be told; how it is passed on stands in values.ts.
import type { RunOptions } from '../../run.js';
import type { FloatDType, Tensor } from '../../tensor.js';

/**
 * In what numbers `matmul` forms products. `f32` (default, but for algorithms `lut` and `tile`): activations as they
 * are. `i8`: a permission to round activations to int8, a scale per 32 of them (or per row; per 512 in algorithm
 * `tile`). It is used where weights are integers times a scale, and in algorithm `tile`, which `auto` takes for many
 * rows, for nf4, fp4, cb, e3m2, e4m3 and e5m2 too: those are as exact as in f32 for a few rows (`dequant`) and off by
 * 1e-2 to 2e-2 for many. f32, f16, bf16, cbs and lut weights are computed in f32 for a few rows and by tiles in bf16
 * for many. `bf16`: by tiles, both sides rounded to bf16; else as f32. `i1`: activations as their signs times the
 * mean magnitude of the row, for weights of format u1 and i1 only (BiDM, Zheng et al. 2024; XNOR-Net, Rastegari et al.
 * 2016): XNOR and a count of bits. `e4m3`: activations rounded to fp8, a scale per row (largest / 448) or per 32 of them
 * (a power of two, with `activationGroup: 32`); weights and sums as in f32. Devices with products of fp8 form them so
 * (sm_89, sm_120; weights of 4-bit integers without zero points and of MX elements), others in bf16 or f16, which hold
 * e4m3; the processor rounds and computes in f32. On Gaussian activations the relative error is about 2.6e-2.
 */
export type Compute = 'f32' | 'i8' | 'bf16' | 'i1' | 'e4m3';

/**
 * How `matmul` forms products. `lut`: tables of partial sums of the activations, looked up by the weights' codes; any
 * format whose values are integers, compute `i8` (the default then). Codes of up to 3 bits in groups of 32 and more have
 * kernels that are fast; others look up single products, to compare with, which `auto` never takes.
 * `dequant`: codes unpacked in registers and multiplied. `tile`: weights unpacked once per cache block for many
 * activation rows, on the matrix unit where there is one; compute `i8` or `bf16` (the default then). `auto` (default): what is fastest for the shape, format
 * and machine.
 */
export type Algorithm = 'auto' | 'lut' | 'dequant' | 'tile';

/**
 * What algorithm `lut` looks up. `lossless` (default): exact sums of the int8 activations, so that results have the bits
 * of `dequant`. `fast`: those sums rounded to a byte, with a scale per 128 activations: half the lookups and half the
 * memory. An entry of a table of 4 activations (of 2 for weights of 2 bits) is then off by less than 0.6 / 255 of the
 * largest entry of those of 128; with the rounding of the activations the relative error is about 8e-3 on Gaussian
 * activations at 1 bit and 1.3e-2 to 1.6e-2 at 2 and 3 bits, where `lossless` has 5e-3. Data of other kinds lose more,
 * and nothing guards against it: 7.6e-2 with activations of alternating sign on 1 bit, 1.2e-1 with channels a thousand
 * times the rest on ternary weights. Faster at every width but where
 * memory is the limit: one row of activations, AVX-512 and weights that come from DRAM take the same time.
 */
export type Tables = 'lossless' | 'fast';

/**
 * What is done to outputs before they are written. `gelu` is by erf, `geluTanh` its tanh approximation. `swiglu` and
 * `geglu` take weights of 2 H rows, the gate's and then the up projection's, and give H outputs: silu(gate) * up,
 * gelu(gate) * up.
 */
export type Activation = 'none' | 'silu' | 'gelu' | 'geluTanh' | 'relu' | 'swiglu' | 'geglu';

/** A low-rank term `scale * up (down x)`: EoRA (Liu et al. 2024), LoRA (Hu et al. 2021), INT2.1 (Chai et al. 2023). */
export interface LowRank {
  /** [R, K]; with `batch` [batch, R, K]. */
  down: Tensor<FloatDType>;
  /** [N, R]; with `batch` [batch, N, R]. Read fastest with strides [1, N]. */
  up: Tensor<FloatDType>;
  /** Default: 1. */
  scale?: number;
}

/** A low-rank term of its own for each row of activations, e.g. for each request of a batch. */
export interface Adapters {
  /** [A, R, K] */
  down: Tensor<FloatDType>;
  /** [A, N, R] */
  up: Tensor<FloatDType>;
  /** Which of the A adapters a row has, -1: none; [rows of a]. */
  ids: Tensor<'i32'>;
  /** Default: 1. */
  scale?: number;
}

/**
 * Sparse weights kept beside the quantized ones, by rows (CSR), multiplied with the activations as they are given:
 * SpQR (Dettmers et al. 2023), Super Weight (Yu et al. 2024).
 */
export interface Outliers {
  /** [b.rows + 1], from 0, never falling, to nnz: where the weights of each row begin. */
  rowOffsets: Tensor<'i32'>;
  /** [nnz], each in [0, K) */
  columns: Tensor<'i32'>;
  /** [nnz] */
  values: Tensor<FloatDType>;
}

/** What `matmul` writes. */
export type OutputDType = FloatDType | 'i8';

/** Options of {@link matmul}; N is b.rows (b.rows / batch with `batch`), K the columns of a. */
export interface MatmulOptions<D extends OutputDType = 'f32'> extends RunOptions {
  /** [b.rows], added to every row of the result. */
  bias?: Tensor<'f32'>;
  /**
   * Where to write, [..., M, N] (H = N / 2 columns with swiglu and geglu), any strides; default: a new f32 tensor. i8
   * needs `cScales` or `cScale`.
   */
  out?: Tensor<D>;
  compute?: Compute;
  algorithm?: Algorithm;
  /**
   * Compute i8, where algorithm `lut` is taken; others do not read it. `'fast'` is for codes of up to 3 bits. Default:
   * `'lossless'`.
   */
  tables?: Tables;

  /** Times every product; not 0. Default: 1. */
  scale?: number;
  /** [b.rows], times the products of each row of b: OneBit's h (Xu et al. 2024), per-channel scales. */
  rowScale?: Tensor<'f32'>;
  /** [..., M, N], added before bias and activation; may be `out` itself. With swiglu and geglu N = 2 H. */
  addend?: Tensor<FloatDType>;
  /** Added to the products, from activations that are not rounded. */
  lowRank?: LowRank;
  /** As `lowRank`, one per row of a. Not with `lowRank` or `batch`. */
  adapters?: Adapters;
  /** Added to the products. */
  outliers?: Outliers;
  /** Applied after all that. Default: `'none'`. */
  activation?: Activation;
  /** The shape of the result, added after the activation; may be `out` itself, which then accumulates. */
  residual?: Tensor<FloatDType>;
  /** `out` is i8: [..., M, ceil(N / 32)], written: a scale per 32 outputs, as `compute: 'i8'` rounds activations. */
  cScales?: Tensor<'f32'>;
  /** `out` is i8: one scale for all, `code = y / cScale`, at most 127 in magnitude. */
  cScale?: number;

  /**
   * a is i8: a scale per row, [..., M], or per 32 columns, [..., M, ceil(K / 32)]. Codes lie in [-127, 127]. A scale of
   * NaN makes its row NaN.
   */
  aScales?: Tensor<'f32'>;
  /** [K], times the columns of a before they are rounded: 1 / s of SmoothQuant (Xiao et al. 2022), OneBit's g. */
  columnScale?: Tensor<'f32'>;
  /**
   * [b.cols], each in [0, K): column j of b meets column `columnOrder[j]` of a, as GPTQ with act-order stores them. a
   * may have more columns than b.
   */
  columnOrder?: Tensor<'i32'>;
  /**
   * Compute i8: 4 rounds activations to -7 .. 7 (W4A4). Default: 8. With 4 bits and no scale per row `auto` takes no
   * tiles, whose scale of 512 activations leaves 7 steps for the largest of them.
   */
  activationBits?: 8 | 4;
  /**
   * Compute i8 and e4m3: which activations share a scale, 32 of them or the row (per-token). Default with e4m3: the row.
   * With i8: 32, in algorithm `tile` 512; where 32 is given, `auto` takes no tiles. Errors of the product on Gaussian data: 5.5e-3 with 32, 8e-3 with
   * `'row'`. Channels that are larger than the rest cost those that share their scale: with a channel 20 to 100 times
   * the rest `'row'` loses 5e-2 to 9e-2, in every algorithm, where the default has 1.2e-2 at most (tiles compute such
   * rows in bf16). Smooth such channels first (`columnScale`), or leave the default.
   */
  activationGroup?: 32 | 'row';
  /**
   * A stack of matrices: a is [batch, ..., K], rows [i N, (i + 1) N) of b belong to a[i]. bias, rowScale and outliers
   * go by b's rows. Any N; packed weights are read fastest where it is a multiple of 16.
   */
  batch?: number;
}
