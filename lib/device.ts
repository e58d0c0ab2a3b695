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
  /** What `body` gave back: tensors must live as long as the graph. */
  readonly result: unknown;

  /**
   * @param body queues operators on `stream` (default: the device's own), and gives back the tensors that it made
   * @throws `BL_UNSUPPORTED` for what gives a value to the host or takes one from it
   */
  constructor(
    readonly device: DeviceName,
    body: () => unknown,
    readonly stream?: Stream,
  ) {
    const number = deviceNumber(device);
    native.graphBegin(number, stream?.handle);
    let handle: NativeGraph | undefined;
    try {
      this.result = body();
    } finally {
      // Also after an error in body: the stream must not stay in this state.
      handle = native.graphEnd(number, stream?.handle);
    }
    this.#handle = handle;
  }

  /** Queues the recorded operators once more. */
  launch(stream: Stream | undefined = this.stream): void {
    native.graphLaunch(this.#handle, stream?.handle);
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
    return new DeviceMemory(device, native.deviceAllocate(deviceNumber(device), bytes), bytes);
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
    native.deviceUpload(at === 0 ? memory.handle : memory.from(at).handle, part);
    if (at + uploadBytes < total) await new Promise((next) => setImmediate(next));
  }
}
