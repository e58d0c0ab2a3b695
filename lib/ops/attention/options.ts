import type { DType } from '../../generated.js';
import type { RunOptions } from '../../run.js';
import type { FloatDType, Tensor } from '../../tensor.js';
import type { RopeTurns } from '../rope/values.js';

/**
 * What multiplies: f32; bf16 with sums in f32; i8: integers, those of the pages or, for 32 rows of a sequence and more, keys
 * and values rounded to int8 (relative error about 2e-2; bf16 3e-3).
 */
export type AttentionCompute = 'f32' | 'bf16' | 'i8';

/** Which of the keys a query sees, by blocks. */
export interface BlockMask {
  /** [numHeads or 1, ceil(queries / `queries`), ceil(keys / `keys`)] u8; 0: not seen */
  mask: Tensor<'u8'>;
  /** Queries in a block. */
  queries: number;
  /** Keys in a block. */
  keys: number;
}

/**
 * What is to be said of the softmax's weights p of the last `queries` queries of each sequence (W: all where it has fewer),
 * without keeping them. Weights are those of scores in f32 (with compute `'i8'`, of pages of integers), also where a kernel of prompts in
 * `'bf16'` or `'i8'` computes the output.
 */
export interface AttentionScores {
  /** Default 0: all. */
  queries?: number;
  /** Shape `[sequences, numHeads, keys]`: receives the sums of p over those queries; 0 beyond a sequence's keys. */
  sums?: Tensor<'f32'>;
  /** Shape `[sequences, numHeads, keys]`: receives the sums of p * p. */
  squares?: Tensor<'f32'>;
  /** Shape `[sequences, numHeads]`: receives -sum of p ln p over keys, averaged over queries (CAKE, Qin et al. 2025). */
  entropy?: Tensor<'f32'>;
  /** Shape `[sequences, numHeads]`: receives the variance of p over queries, averaged over keys (CAKE). */
  variance?: Tensor<'f32'>;
}

/**
 * Rotary position embedding of q and k on their way into the products, as `rope` would turn them beforehand. It is done in f32
 * whatever their types, without rounding in between; values are not turned. Positions are those of the rotation alone: what a
 * query sees (causal, window, slopes) goes by the order of keys as before.
 *
 * Keys stored before rotation can stand at any position when they are read: those of documents put together anew (Block-Attention,
 * Ma et al. 2025; Cache-Craft, Agarwal et al. 2025), or those that an eviction has left.
 */
export interface AttentionRope extends RopeTurns {
  /** Shape `[queries]`, not negative. Default: query t of n has t + m - n, with m the keys of its sequence and head. */
  queryPositions?: Tensor<'i32'>;
  /**
   * Not negative; of {@link attention} `[keys]`, of {@link decodeAttention} `[sequences, keys]` or, where heads have keys of
   * their own, `[sequences, numKvHeads, keys]`, with room for the longest or more. Default: key s has s.
   */
  keyPositions?: Tensor<'i32'>;
}

/** Options of {@link attention} and {@link decodeAttention}. Query t of n, key s of m; `d = t + m - n`. */
export interface AttentionOptions<D extends FloatDType = 'f32'> extends RunOptions {
  /** Multiplies the scores. Default, also for 0: 1 / sqrt(headDim). */
  scale?: number;
  /** Query t sees keys s <= d: the last query sees all. Default false; of {@link decodeAttention} true. */
  causal?: boolean;
  /** Only keys s > d - window are seen and, unless causal, s < d + window. Default 0: no window. */
  window?: number;
  /** With a window: the first `sinkTokens` keys are seen too (StreamingLLM, Xiao et al. 2024). Default 0. */
  sinkTokens?: number;
  /** Shape `[numHeads]`: a window for each head in place of `window`; 0: none (MoA, Fu et al. 2024). */
  windows?: Tensor<'i32'>;
  /** Shape `[numHeads]`: in place of `sinkTokens`. */
  sinkCounts?: Tensor<'i32'>;
  /** With causal: keys s < prefix are seen by all (prefix-LM). Default 0. */
  prefix?: number;
  /** With causal: all keys of the query's block of that many are seen (block diffusion, Arriola et al. 2025). */
  causalBlock?: number;
  /** Scores become softCap * tanh(score / softCap), before slopes and mask (Gemma 2). Default 0: not. */
  softCap?: number;
  /** Shape `[numHeads]`: score - slope * |d - s| (ALiBi, Press et al. 2022). */
  slopes?: Tensor<'f32'>;
  /** Shape `[numHeads]`: a logit that takes part in the softmax without a value (learned sinks, gpt-oss). */
  sinks?: Tensor<'f32'>;
  /**
   * Shape `[numHeads or 1, queries, n]`: u8 (0: not seen) or f32 (added to the score), of the last n keys of a sequence; those before
   * are as the other options say. A tree of draft tokens is a mask over the last keys.
   */
  mask?: Tensor<'u8' | 'f32'>;
  /** Blocks that are not seen are skipped by their tiles of keys. One sequence, no pages. */
  blockMask?: BlockMask;
  /** Turns q and k by their positions. Then f32 is computed in, whatever `compute` permits. Default: they are taken as they stand. */
  rope?: AttentionRope;
  /** Default `'f32'`. Others are a permission: a better mode may run where there is no kernel. */
  compute?: AttentionCompute;
  /** Shape `[queries, numHeads]`: receives ln(sum of exp(score)), -infinity where nothing is seen. */
  lse?: Tensor<'f32'>;
  /** Shape `[numHeads, queries, keys]`: receives the softmax's weights, 0 for keys that are not seen. */
  probabilities?: Tensor<'f32'>;
  /** What is to be said of the weights of the last queries. */
  scores?: AttentionScores;
  /** Where to write, [queries, numHeads, valueDim]; must not overlap what is read. Default: a new f32 tensor. */
  out?: Tensor<D>;
}

/** Sequences side by side. */
export interface RaggedOptions {
  /** Shape `[sequences + 1]`: sequence i has queries [cuQueries[i], cuQueries[i + 1]). */
  cuQueries?: Tensor<'i32'>;
  /**
   * Shape `[sequences + 1]`: and keys [cuKeys[i], cuKeys[i + 1]). Those from the last number on are of no sequence. On a device: one
   * sequence, [0, keys]; the number is read when the kernel runs, so that a recorded call (`Graph`) sees more each time, and kept
   * within what k has. cuQueries is taken for [0, queries] there.
   */
  cuKeys?: Tensor<'i32'>;
}

/** Pages of keys and values of one layer, as {@link KVPages} holds them. */
export interface PagesView {
  /** [numPages, bytes of a page and all its heads] */
  readonly keys: Tensor<DType>;
  /** Undefined: a value is the first channels of its key (multi-head latent attention). */
  readonly values?: Tensor<DType> | undefined;
  readonly keyFormat: string;
  readonly valueFormat: string;
  /** Tokens of a page. */
  readonly pageSize: number;
  /** Heads in a page: all, or 1 where each has a block table of its own. */
  readonly numKvHeads: number;
  readonly keyDim: number;
  readonly valueDim: number;
  readonly numPages: number;
}

/** A stretch of the keys and values of each sequence. */
export interface KVSegment {
  readonly pages: PagesView;
  /** [sequences, pages], or [sequences, numKvHeads, pages] where heads have tables of their own */
  readonly blockTable: Tensor<'i32'>;
  /** [sequences] or [sequences, numKvHeads]: tokens */
  readonly lengths: Tensor<'i32'>;
}
