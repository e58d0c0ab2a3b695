import type { DeviceName } from '../device.js';
import type { DType } from '../generated.js';
import { mul } from '../ops/elementwise/mul.js';
import { Tensor } from '../tensor.js';
import type { Attention, AttentionScratch, HeadsView } from './attention.js';
import type { ModelConfig } from './config.js';
import { isPaged, type MixingLayer, type PagedLayer } from './decoder_cache.js';
import type { LayerCache } from './kv_cache.js';
import { MLP, type MLPScratch } from './mlp.js';
import type { MoELayer } from './moe/moe_layer.js';
import type { RMSNorm } from './rms_norm.js';
import { type SharedInput, SharedInputMemory } from './shared_input.js';

const one = new Tensor('f32', [1], []);

/** Tensors of one step over M tokens; views of the memory of a {@link StepMemory}. */
export interface StepTensors {
  readonly rows: number;
  readonly ids: Tensor<'i32'>;
  readonly positions: Tensor<'i32'>;
  /** [0, M] and [0, number of keys]: the sequence, as attention of a recorded step reads it. */
  readonly cuQueries: Tensor<'i32'>;
  readonly cuKeys: Tensor<'i32'>;
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
  /** What differs from step to step, written at once: ids, positions, cuQueries, cuKeys. */
  readonly #input: Tensor<'i32'>;
  readonly #residual: Tensor<'f32'>;
  readonly #normed: Tensor<'f32'>;
  readonly #query: Tensor<'f32'>;
  readonly #key: Tensor<'f32'>;
  readonly #value: Tensor<'f32'>;
  readonly #mixed: Tensor<'f32'>;
  readonly #gate: Tensor<'f32'>;
  readonly #up: Tensor<'f32'>;

  constructor(
    config: ModelConfig,
    readonly rows: number,
    device: DeviceName = 'cpu',
  ) {
    const { hiddenSize, numHeads, numKvHeads, headDim, valueDim, intermediateSize } = config;
    this.#config = config;
    const values = (columns: number) => Tensor.empty('f32', [rows * columns], device);
    this.#input = Tensor.empty('i32', [2 * rows + 4], device);
    this.#residual = values(hiddenSize);
    this.#normed = values(hiddenSize);
    this.#query = values(numHeads * headDim);
    this.#key = values(numKvHeads * headDim);
    this.#value = values(numKvHeads * valueDim);
    this.#mixed = values(numHeads * valueDim);
    this.#gate = values(intermediateSize);
    this.#up = values(intermediateSize);
  }

  /** Tensors for tokens at positions [start, start + count). */
  prepare(ids: readonly number[], start: number): StepTensors {
    const count = ids.length;
    const input = new Int32Array(2 * count + 4);
    for (const [i, id] of ids.entries()) {
      input[i] = id;
      input[count + i] = start + i;
    }
    input.set([0, count, 0, start + count], 2 * count);
    this.#input.write(input);
    return this.tensors(count);
  }

  /** What {@link prepare} gives for so many rows. */
  tensors(count: number): StepTensors {
    const known = this.#views.get(count);
    if (known !== undefined) return known;
    // Odd tails of prompts come once: only one such set is kept beside those for 1 token and whole chunks.
    for (const size of this.#views.keys()) {
      if (size !== 1 && size !== this.rows) this.#views.delete(size);
    }
    const tensors = this.#makeViews(count);
    this.#views.set(count, tensors);
    return tensors;
  }

  #makeViews(rows: number): StepTensors {
    const { hiddenSize, numHeads, numKvHeads, headDim, valueDim, intermediateSize } = this.#config;
    const part = <D extends DType>(memory: Tensor<D>, shape: readonly number[]): Tensor<D> =>
      memory
        .slice(
          0,
          shape.reduce((product, size) => product * size, 1),
        )
        .reshape(shape);
    const matrix = (memory: Tensor<'f32'>, cols: number) => part(memory, [rows, cols]);
    const view = (memory: Tensor<'f32'>, heads: number, dim: number): HeadsView => ({
      rows: matrix(memory, heads * dim),
      heads: part(memory, [rows, heads, dim]),
    });
    const residual = matrix(this.#residual, hiddenSize);
    const normed = matrix(this.#normed, hiddenSize);
    const prepared = new SharedInputMemory();
    return {
      rows,
      ids: this.#input.slice(0, rows),
      positions: this.#input.slice(rows, 2 * rows),
      cuQueries: this.#input.slice(2 * rows, 2 * rows + 2),
      cuKeys: this.#input.slice(2 * rows + 2, 2 * rows + 4),
      residual,
      normed,
      lastResidual: residual.slice(rows - 1, rows),
      lastNormed: normed.slice(rows - 1, rows),
      prepared,
      attention: {
        query: view(this.#query, numHeads, headDim),
        key: view(this.#key, numKvHeads, headDim),
        value: view(this.#value, numKvHeads, valueDim),
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

/** One block of the network: attention and MLP (or a mixture of experts), each behind a norm and added to the residual stream. */
export class DecoderLayer {
  constructor(
    readonly attentionNorm: RMSNorm,
    readonly attention: Attention,
    readonly mlpNorm: RMSNorm,
    readonly mlp: MLP | MoELayer,
  ) {}

  /**
   * Changes `tensors.residual` in place.
   *
   * @param start see {@link AttentionStep}
   * @param isRouted whether the routes of a mixture have been made (`PreGate`)
   */
  forward(
    tensors: StepTensors,
    cache: LayerCache | PagedLayer | MixingLayer,
    start: number | undefined,
    isRouted = false,
  ): void {
    const { residual, positions, cuQueries, cuKeys } = tensors;
    const sequence = { cuQueries, cuKeys };
    const step = { cache, start, positions, sequence, scratch: tensors.attention };
    if (isPaged(cache) && cache.hidden !== undefined) {
      mul(residual, one, { out: cache.hidden }); // a copy
    }
    const attentionInput =
      this.attention.options.latent === undefined
        ? normed(this.attentionNorm, this.attention.input, tensors)
        : this.attentionNorm.forward(residual, tensors.normed);
    this.attention.forward(attentionInput, step, residual, residual);
    if (this.mlp instanceof MLP) {
      const mlpInput = normed(this.mlpNorm, this.mlp.input, tensors);
      this.mlp.forward(mlpInput, residual, tensors.mlp, residual);
    } else {
      const input = this.mlpNorm.forward(residual, tensors.normed);
      this.mlp.forward(input, residual, tensors, residual, isRouted);
    }
  }

  /** The layer with its weights on a device. */
  async to(device: DeviceName): Promise<DecoderLayer> {
    return new DecoderLayer(
      await this.attentionNorm.to(device),
      await this.attention.to(device),
      await this.mlpNorm.to(device),
      await this.mlp.to(device),
    );
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
