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
  readonly #ids: Tensor<'i32'>;
  readonly #positions: Tensor<'i32'>;
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
    this.#ids = Tensor.empty('i32', [rows], device);
    this.#positions = Tensor.empty('i32', [rows], device);
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
    this.#ids.write(Int32Array.from(ids));
    this.#positions.write(Int32Array.from(ids, (_, i) => start + i));
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

  /** What {@link prepare} gave last for so many rows. */
  tensorsOf(rows: number): StepTensors | undefined {
    return this.#views.get(rows);
  }

  #tensors(rows: number): StepTensors {
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
      ids: part(this.#ids, [rows]),
      positions: part(this.#positions, [rows]),
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

  /** Changes `tensors.residual` in place. */
  forward(tensors: StepTensors, cache: LayerCache | PagedLayer | MixingLayer, start: number): void {
    const { residual, positions } = tensors;
    const step = { cache, start, positions, scratch: tensors.attention };
    if (isPaged(cache) && cache.hidden !== undefined) {
      mul(residual, one, { out: cache.hidden }); // a copy
    }
    const attentionInput = normed(this.attentionNorm, this.attention.input, tensors);
    this.attention.forward(attentionInput, step, residual, residual);
    if (this.mlp instanceof MLP) {
      const mlpInput = normed(this.mlpNorm, this.mlp.input, tensors);
      this.mlp.forward(mlpInput, residual, tensors.mlp, residual);
    } else {
      const input = this.mlpNorm.forward(residual, tensors.normed);
      this.mlp.forward(input, residual, tensors, residual);
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
