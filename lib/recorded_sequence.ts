import { argumentError } from './errors.js';
import { type NativeCalls, native } from './native.js';
import { type AsyncOptions, callValues, recordCalls, runAbortable } from './run.js';

/**
 * Operators that are called once and run as often as wanted, like {@link sequence} without the cost of calling them: a
 * step of a small decoder is a hundred operators, each of some microseconds of JavaScript. Whoever changes the
 * values of their tensors between runs gets the results for these. {@link Graph} is the same for a device.
 *
 * It keeps the memory that its tensors have when it is made: a buffer that is transferred later leaves it with memory
 * that nobody else sees.
 *
 * @example
 * ```ts
 * const x = Tensor.zeros('f32', [1, 4]);
 * const step = new RecordedSequence(() => silu(x));
 * x.write(Float32Array.of(1, 2, 3, 4));
 * step.run();
 * step.result.toArray(); // about [0.73, 1.76, 2.86, 3.93]
 * ```
 */
export class RecordedSequence<R = unknown> {
  /** What `body` gave back: outputs, which have their values after a run. */
  readonly result: R;
  #calls: NativeCalls | undefined;

  /**
   * @param body calls operators; they do not run
   * @throws `BL_UNSUPPORTED` for tensors on a device or of a resizable buffer, `BL_INVALID_ARGUMENT` within another sequence
   */
  constructor(body: () => R) {
    const { calls, result } = recordCalls('RecordedSequence', body);
    this.result = result;
    this.#calls = native.recordCalls(callValues(calls));
  }

  /**
   * Runs the operators in order.
   *
   * @throws the first error of an operator, `BL_DETACHED` after dispose()
   */
  run(): void {
    native.runRecorded(this.#held());
  }

  /** {@link run} on a worker thread. One run at a time: they write to the same memory. */
  async runAsync(options: AsyncOptions = {}): Promise<void> {
    await runAbortable(this.#held(), options);
  }

  /** Lets go of the memory; a run that is under way keeps it until it is done. */
  dispose(): void {
    if (this.#calls !== undefined) native.freeRecorded(this.#calls);
    this.#calls = undefined;
  }

  /** {@link dispose}, for `using`. */
  [Symbol.dispose](): void {
    this.dispose();
  }

  #held(): NativeCalls {
    if (this.#calls !== undefined) return this.#calls;
    throw argumentError('BL_DETACHED', 'RecordedSequence: run after dispose()');
  }
}
