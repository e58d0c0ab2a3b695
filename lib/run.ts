// How a prepared operator call runs: now, on a worker thread, or as part of a recorded sequence.
import { checkTensor, checkWeights, described } from './arguments.js';
import { recordedStream, type Stream } from './device.js';
import { argumentError, type BitloomError } from './errors.js';
import { type Isa, isas, type OperatorName, operators } from './generated.js';
import { type NativeCalls, type NativeValue, native } from './native.js';
import type { QuantizedTensor } from './quantized_tensor.js';
import type { Tensor } from './tensor.js';

/** How to run one call. Results never depend on these within one instruction set level. */
export interface RunOptions {
  /** Use kernels of this instruction set level or below. Default: the best of this machine. */
  isa?: Isa;
  /** Threads to use at most. Default: the pool's size. */
  threads?: number;
  /** Tensors on a device: the stream to queue the work on. Default: the device's own, or that of the graph being recorded. */
  stream?: Stream;
}

/** Options of the `...Async` functions. */
export interface AsyncOptions {
  /** Rejects the promise with the signal's reason; work not begun is not done. */
  signal?: AbortSignal;
}

/** An operator call with its arguments in native order and the value it gives. */
export interface Call<R> {
  op: OperatorName;
  values: NativeValue[];
  /** The outputs, to be filled by the call. */
  result: R;
}

let recording: Call<unknown>[] | undefined;

export function tensorValues(tensor: Tensor): [NativeValue, NativeValue] {
  return [tensor.nativeMemory, tensor.descriptor];
}

/** {@link tensorValues} of what may be anything; names the operator and the argument if it is no Tensor. */
export function checkedTensorValues(
  op: string,
  name: string,
  tensor: Tensor,
): [NativeValue, NativeValue] {
  checkTensor(op, name, tensor);
  return [tensor.nativeMemory, tensor.descriptor];
}

/** {@link checkedTensorValues} of an argument that may be left out. */
export function optionalTensorValues(
  op: string,
  name: string,
  tensor: Tensor | undefined,
): [NativeValue, NativeValue] {
  return tensor === undefined ? [undefined, undefined] : checkedTensorValues(op, name, tensor);
}

/** {@link weightValues} of what may be anything. */
export function checkedWeightValues(
  op: string,
  name: string,
  weights: QuantizedTensor,
): [NativeValue, NativeValue, NativeValue] {
  checkWeights(op, name, weights);
  return weightValues(weights);
}

export function weightValues(weights: QuantizedTensor): [NativeValue, NativeValue, NativeValue] {
  return [weights.nativeMemory, weights.descriptor, weights.codebook];
}

/** [isa, threads], or a stream, as native calls read it; undefined means the defaults. */
export function runValue(options: RunOptions): NativeValue {
  const { isa, threads, stream = recordedStream() } = options;
  if (stream !== undefined) {
    if (typeof stream === 'object' && stream?.handle !== undefined) return stream.handle;
    throw argumentError(
      'BL_INVALID_ARGUMENT',
      `run: stream is ${described(stream)}, expected a Stream`,
    );
  }
  if (isa === undefined && threads === undefined) return undefined;
  if (isa !== undefined && !(typeof isa === 'string' && Object.hasOwn(isas, isa))) {
    throw argumentError(
      'BL_INVALID_ARGUMENT',
      `run: isa is ${described(isa)}, expected one of ${Object.keys(isas).join(', ')}`,
    );
  }
  if (threads !== undefined && !(Number.isInteger(threads) && threads >= 1 && threads <= 256)) {
    throw argumentError(
      'BL_INVALID_ARGUMENT',
      `run: threads is ${described(threads)}, expected 1 to 256`,
    );
  }
  return runNumbers(isa === undefined ? -1 : isas[isa], threads ?? 0);
}

/** [isa, threads] by both: a program uses few of them, for thousands of calls. Nobody writes to them. */
const runArrays = new Map<number, Int32Array>();

function runNumbers(isa: number, threads: number): Int32Array {
  const key = isa * 512 + threads;
  let numbers = runArrays.get(key);
  if (numbers === undefined) {
    numbers = Int32Array.of(isa, threads);
    runArrays.set(key, numbers);
  }
  return numbers;
}

