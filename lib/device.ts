// Devices beside the processor: what there is, their memory, and streams of work on them.
import { argumentError, BitloomError } from './errors.js';
import { type NativeGraph, type NativeMemory, type NativeStream, native } from './native.js';

/** Where the data of a tensor lies. */
export type DeviceName = 'cpu' | `cuda:${number}`;

/** A device, and what bitloom holds of its memory. */
export interface DeviceInfo {
  /** As its maker calls it. */
  name: string;
  /** Compute capability times 10: 80, 90, 120. */
  arch: number;
  multiprocessors: number;
  memoryBytes: number;
  /** Not taken by any process. */
  freeBytes: number;
  /** In use by tensors. */
  usedBytes: number;
  /** In use, or kept for the next tensors. */
  reservedBytes: number;
  /** The most that was in use. */
  peakBytes: number;
  /** What bitloom may reserve; 0: all. */
  limitBytes: number;
  /** Tensors and scratch memory so far, and how often the driver was asked for memory for them. */
  allocations: number;
  driverCalls: number;
  /** Why it can not be used; absent if it can. */
  unusable?: string;
}

/** The number of a CUDA device; throws `BL_INVALID_ARGUMENT` unless `name` is `'cuda:<number>'`. */
export function deviceNumber(name: string): number {
  const number = /^cuda:(\d{1,4})$/.exec(name)?.[1];
  if (number !== undefined) return Number(number);
  throw argumentError(
    'BL_INVALID_ARGUMENT',
    `device is ${JSON.stringify(name)}, expected cpu, or cuda:0 and so on`,
  );
}

/**
 * The CUDA devices of this machine; none where there is no driver. {@link whyNoDevice} says why.
 *
 * @example
 * ```ts
 * for (const device of devices()) console.log(device.device, device.info().name);
 * ```
 */
export function devices(): Device[] {
  return Array.from({ length: native.deviceCount() }, (_, i) => new Device(`cuda:${i}`));
}

/** Why there is no CUDA device: no driver, `BITLOOM_CUDA=off`, built without CUDA; undefined if there is one. */
export function whyNoDevice(): string | undefined {
  return native.deviceUnavailable();
}

/**
 * Work of a device that runs in order. Operators take one as `{ stream }`; without, they use the device's default
 * stream. Streams run beside each other: {@link Stream.wait} orders them.
 */
export class Stream {
  /** @internal */
  readonly handle: NativeStream;

  constructor(readonly device: DeviceName = 'cuda:0') {
    this.handle = native.streamCreate(deviceNumber(device));
  }

  /** What is queued here from now on runs after what is queued on `other` by now. */
  wait(other: Stream): void {
    native.streamWait(deviceNumber(this.device), this.handle, other.handle);
  }

  /** Settles when what is queued by now has run; rejects with `BL_DEVICE_LOST` if it failed. */
  done(): Promise<void> {
    return native.streamDone(deviceNumber(this.device), this.handle);
  }

  /** {@link done}, blocking. */
  synchronize(): void {
    native.streamSynchronize(deviceNumber(this.device), this.handle);
  }
}

/** The graph that is being recorded: where calls go that name no stream, and what memory is made meanwhile. */
let recorded: { readonly stream: Stream; readonly memory: DeviceMemory[] } | undefined;

/** The stream of calls that name none, while a graph is recorded; else undefined, the device's own. @internal */
export function recordedStream(): Stream | undefined {
  return recorded?.stream;
}

/**
 * Operators that were recorded to be run again, all at once, on the same tensors.
 *
 * @example
 * ```ts
 * const graph = new Graph('cuda:0', () => matmul(x, w, { out: y }));
 * graph.launch(); // reads x and writes y as they are now
 * ```
 */
export class Graph {
  readonly #handle: NativeGraph;
  /** Of tensors that `body` made: recorded operators use it, whether anybody still knows the tensors or not. */
  readonly #memory: readonly DeviceMemory[];
  /** What `body` gave back. */
  readonly result: unknown;

  /**
   * @param body queues operators, those that name no stream; tensors that it did not make must live as long as the graph
   * @param stream where the graph runs, and whose operators are recorded too: nobody else may use it meanwhile. Default:
   *   it is recorded on a stream of its own, and runs on the device's
   * @throws `BL_UNSUPPORTED` for what gives a value to the host or takes one from it
   */
  constructor(
    readonly device: DeviceName,
    body: () => unknown,
    readonly stream?: Stream,
  ) {
    const number = deviceNumber(device);
    if (recorded !== undefined) {
      throw argumentError('BL_INVALID_ARGUMENT', 'Graph: graphs can not be nested');
    }
    const memory: DeviceMemory[] = [];
    // On the device's own stream, calls of worker threads would be recorded instead of run.
    const on = stream ?? new Stream(device);
    native.graphBegin(number, on.handle);
    recorded = { stream: on, memory };
    try {
      this.result = body();
    } catch (error) {
      // The stream must not stay in this state.
      try {
        native.graphFree(native.graphEnd(number, on.handle));
      } catch {} // an error that the first one brought about
      throw error;
    } finally {
      recorded = undefined;
    }
    this.#handle = native.graphEnd(number, on.handle);
    this.#memory = memory;
  }

