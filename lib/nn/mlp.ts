import type { DeviceName } from '../device.js';
import { argumentError } from '../errors.js';
import { swiglu } from '../ops/elementwise/swiglu.js';
import type { PreparedActivations } from '../ops/matmul/prepared_activations.js';
import type { RunOptions } from '../run.js';
import type { FloatDType, Tensor } from '../tensor.js';
import type { Linear } from './linear.js';
import { SharedInput, type SharedInputMemory } from './shared_input.js';

/** Where {@link MLP.forward} puts its intermediate values: [M, intermediate] each. */
export interface MLPScratch {
  gate: Tensor<'f32'>;
  up: Tensor<'f32'>;
  prepared?: SharedInputMemory;
}

/** The gated MLP of the llama family: `down(silu(gate(x)) * up(x))` (Shazeer 2020, SwiGLU). */
export class MLP {
  /** What gate and up read. */
  readonly input: SharedInput;
  readonly #product: SharedInput;

  constructor(
    readonly gate: Linear,
    readonly up: Linear,
    readonly down: Linear,
    private readonly run: RunOptions = {},
  ) {
    this.input = new SharedInput([gate, up]);
    this.#product = new SharedInput([down]);
    const sizes: [string, number, number, string][] = [
      ['up.inFeatures', up.inFeatures, gate.inFeatures, 'gate.inFeatures'],
      ['up.outFeatures', up.outFeatures, gate.outFeatures, 'gate.outFeatures'],
      ['down.inFeatures', down.inFeatures, gate.outFeatures, 'gate.outFeatures'],
    ];
    for (const [name, actual, expected, source] of sizes) {
      if (actual !== expected) {
        throw argumentError(
          'BL_INVALID_SHAPE',
          `MLP: ${name} is ${actual}, expected ${expected} (= ${source})`,
        );
      }
    }
  }

  /**
   * @param x [M, hidden], or what {@link input} made of it
   * @param residual [M, hidden], added to the result; may be `out`
   * @returns [M, hidden]: `out` (not x), or a new f32 tensor
   */
  forward(
    x: Tensor<FloatDType> | PreparedActivations,
    out?: Tensor<'f32'>,
    scratch?: MLPScratch,
    residual?: Tensor<'f32'>,
  ): Tensor<'f32'> {
    const gate = this.gate.forward(x, scratch?.gate);
    const up = this.up.forward(x, scratch?.up);
    const product = this.#product.prepare(up, scratch?.prepared, { gate });
    if (product !== undefined) return this.down.forward(product, out, residual);
    swiglu(gate, up, { ...this.run, out: gate });
    return this.down.forward(gate, out, residual);
  }

  /** The MLP with its weights on a device. */
  async to(device: DeviceName): Promise<MLP> {
    const gate = await this.gate.to(device);
    const up = await this.up.to(device);
    return new MLP(gate, up, await this.down.to(device), this.run);
  }

  /** Lets go of the weights. */
  dispose(): void {
    this.gate.dispose();
    this.up.dispose();
    this.down.dispose();
  }
}