/** Whether a sequence is being recorded, so that the values of tensors may not be there yet. */
export function isRecording(): boolean {
  return recording !== undefined;
}

/**
 * For functions that read values in JavaScript.
 *
 * @throws `BL_INVALID_ARGUMENT` while a sequence is being recorded
 */
export function checkNotRecording(op: string): void {
  if (!isRecording()) return;
  throw argumentError(
    'BL_INVALID_ARGUMENT',
    `${op}: called within a sequence, expected outside: tensors may not have the values yet that it reads`,
  );
}

/** Runs a call now, or adds it to the sequence being recorded. */
export function run<R>(call: Call<R>): R {
  if (recording !== undefined) recording.push(call);
  else native[call.op](...call.values);
  return call.result;
}

/**
 * Runs a call on a worker thread; errors of `prepare` reject the promise too. The memory of the tensors is
 * used in place: no copies. Change none of them before the promise settles.
 */
export async function runAsync<R>(prepare: () => Call<R>, options: AsyncOptions = {}): Promise<R> {
  const call = prepare();
  await runCalls([call], options);
  return call.result;
}

/**
 * Records the operators that `body` calls instead of running them, then runs them in order in one visit
 * to a worker thread. Within `body` outputs have their shapes but not yet their values.
 *
 * @example
 * ```ts
 * const y = await sequence(() => matmul(silu(x), w));
 * ```
 */
export async function sequence<R>(body: () => R, options: AsyncOptions = {}): Promise<R> {
  const { calls, result } = recordCalls('sequence', body);
  await runCalls(calls, options);
  return result;
}

/** The operators that `body` calls, which do not run, and what it gives back. */
export function recordCalls<R>(what: string, body: () => R): { calls: Call<unknown>[]; result: R } {
  if (recording !== undefined) {
    throw argumentError('BL_INVALID_ARGUMENT', `${what}: sequences can not be nested`);
  }
  const calls: Call<unknown>[] = [];
  recording = calls;
  let result: R;
  try {
    result = body();
  } finally {
    recording = undefined;
  }
  if (result instanceof Promise) {
    result.catch(() => undefined); // this error is the one that is reported
    throw argumentError('BL_INVALID_ARGUMENT', `${what}: body is async, expected a sync function`);
  }
  return { calls, result };
}

/** The calls as native.runAsync and native.recordCalls take them. */
export function callValues(calls: readonly Call<unknown>[]): NativeValue[][] {
  for (const call of calls) checkFixed(call);
  return calls.map((call) => [operators[call.op], ...call.values]);
}

async function runCalls(calls: Call<unknown>[], options: AsyncOptions): Promise<void> {
  options.signal?.throwIfAborted();
  if (recordedStream() !== undefined) {
    throw argumentError(
      'BL_INVALID_ARGUMENT',
      `${calls[0]?.op ?? 'sequence'}: an async call can not be a part of a Graph; call the sync function`,
    );
  }
  await runAbortable(callValues(calls), options);
}

/** native.runAsync, ended by the signal. */
export async function runAbortable(
  calls: NativeValue[][] | NativeCalls,
  { signal }: AsyncOptions,
): Promise<void> {
  if (signal === undefined) {
    await native.runAsync(calls);
    return;
  }
  signal.throwIfAborted();
  const state = new Int32Array(new SharedArrayBuffer(4));
  const abort = (): void => void Atomics.store(state, 0, 1);
  signal.addEventListener('abort', abort, { once: true });
  try {
    await native.runAsync(calls, state);
  } catch (error) {
    // The native layer says that it stopped; the caller's own reason says why.
    if ((error as BitloomError).code === 'BL_ABORTED') signal.throwIfAborted();
    throw error;
  } finally {
    signal.removeEventListener('abort', abort);
  }
  signal.throwIfAborted();
}

/** A resizable buffer may lose memory while a worker thread uses it, so it is refused there. */
function checkFixed(call: Call<unknown>): void {
  for (const value of call.values) {
    if (!ArrayBuffer.isView(value)) continue;
    const buffer = value.buffer as ArrayBuffer & { resizable?: boolean };
    if (buffer.resizable === true) {
      throw argumentError(
        'BL_UNSUPPORTED',
        `${call.op}: an async call can not use a resizable ArrayBuffer; copy it, or call the sync function`,
      );
    }
  }
}
