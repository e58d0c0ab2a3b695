import type { DeviceName } from '../device.js';
import { argumentError } from '../errors.js';
import { mul } from '../ops/elementwise/mul.js';
import { PreparedActivations } from '../ops/matmul/prepared_activations.js';
import { type LoraExperts, loraMixture } from '../ops/moe/lora_mixture.js';
import { type MoERouteOptions, moeRoute } from '../ops/moe/moe_route.js';
import type { QuantizedTensor } from '../quantized_tensor.js';
import type { RunOptions } from '../run.js';
import { type FloatDType, Tensor } from '../tensor.js';
import { Linear, type LinearOptions } from './linear.js';

/** Experts of low rank for one product, and their router. */
export interface LoraMixture {
  /** K -> experts. Best with `activations: 'f32'`. */
  router: Linear;
  experts: LoraExperts;
  /** What `moeRoute` is told: `{ topK: 2, normalize: true }` of MoLA; as many ranks as a token uses of SMoRA. */
  route: Omit<MoERouteOptions, 'out' | 'scores' | keyof RunOptions>;
}

const one = new Tensor('f32', [1], []);

/**
 * A {@link Linear} of any low-bit format with experts of low rank on it: `y = x W^T + bias + loraMixture(x)`, each token routed by
 * `moeRoute` of `router x` (MoLA, SMoRA, LoRA-Mixer: see {@link loraMixture}). `load(path, { lora })` makes them of a model's
 * products.
 *
 * @example
 * ```ts
 * const router = new Linear(quantize(routerWeights, 'f32'), { activations: 'f32' }); // [4, K]
 * const lora = { router, experts: { down, up, scale: 2 }, route: { topK: 2, normalize: true } }; // [4, 8, K], [4, N, 8]
 * const layer = new LoraLinear(quantize(weights, 'u4_g128'), lora); // [N, K]
 * const y = layer.forward(x); // [M, K] -> [M, N]
 * ```
 */
export class LoraLinear extends Linear {
  /** @throws `BL_INVALID_SHAPE` where the parts do not fit */
  constructor(
    weight: QuantizedTensor,
    readonly lora: LoraMixture,
    options: LinearOptions = {},
  ) {
    super(weight, options);
    const { router, experts } = lora;
    const [count = 0, rank = 0, columns = 0] = experts.down.shape;
    const sizes: [string, unknown, unknown, string][] = [
      ['router.inFeatures', router.inFeatures, weight.cols, 'weight.cols'],
      ['router.outFeatures', router.outFeatures, count, 'experts.down.shape[0]'],
      ['experts.down.shape[2]', columns, weight.cols, 'weight.cols'],
      [
        'experts.up.shape',
        `[${experts.up.shape}]`,
        `[${[count, weight.rows, rank]}]`,
        'experts, weight.rows, rank',
      ],
    ];
    for (const [name, actual, expected, source] of sizes) {
      if (actual === expected) continue;
      throw argumentError(
        'BL_INVALID_SHAPE',
        `LoraLinear: ${name} is ${actual}, expected ${expected} (= ${source})`,
      );
    }
  }

  /** Its experts read the values themselves. */
  override get takesPrepared(): boolean {
    return false;
  }

  /**
   * @param x [M, K] f32
   * @param residual [M, N], added to the result; may be `out`
   * @returns [M, N]: `out`, or a new f32 tensor
   */
  override forward<D extends FloatDType = 'f32'>(
    x: Tensor<FloatDType> | PreparedActivations,
    out?: Tensor<D>,
    residual?: Tensor<FloatDType>,
  ): Tensor<D> {
    if (x instanceof PreparedActivations || x.dtype !== 'f32') {
      const actual = x instanceof PreparedActivations ? 'PreparedActivations' : x.dtype;
      throw argumentError(
        'BL_INVALID_DTYPE',
        `LoraLinear: x is ${actual}, expected a Tensor of f32`,
      );
    }
    const { router, experts, route } = this.lora;
    // A cache may want f16: the sum is rounded once.
    const direct = out === undefined || out.dtype === 'f32';
    const base = super.forward<'f32'>(
      x,
      direct ? (out as Tensor<'f32'> | undefined) : undefined,
      residual,
    );
    const routes = moeRoute(router.forward(x), { ...this.run, ...route });
    const sum = loraMixture(x as Tensor<'f32'>, routes, experts, { ...this.run, base, out: base });
    return direct ? (sum as Tensor as Tensor<D>) : mul(sum, one, { ...this.run, out });
  }

  /** @throws `BL_UNSUPPORTED`: experts of low rank run on the processor */
  override async to(device: DeviceName): Promise<Linear> {
    if (device === 'cpu') return this;
    throw argumentError('BL_UNSUPPORTED', `LoraLinear: device is ${device}, expected cpu`);
  }

  /** Lets go of the weights. */
  override dispose(): void {
    super.dispose();
    const { router, experts } = this.lora;
    router.dispose();
    experts.down.dispose();
    experts.up.dispose();
  }
}
