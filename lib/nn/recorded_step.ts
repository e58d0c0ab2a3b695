import { type DeviceName, Graph } from '../device.js';
import type { BitloomError } from '../errors.js';
import { Tensor } from '../tensor.js';
import type { ModelConfig } from './config.js';
import type { DecoderCache } from './decoder_cache.js';
import { StepMemory } from './decoder_layer.js';
import { KVCache } from './kv_cache.js';

/**
 * A decoder's step of one token over one cache on a device: recorded as a {@link Graph}, because its hundreds of operators
 * take longer to call than to run. All that differs from token to token is read from the step's memory. It belongs to the cache,
 * which one call uses at a time.
 */
export class RecordedStep {
  readonly memory: StepMemory;
  /** Shape [vocabulary]: what the step writes. */
  readonly logits: Tensor<'f32'>;
  #graph: Graph | undefined;
  #isWarm = false;
  #isRefused = false;

  constructor(
    config: ModelConfig,
    private readonly device: DeviceName,
  ) {
    this.memory = new StepMemory(config, 1, device);
    this.logits = Tensor.empty('f32', [config.vocabSize], device);
  }

  /**
   * The graph of `body`, to be launched in its place. Undefined: `body` is to be run; the first time, because code is loaded
   * then, which a recording does not take, and for a single step recording would not pay; always, where one of the operators
   * can not be recorded, or there is no memory for it.
   */
  graph(body: () => void): Graph | undefined {
    if (!this.#isWarm) {
      this.#isWarm = true;
    } else if (this.#graph === undefined && !this.#isRefused) {
      try {
        this.#graph = new Graph(this.device, body);
      } catch (error) {
        const { code } = error as BitloomError;
        if (code !== 'BL_UNSUPPORTED' && code !== 'BL_OUT_OF_MEMORY') throw error;
        this.#isRefused = true;
      }
    }
    return this.#graph;
  }

  /** Lets go of the graph. The memory stays with a call that is still to read its logits. */
  dispose(): void {
    this.#graph?.dispose();
    this.#graph = undefined;
    this.#isRefused = true;
  }
}

/** The recorded steps of a decoder, one for each cache that it has made steps with. */
export class RecordedSteps {
  /** For {@link dispose}: caches hold them, and may go without being disposed of. */
  readonly #steps = new Set<WeakRef<RecordedStep>>();

  constructor(
    private readonly config: ModelConfig,
    private readonly device: DeviceName,
  ) {}

  /** The step of one token over `cache`; undefined for caches that graphs can not be recorded of. */
  of(cache: DecoderCache): RecordedStep | undefined {
    if (!(cache instanceof KVCache) || cache.layer(0).keys.device !== this.device) return undefined;
    return cache.recordedStep(this, () => this.#make());
  }

  #make(): RecordedStep {
    for (const other of this.#steps) if (other.deref() === undefined) this.#steps.delete(other);
    const step = new RecordedStep(this.config, this.device);
    this.#steps.add(new WeakRef(step));
    return step;
  }

  /** Lets go of all graphs. */
  dispose(): void {
    for (const step of this.#steps) step.deref()?.dispose();
    this.#steps.clear();
  }
}
