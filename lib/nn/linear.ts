import type { DeviceName } from '../device.js';
import { argumentError } from '../errors.js';
import { matmul, matmulKernel } from '../ops/matmul/matmul.js';
import type { Compute, MatmulOptions } from '../ops/matmul/options.js';
import type { PreparedActivations } from '../ops/matmul/prepared_activations.js';
import { packWeightsAsync } from '../ops/quantize/pack_weights.js';
import type { QuantizedTensor } from '../quantized_tensor.js';
import type { RunOptions } from '../run.js';
import { type FloatDType, Tensor } from '../tensor.js';

/**
 * In what activations are multiplied: `'f32'`; `'i8'`, as `compute: 'i8'` of {@link matmul}: int8 where the weight
 * format has integer codes, for other formats bf16 where there are rows enough for tiles, else f32; `'auto'`:
 * bitloom's choice, which is `'i8'` on the processor and `'f32'` on devices (there products of f16, which are the
 * faster ones on GPUs of data centres).
 */
export type Activations = 'auto' | 'f32' | 'i8';

/** Options of {@link Linear}. */
export interface LinearOptions extends RunOptions {
  /** [N] */
  bias?: Tensor<'f32'> | undefined;
  /** Default: `'auto'`. */
  activations?: Activations;
  /** Shape [K]. Column j of the weights meets column `columnOrder[j]` of x. */
  columnOrder?: Tensor<'i32'>;
}

/** The product that `activations` stands for; throws `BL_INVALID_ARGUMENT` for another word. */
export function computeOf(activations: Activations = 'auto', device: DeviceName = 'cpu'): Compute {
  if (activations === 'f32') return 'f32';
  // matmul itself takes f32 where codes are no integers.
  if (activations === 'i8') return 'i8';
  if (activations === 'auto') return device === 'cpu' ? 'i8' : 'f32';
  throw argumentError(
    'BL_INVALID_ARGUMENT',
    `Linear: activations is ${JSON.stringify(activations)}, expected auto, f32 or i8`,
  );
}

/**
 * `y = x W^T + bias`.
 *
 * @example
 * ```ts
 * const layer = new Linear(quantize(weights, 'u4_g128')); // [N, K]
 * const y = layer.forward(x); // [M, K] -> [M, N]
 * ```
 */
export class Linear {
  readonly bias: Tensor<'f32'> | undefined;
  readonly columnOrder: Tensor<'i32'> | undefined;
  readonly activations: Activations;
  readonly compute: Compute;
  readonly run: RunOptions;

  /** @param weight [N, K] in any format; the layer does not own it, but {@link dispose} lets go of it. */
  constructor(
    readonly weight: QuantizedTensor,
    options: LinearOptions = {},
  ) {
    const { bias, activations = 'auto', columnOrder, ...run } = options;
    if (bias !== undefined && (bias.rank !== 1 || bias.shape[0] !== weight.rows)) {
      throw argumentError(
        'BL_INVALID_SHAPE',
        `Linear: bias has shape [${bias.shape}], expected [${weight.rows}] (= weight.rows)`,
      );
    }
    this.bias = bias;
    this.columnOrder = columnOrder;
    this.activations = activations;
    this.compute = computeOf(activations, weight.device);
    this.run = { isa: run.isa, threads: run.threads } as RunOptions;
  }

  /** Whether {@link forward} takes what `prepareActivations` made of x. */
  get takesPrepared(): boolean {
    return true;
  }

  get inFeatures(): number {
    return this.weight.cols;
  }

  get outFeatures(): number {
    return this.weight.rows;
  }

  /**
   * @param x [..., M, K], or what `prepareActivations` made of it
   * @param residual [..., M, N], added to the result; may be `out`
   * @returns [..., M, N]: `out`, or a new f32 tensor
   */
  forward<D extends FloatDType = 'f32'>(
    x: Tensor<FloatDType> | PreparedActivations,
    out?: Tensor<D>,
    residual?: Tensor<FloatDType>,
  ): Tensor<D> {
    return matmul<D>(x, this.weight, this.#options(out, residual));
  }

  /** Name of the kernel that {@link forward} runs for `rows` rows of f32. */
  kernel(rows = 1): string | undefined {
    const a = Tensor.zeros('f32', [rows, this.inFeatures]);
    const c = Tensor.zeros('f32', [rows, this.outFeatures]);
    const name = matmulKernel(a, this.weight, this.#options(c));
    a.dispose();
    c.dispose();
    return name;
  }

  /** One literal with all members, so that every call has the same hidden class: a step makes hundreds. */
  #options<D extends FloatDType>(
    out: Tensor<D> | undefined,
    residual?: Tensor<FloatDType>,
  ): MatmulOptions<D> {
    const { compute, bias, columnOrder } = this;
    const { isa, threads } = this.run;
    return { isa, threads, compute, bias, columnOrder, out, residual } as MatmulOptions<D>;
  }

  /** The layer with its weights on a device, packed for it; where it is already, the layer itself. */
  async to(device: DeviceName): Promise<Linear> {
    if (device === this.weight.device) return this;
    const { activations, bias, columnOrder, run } = this;
    const from = await this.weight.to('cpu');
    const packed = await packWeightsAsync(from, { for: device === 'cpu' ? 'both' : 'cuda' });
    const weight = await packed.to(device);
    if (packed !== this.weight && packed !== weight) packed.dispose();
    return new Linear(weight, {
      ...run,
      activations,
      bias: await bias?.to(device),
      ...(columnOrder === undefined ? {} : { columnOrder: await columnOrder.to(device) }),
    });
  }

  /** Lets go of the weights. */
  dispose(): void {
    this.weight.dispose();
    this.bias?.dispose();
    this.columnOrder?.dispose();
  }
}
