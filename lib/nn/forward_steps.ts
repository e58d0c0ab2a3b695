// How tokens go through a decoder: in chunks, one after the other, each a step of the cache.
import type { Tensor } from '../tensor.js';
import type { CacheStep, DecoderCache } from './decoder_cache.js';
import type { StepMemory, StepTensors } from './decoder_layer.js';
import type { RecordedRun, RecordedStep } from './recorded_step.js';

/** Tokens computed at once. */
export interface Chunk {
  begin: () => void;
  /** Brings what `compute` will read into memory, where that is known before. */
  prefetch: (() => Promise<void>) | undefined;
  /** What does the same as `compute`, if that is recorded. */
  recorded: () => RecordedRun | undefined;
  compute: () => void;
  commit: () => void;
  commitAsync: () => Promise<void>;
}

/** What the steps want of the model. */
export interface StepModel {
  /** Calls the operators of a step; without `start` as `Attention.forward` does. */
  run(
    tensors: StepTensors,
    cache: CacheStep,
    start: number | undefined,
    logits?: Tensor<'f32'>,
  ): void;
  /** Called before a step, where that may wait; undefined: there is nothing to be fetched. */
  prefetch: ((tensors: StepTensors) => Promise<void>) | undefined;
  /** Called after a step. */
  settle(memory: StepMemory, rows: number): void;
}

/** One call of `Decoder.forward`. */
export class ForwardSteps {
  #begun: CacheStep | undefined;

  /** @param recorded the step of one token that the cache keeps */
  constructor(
    private readonly model: StepModel,
    private readonly cache: DecoderCache,
    private readonly memory: StepMemory,
    private readonly recorded: RecordedStep | undefined,
  ) {}

  /**
   * `ids` in chunks of `most`.
   *
   * @param logits [ids.length, vocabulary], for each token, or [vocabulary], after the last
   */
  chunks(ids: readonly number[], most: number, logits: Tensor<'f32'>): Chunk[] {
    const chunks: Chunk[] = [];
    for (let first = 0; first < ids.length; first += most) {
      const part = ids.slice(first, first + most);
      const end = first + part.length;
      const isLast = end === ids.length;
      const target = logits.rank === 2 ? logits.slice(first, end) : isLast ? logits : undefined;
      chunks.push(this.#chunk(part, () => this.cache.begin(part.length), target));
    }
    return chunks;
  }

  /** Tokens that the cache wants computed before the next chunk, and forgotten. */
  probe(): Chunk | undefined {
    const wanted = this.cache.probe?.();
    if (wanted === undefined) return undefined;
    this.#begun = wanted.step;
    return this.#chunk(wanted.tokens, () => wanted.step);
  }

  /** Undoes a step that has not been committed. */
  abort(): void {
    this.#begun?.abort();
  }

  #chunk(part: readonly number[], begin: () => CacheStep, logits?: Tensor<'f32'>): Chunk {
    const { model, memory, recorded } = this;
    const { prefetch } = model;
    const begun = (): CacheStep => this.#begun as CacheStep;
    const settle = (): void => {
      this.#begun = undefined;
      model.settle(memory, part.length);
    };
    return {
      begin: () => {
        this.#begun = begin();
      },
      prefetch: prefetch && (() => prefetch(memory.prepare(part, begun().position))),
      recorded: () => {
        const run = recorded?.recorded(() => {
          model.run(memory.tensors(1), begun(), undefined, logits);
        });
        if (run !== undefined) memory.prepare(part, begun().position);
        return run;
      },
      compute: () => {
        const { position } = begun();
        const tensors = memory.prepare(part, position);
        model.run(tensors, begun(), recorded === undefined ? position : undefined, logits);
      },
      commit: () => {
        begun().commit();
        settle();
      },
      commitAsync: async () => {
        const step = begun();
        await (step.commitAsync?.() ?? step.commit());
        settle();
      },
    };
  }
}
