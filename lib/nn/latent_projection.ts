import type { DeviceName } from '../device.js';
import { argumentError } from '../errors.js';
import { mul } from '../ops/elementwise/mul.js';
import type { RunOptions } from '../run.js';
import { Tensor } from '../tensor.js';
import type { Linear } from './linear.js';
import type { RMSNorm } from './rms_norm.js';

/** Layers of a {@link LatentProjection}. */
export interface LatentOptions extends RunOptions {
  /** hidden -> rank + rotary_dim: the latent vector, then the rotary channels that all heads share. */
  down: Linear;
  /** Of the latent vector. */
  norm: RMSNorm;
  /** rank -> num_heads * (head_dim - rotary_dim) */
  key: Linear;
  /** rank -> num_heads * value_dim */
  value: Linear;
  /** hidden -> query rank, and its norm, where queries come through a latent vector too. */
  queryDown?: Linear | undefined;
  queryNorm?: RMSNorm | undefined;
}

interface Memory {
  down: Tensor<'f32'>;
  latent: Tensor<'f32'>;
  nope: Tensor<'f32'>;
  queryDown: Tensor<'f32'> | undefined;
}

const one = new Tensor('f32', [1], []);

/**
 * Keys and values through a latent vector (multi-head latent attention, DeepSeek-V2, 2024): each head's key is
 * [rotary channels, which all heads share | its own channels of the latent vector]. Rotary channels come first here, so that
 * `rope` finds them; queries have the same order.
 */
export class LatentProjection {
  readonly #memory = new WeakMap<object, Memory>();

  constructor(readonly options: LatentOptions) {
    const { down, norm, key, value } = options;
    const rank = norm.weight.size;
    const sizes: [string, number, number, string][] = [
      ['key.inFeatures', key.inFeatures, rank, 'norm.weight.size'],
      ['value.inFeatures', value.inFeatures, rank, 'norm.weight.size'],
    ];
    for (const [name, actual, expected, source] of sizes) {
      if (actual !== expected) {
        throw argumentError(
          'BL_INVALID_SHAPE',
          `LatentProjection: ${name} is ${actual}, expected ${expected} (= ${source})`,
        );
      }
    }
    if (down.outFeatures <= rank) {
      throw argumentError(
        'BL_INVALID_SHAPE',
        `LatentProjection: down.outFeatures is ${down.outFeatures}, expected more than ${rank} (= norm.weight.size)`,
      );
    }
  }

  /** Channels that rope turns. */
  get rotaryDim(): number {
    return this.options.down.outFeatures - this.options.norm.weight.size;
  }

  /**
   * @param x [M, hidden]
   * @param query hidden, or the query's rank, -> num_heads * head_dim, rotary channels of each head first
   * @param out where they go: query [M, num_heads * head_dim], key [M, num_heads, head_dim], value [M, num_heads *
   *   value_dim]
   */
  project(
    x: Tensor<'f32'>,
    query: Linear,
    out: { query: Tensor<'f32'>; key: Tensor<'f32'>; value: Tensor<'f32' | 'f16'> },
  ): void {
    const { down, norm, key, value, queryDown, queryNorm } = this.options;
    const memory = this.#memoryOf(out.key, x.shape[0] as number);
    if (queryDown !== undefined && memory.queryDown !== undefined) {
      queryDown.forward(x, memory.queryDown);
      queryNorm?.forward(memory.queryDown, memory.queryDown);
    }
    query.forward(memory.queryDown ?? x, out.query);
    down.forward(x, memory.down);
    const rank = norm.weight.size;
    norm.forward(channels(memory.down, 0, rank), memory.latent);
    value.forward(memory.latent, out.value);
    key.forward(memory.latent, memory.nope);
    const [rows = 0, heads = 0, headDim = 0] = out.key.shape;
    const rotary = this.rotaryDim;
    const shared = channels(memory.down, rank, rotary);
    const everyHead = new Tensor('f32', shared.bytes, [rows, heads, rotary], {
      strides: [shared.strides[0] as number, 0, 1],
    });
    // Copies: times one.
    mul(everyHead, one, { out: channels(out.key, 0, rotary) });
    const own = memory.nope.reshape([rows, heads, headDim - rotary]);
    mul(own, one, { out: channels(out.key, rotary, headDim - rotary) });
  }

  #memoryOf(owner: object, rows: number): Memory {
    const known = this.#memory.get(owner);
    if (known !== undefined) return known;
    const { down, norm, key, queryDown } = this.options;
    const matrix = (columns: number) => Tensor.empty('f32', [rows, columns]);
    const memory = {
      down: matrix(down.outFeatures),
      latent: matrix(norm.weight.size),
      nope: matrix(key.outFeatures),
      queryDown: queryDown && matrix(queryDown.outFeatures),
    };
    this.#memory.set(owner, memory);
    return memory;
  }

  /** @throws `BL_UNSUPPORTED`: it runs on the processor */
  async to(device: DeviceName): Promise<LatentProjection> {
    if (device === 'cpu') return this;
    throw argumentError('BL_UNSUPPORTED', `LatentProjection: device is ${device}, expected cpu`);
  }

  /** Lets go of the weights. */
  dispose(): void {
    const { down, norm, key, value, queryDown, queryNorm } = this.options;
    for (const part of [down, norm, key, value, queryDown, queryNorm]) part?.dispose();
  }
}

/** Channels [first, first + count) of the last axis. */
function channels(tensor: Tensor<'f32'>, first: number, count: number): Tensor<'f32'> {
  const shape = [...tensor.shape.slice(0, -1), count];
  return new Tensor('f32', tensor.bytes.subarray(4 * first), shape, { strides: tensor.strides });
}
