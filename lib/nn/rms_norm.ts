import type { DeviceName } from '../device.js';
import { type RmsNormOptions as NormOptions, rmsNorm } from '../ops/norm/rms_norm.js';
import type { RunOptions } from '../run.js';
import type { FloatDType, Tensor } from '../tensor.js';

/** Options of {@link RMSNorm}. */
export interface RMSNormOptions extends RunOptions {
  /** Default: 1e-5. */
  epsilon?: number;
}

/** `y = x / sqrt(mean(x^2) + epsilon) * weight` over the last axis. */
export class RMSNorm {
  readonly epsilon: number;
  readonly #options: NormOptions;

  /** @param weight [D] */
  constructor(
    readonly weight: Tensor<FloatDType>,
    options: RMSNormOptions = {},
  ) {
    const { epsilon = 1e-5, ...run } = options;
    this.epsilon = epsilon;
    this.#options = { ...run, epsilon };
  }

  /**
   * @param x [..., D]
   * @returns [..., D]: `out` (may be x), or a new f32 tensor
   */
  forward<D extends FloatDType = 'f32'>(x: Tensor<FloatDType>, out?: Tensor<D>): Tensor<D> {
    const options = this.#options as NormOptions<D>;
    return rmsNorm<D>(x, this.weight, out === undefined ? options : { ...options, out });
  }

  /** The norm with its weights on a device. */
  async to(device: DeviceName): Promise<RMSNorm> {
    return new RMSNorm(await this.weight.to(device), this.#options);
  }

  /** Lets go of the weights. */
  dispose(): void {
    this.weight.dispose();
  }
}