  /**
   * Queues the recorded operators once more.
   *
   * @throws `BL_DETACHED` after dispose(), or a reset of the device
   */
  launch(stream: Stream | undefined = this.stream): void {
    native.graphLaunch(this.#handle, stream?.handle);
  }

  /** Lets go of it, of its scratch memory and of the tensors that `body` made. What is queued by now still runs. */
  dispose(): void {
    native.graphFree(this.#handle);
    for (const memory of this.#memory) memory.dispose();
  }

  /** {@link dispose}, for `using`. */
  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** A CUDA device. */
export class Device {
  readonly #number: number;

  /** @throws `BL_INVALID_ARGUMENT` for a name that is not `'cuda:<number>'` */
  constructor(readonly device: DeviceName) {
    this.#number = deviceNumber(device);
  }

  /** @throws `BL_NOT_FOUND` where there is no such device */
  info(): DeviceInfo {
    return native.deviceInfo(this.#number);
  }

  /** Settles when what is queued on the default stream by now has run. */
  done(): Promise<void> {
    return native.streamDone(this.#number);
  }

  /** {@link done}, blocking. */
  synchronize(): void {
    native.streamSynchronize(this.#number);
  }

  /** The most memory that bitloom may reserve; 0: no limit. What is kept beyond it is given back. */
  setMemoryLimit(bytes: number): void {
    native.setDeviceLimit(this.#number, bytes);
  }

  /** Seconds that `body`'s work took on the device. */
  async time(body: () => void, stream?: Stream): Promise<number> {
    const begin = native.eventRecord(this.#number, stream?.handle);
    body();
    const end = native.eventRecord(this.#number, stream?.handle);
    await native.streamDone(this.#number, stream?.handle);
    return native.eventElapsed(begin, end) / 1000;
  }

  /**
   * Begins anew after an error that the device does not recover from (`BL_DEVICE_LOST`). Its tensors are gone: using
   * them throws `BL_DETACHED`.
   */
  reset(): void {
    native.resetDevice(this.#number);
  }
}

/** Memory of a device, or a part of some. The last part that is freed frees the whole. */
export class DeviceMemory {
  #handle: NativeMemory | undefined;

  /** @internal */
  constructor(
    readonly device: DeviceName,
    handle: NativeMemory,
    readonly byteLength: number,
  ) {
    this.#handle = handle;
  }

  /** New memory, with no particular content. */
  static allocate(device: DeviceName, bytes: number): DeviceMemory {
    const handle = native.deviceAllocate(deviceNumber(device), bytes);
    const memory = new DeviceMemory(device, handle, bytes);
    recorded?.memory.push(memory);
    return memory;
  }

  get handle(): NativeMemory {
    if (this.#handle === undefined) {
      throw new BitloomError('BL_DETACHED', `${this.device}: memory used after dispose()`);
    }
    return this.#handle;
  }

  /** The rest of it from byte `offset` on. */
  from(offset: number): DeviceMemory {
    const handle = native.deviceSlice(this.handle, offset);
    return new DeviceMemory(this.device, handle, this.byteLength - offset);
  }

  /** Lets go of it. */
  dispose(): void {
    if (this.#handle === undefined) return;
    native.deviceFree(this.#handle);
    this.#handle = undefined;
  }
}

// Copied to a device at a time: 16 MB take some milliseconds, after which the event loop gets its turn.
const uploadBytes = 16 << 20;

/** Copies `bytes` to the device; what is given may change as soon as the promise settles. */
export async function upload(memory: DeviceMemory, bytes: Uint8Array): Promise<void> {
  const total = bytes.byteLength;
  for (let at = 0; at < total; at += uploadBytes) {
    if (bytes.byteLength !== total) {
      throw new BitloomError('BL_DETACHED', `${memory.device}: the data went away during its copy`);
    }
    const part = bytes.subarray(at, at + uploadBytes);
    native.deviceUpload(
      at === 0 ? memory.handle : memory.from(at).handle,
      part,
      recordedStream()?.handle,
    );
    if (at + uploadBytes < total) await new Promise((next) => setImmediate(next));
  }
}
