import { Tensor } from '../tensor.js';
import type { Attention, AttentionScratch, HeadsView } from './attention.js';
import type { ModelConfig } from './config.js';
import type { LayerCache } from './kv_cache.js';
import type { MLP, MLPScratch } from './mlp.js';
import type { RMSNorm } from './rms_norm.js';
import { type SharedInput, SharedInputMemory } from './shared_input.js';

/** Tensors of one step over M tokens; views of the memory of a {@link StepMemory}. */
export interface StepTensors {
  readonly rows: number;
  readonly ids: Tensor<'i32'>;
  readonly positions: Tensor<'i32'>;
  /** [M, hidden]: the residual stream; what a part reads; the last row of both. */
  readonly residual: Tensor<'f32'>;
  readonly normed: Tensor<'f32'>;
  readonly lastResidual: Tensor<'f32'>;
  readonly lastNormed: Tensor<'f32'>;
  readonly prepared: SharedInputMemory;
  readonly attention: AttentionScratch;
  readonly mlp: MLPScratch;
}

/**
 * Memory of a step over up to `rows` tokens. Tensors are made once per number of rows in use (one token and whole
 * chunks, mostly), so that a decoding step makes none.
 */
export class StepMemory {
  readonly #views = new Map<number, StepTensors>();
  readonly #config: ModelConfig;
  readonly #ids: Int32Array;
  readonly #positions: Int32Array;
  readonly #residual: Float32Array;
  readonly #normed: Float32Array;
  readonly #query: Float32Array;
  readonly #key: Float32Array;
  readonly #mixed: Float32Array;
  readonly #gate: Float32Array;
  readonly #up: Float32Array;

  constructor(
    config: ModelConfig,
    readonly rows: number,
  ) {
    const { hiddenSize, numHeads, numKvHeads, headDim, valueDim, intermediateSize } = config;
    this.#config = config;
    this.#ids = new Int32Array(rows);
    this.#positions = new Int32Array(rows);
    this.#residual = new Float32Array(rows * hiddenSize);
    this.#normed = new Float32Array(rows * hiddenSize);
    this.#query = new Float32Array(rows * numHeads * headDim);
    this.#key = new Float32Array(rows * numKvHeads * headDim);
    this.#mixed = new Float32Array(rows * numHeads * valueDim);
    this.#gate = new Float32Array(rows * intermediateSize);
    this.#up = new Float32Array(rows * intermediateSize);
  }

  /** Tensors for tokens at positions [start, start + count). */
  prepare(ids: readonly number[], start: number): StepTensors {
    const count = ids.length;
    this.#ids.set(ids);
    for (let i = 0; i < count; i++) this.#positions[i] = start + i;
    const known = this.#views.get(count);
    if (known !== undefined) return known;
    // Odd tails of prompts come once: only one such set is kept beside those for 1 token and whole chunks.
    for (const size of this.#views.keys()) {
      if (size !== 1 && size !== this.rows) this.#views.delete(size);
    }
    const tensors = this.#tensors(count);
    this.#views.set(count, tensors);
    return tensors;
  }

  #tensors(rows: number): StepTensors {
    const { hiddenSize, numHeads, numKvHeads, headDim, valueDim, intermediateSize } = this.#config;
    const matrix = (memory: Float32Array, cols: number) => new Tensor('f32', memory, [rows, cols]);
    const view = (memory: Float32Array, heads: number, dim: number): HeadsView => ({
      rows: matrix(memory, heads * dim),
      heads: new Tensor('f32', memory, [rows, heads, dim]),
    });
    const residual = matrix(this.#residual, hiddenSize);
    const normed = matrix(this.#normed, hiddenSize);
    const prepared = new SharedInputMemory();
    return {
      rows,
      ids: new Tensor('i32', this.#ids, [rows]),
      positions: new Tensor('i32', this.#positions, [rows]),
      residual,
      normed,
      lastResidual: residual.slice(rows - 1, rows),
      lastNormed: normed.slice(rows - 1, rows),
      prepared,
      attention: {
        query: view(this.#query, numHeads, headDim),
        key: view(this.#key, numKvHeads, headDim),
        mixed: view(this.#mixed, numHeads, valueDim),
      },
      mlp: {
        gate: matrix(this.#gate, intermediateSize),
        up: matrix(this.#up, intermediateSize),
        prepared,
      },
    };
  }
}

/** One block of the network: attention and MLP, each behind a norm and added to the residual stream. */
export class DecoderLayer {
  constructor(
    readonly attentionNorm: RMSNorm,
    readonly attention: Attention,
    readonly mlpNorm: RMSNorm,
    readonly mlp: MLP,
  ) {}

  /** Changes `tensors.residual` in place. */
  forward(tensors: StepTensors, cache: LayerCache, start: number): void {
    const { residual, positions } = tensors;
    const step = { cache, start, positions, scratch: tensors.attention };
    const attentionInput = normed(this.attentionNorm, this.attention.input, tensors);
    this.attention.forward(attentionInput, step, residual, residual);
    const mlpInput = normed(this.mlpNorm, this.mlp.input, tensors);
    this.mlp.forward(mlpInput, residual, tensors.mlp, residual);
  }

  /** Lets go of the weights. */
  dispose(): void {
    this.attentionNorm.dispose();
    this.attention.dispose();
    this.mlpNorm.dispose();
    this.mlp.dispose();
  }
}

/** The norm of the residual stream, as the layers of `input` read it. */
function normed(norm: RMSNorm, input: SharedInput, tensors: StepTensors) {
  const { weight, epsilon } = norm;
  const prepared = input.prepare(tensors.residual, tensors.prepared, { norm: { weight, epsilon } });
  return prepared ?? norm.forward(tensors.residual, tensors.normed);
}
