import { argumentError } from '../../errors.js';
import { Tensor } from '../../tensor.js';
import type { Linear } from '../linear.js';
import type { MoELayer } from './moe_layer.js';

/**
 * One router for all mixtures of a decoder, decoupled from its layers (Read-ME, Cai et al. 2024): it reads the embeddings, before any
 * layer runs, so that experts that stay in a file can be brought into memory before they are needed. `preGate` of a `DecoderParts`
 * or of `load` is its matrix; each layer's own router is not asked then, what `moeRoute` is told (`topK`, `scoring`, ...) stays the
 * layer's.
 *
 * In the paper the router has attention of its own; here it is one product, `logits = router embedding`.
 *
 * @internal
 */
export class PreGate {
  readonly #isShared: boolean;
  readonly #logits = new WeakMap<object, Tensor<'f32'>>();

  /**
   * @param router hidden -> experts, the same routes for every layer; or -> experts of all mixtures, one after the other
   * @throws `BL_INVALID_SHAPE` where it does not fit the mixtures, `BL_INVALID_ARGUMENT` where there are none
   */
  constructor(
    readonly router: Linear,
    readonly mixtures: readonly MoELayer[],
  ) {
    if (mixtures.length === 0) {
      throw argumentError(
        'BL_INVALID_ARGUMENT',
        'Decoder: preGate is given, expected none: no layer is a mixture',
      );
    }
    const [first = 0, ...others] = mixtures.map(({ numExperts }) => numExperts);
    const total = others.reduce((sum, count) => sum + count, first);
    const { inFeatures, outFeatures } = router;
    this.#isShared = outFeatures === first && others.every((count) => count === first);
    if (!this.#isShared && outFeatures !== total) {
      throw argumentError(
        'BL_INVALID_SHAPE',
        `Decoder: preGate.outFeatures is ${outFeatures}, expected ${total} (experts of all mixtures), or those of each if it is one number`,
      );
    }
    const hidden = (mixtures[0] as MoELayer).experts.hiddenSize;
    if (inFeatures !== hidden) {
      throw argumentError(
        'BL_INVALID_SHAPE',
        `Decoder: preGate.inFeatures is ${inFeatures}, expected ${hidden} (= hiddenSize)`,
      );
    }
  }

  /** Whether there are experts that are brought into memory. */
  get prefetches(): boolean {
    return this.mixtures.some(({ replacesExperts }) => replacesExperts);
  }

  /**
   * Routes of all mixtures, for their next forward with this key.
   *
   * @param embeddings [M, hidden]
   */
  forward(embeddings: Tensor<'f32'>, key: object): void {
    const rows = embeddings.shape[0] as number;
    const columns = this.router.outFeatures;
    let logits = this.#logits.get(key);
    if (logits === undefined) {
      logits = Tensor.empty('f32', [rows, columns]);
      this.#logits.set(key, logits);
    }
    this.router.forward(embeddings, logits);
    let first = 0;
    for (const mixture of this.mixtures) {
      const shape = [rows, mixture.numExperts];
      const own = this.#isShared
        ? logits
        : new Tensor('f32', logits.bytes.subarray(4 * first), shape, { strides: [columns, 1] });
      mixture.route(own, key);
      first += mixture.numExperts;
    }
  }

  /** Brings the experts of the routes of this key into memory, as far as they fit. */
  async prefetch(key: object): Promise<void> {
    await Promise.all(this.mixtures.map((mixture) => mixture.prefetch(key)));
  }
}
