import { type DeviceName, Graph } from '../device.js';
import type { BitloomError } from '../errors.js';
import { RecordedSequence } from '../recorded_sequence.js';
import type { AsyncOptions } from '../run.js';
import { Tensor } from '../tensor.js';
import type { ModelConfig } from './config.js';
import type { DecoderCache } from './decoder_cache.js';
import { StepMemory } from './decoder_layer.js';
import { KVCache } from './kv_cache.js';

/** What runs in place of a step's operators; on a device it queues them. */
export interface RecordedRun {
  run(): void;
  runAsync(options: AsyncOptions): Promise<void>;
}

/**
 * A decoder's step of one token over one cache: recorded, as a {@link RecordedSequence} or on a device as a {@link Graph},
 * because its hundreds of operators take long to call, on a device longer than to run. All that differs from token to token is read
 * from the step's memory. It belongs to the cache, which one call uses at a time.
 */
export class RecordedStep {
  readonly memory: StepMemory;
  /** Shape [vocabulary]: what the step writes. */
  readonly logits: Tensor<'f32'>;
  #recorded: (RecordedRun & { dispose(): void }) | undefined;
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
   * The recording of `body`, to be run in its place. Undefined: `body` is to be run; the first time, because devices load code
   * then, which a recording does not take, and for a single step recording would not pay; always, where one of the operators
   * can not be recorded, or there is no memory for it.
   */
  recorded(body: () => void): RecordedRun | undefined {
    if (!this.#isWarm) {
      this.#isWarm = true;
    } else if (this.#recorded === undefined && !this.#isRefused) {
      try {
        this.#recorded =
          this.device === 'cpu' ? new RecordedSequence(body) : onDevice(this.device, body);
      } catch (error) {
        const { code } = error as BitloomError;
        if (code !== 'BL_UNSUPPORTED' && code !== 'BL_OUT_OF_MEMORY') throw error;
        this.#isRefused = true;
      }
    }
    return this.#recorded;
  }

  /** Lets go of the recording. The memory stays with a call that is still to read its logits. */
  dispose(): void {
    this.#recorded?.dispose();
    this.#recorded = undefined;
    this.#isRefused = true;
  }
}

function onDevice(device: DeviceName, body: () => void): RecordedRun & { dispose(): void } {
  const graph = new Graph(device, body);
  const run = (): void => graph.launch();
  return { run, runAsync: async () => run(), dispose: () => graph.dispose() };
}

/** The recorded steps of a decoder, one for each cache that it has made steps with. */
export class RecordedSteps {
  /** For {@link dispose}: caches hold them, and may go without being disposed of. */
  readonly #steps = new Set<WeakRef<RecordedStep>>();

  constructor(
    private readonly config: ModelConfig,
    private readonly device: DeviceName,
  ) {}

  /** The step of one token over `cache`; undefined for caches that can not be recorded. */
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

  /** Lets go of all of them. */
  dispose(): void {
    for (const step of this.#steps) step.deref()?.dispose();
    this.#steps.clear();
  }
}
