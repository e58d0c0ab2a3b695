// The one door to the addon: loads it and types what it exports.
import { createRequire } from 'node:module';
import { join } from 'node:path';
import type { DeviceInfo } from './device.js';
import { BitloomError } from './errors.js';
import { packageRoot } from './package_root.js';
import { applySavedTuning } from './saved_tuning.js';

/** A positional value of a native call; see native/node/arguments.h. */
export type NativeValue =
  | ArrayBufferView
  | NativeMemory
  | NativeStream
  | NativeExperts
  | number
  | bigint
  | undefined;
type NativeOperator = (...values: NativeValue[]) => void;

declare const kind: unique symbol;
/** Objects of native/node/device.h. */
export interface NativeMemory {
  readonly [kind]: 'memory';
}
export interface NativeStream {
  readonly [kind]: 'stream';
}
/** What createExperts() of native/node/experts.cc makes. */
export interface NativeExperts {
  readonly [kind]: 'experts';
}
/** What recordCalls() of native/node/call_list.cc makes. */
export interface NativeCalls {
  readonly [kind]: 'calls';
}
export interface NativeEvent {
  readonly [kind]: 'event';
}
export interface NativeGraph {
  readonly [kind]: 'graph';
}

/** Devices by number; without a stream, the device's default one. */
export interface NativeDevices {
  deviceCount(): number;
  deviceUnavailable(): string | undefined;
  deviceInfo(device: number): DeviceInfo;
  setDeviceLimit(device: number, bytes: number): void;
  resetDevice(device: number): void;
  deviceAllocate(device: number, bytes: number, stream?: NativeStream): NativeMemory;
  deviceSlice(memory: NativeMemory, offset: number): NativeMemory;
  deviceFree(memory: NativeMemory): void;
  deviceUpload(memory: NativeMemory, from: ArrayBufferView, stream?: NativeStream): void;
  deviceDownload(to: ArrayBufferView, memory: NativeMemory, stream?: NativeStream): void;
  deviceDownloadAsync(
    to: ArrayBufferView,
    memory: NativeMemory,
    stream?: NativeStream,
  ): Promise<void>;
  deviceCopy(to: NativeMemory, from: NativeMemory, bytes: number, stream?: NativeStream): void;
  streamCreate(device: number): NativeStream;
  streamSynchronize(device: number, stream?: NativeStream): void;
  streamDone(device: number, stream?: NativeStream): Promise<void>;
  streamWait(device: number, stream?: NativeStream, other?: NativeStream): void;
  eventRecord(device: number, stream?: NativeStream): NativeEvent;
  /** Milliseconds. */
  eventElapsed(begin: NativeEvent, end: NativeEvent): number;
  graphBegin(device: number, stream?: NativeStream): void;
  graphEnd(device: number, stream?: NativeStream): NativeGraph;
  graphLaunch(graph: NativeGraph, stream?: NativeStream): void;
  graphFree(graph: NativeGraph): void;
}

export interface NativeMappedFile {
  readonly size: number;
  /** An ArrayBuffer over bytes [offset, offset + length) of the mapping. */
  view(offset: number, length: number): ArrayBuffer;
  close(): void;
}

export interface NativeDescription {
  statuses: { name: string; jsClass: string }[];
  dtypes: { name: string; bytes: number; typedArray: string }[];
  isas: string[];
  ops: string[];
  formats: {
    name: string;
    kind: string;
    bits: number;
    groupSize: number;
    scaleDtype: number;
    hasZeroPoint: boolean;
    ggufType: number;
    blockElements: number;
    blockBytes: number;
  }[];
  kvFormats: { name: string; bits: number; scale: string }[];
}

export interface Native extends NativeDevices {
  quantize: NativeOperator;
  dequantize: NativeOperator;
  pack: NativeOperator;
  matmul: NativeOperator;
  embedding: NativeOperator;
  rmsNorm: NativeOperator;
  layerNorm: NativeOperator;
  rope: NativeOperator;
  softmax: NativeOperator;
  silu: NativeOperator;
  gelu: NativeOperator;
  swiglu: NativeOperator;
  add: NativeOperator;
  mul: NativeOperator;
  attention: NativeOperator;
  mergeStates: NativeOperator;
  moeRoute: NativeOperator;
  moeForward: NativeOperator;
  /** Of 15 values for each expert: gate, up, down and their biases. */
  createExperts(values: NativeValue[]): NativeExperts;
  /** The same but for experts `numbers[i]`, which become what `values`, of all experts, has for them. */
  replaceExperts(experts: NativeExperts, numbers: Int32Array, values: NativeValue[]): NativeExperts;
  freeExperts(experts: NativeExperts): void;
  kvAppend: NativeOperator;
  kvWrite: NativeOperator;
  kvGather: NativeOperator;
  nearestKeys: NativeOperator;
  linearAttention: NativeOperator;
  sample: NativeOperator;
  moePermute: NativeOperator;
  moeUnpermute: NativeOperator;
  groupedMatmul: NativeOperator;
  sdd: NativeOperator;
  dsd: NativeOperator;
  dds: NativeOperator;
  /** Runs calls[i] = [operator number, ...values] in order on a worker thread. */
  runAsync(calls: NativeValue[][] | NativeCalls, state?: Int32Array): Promise<void>;
  recordCalls(calls: NativeValue[][]): NativeCalls;
  runRecorded(calls: NativeCalls): void;
  freeRecorded(calls: NativeCalls): void;
  prepareActivations: NativeOperator;
  /** Which tables `matmul` would look up: bit b - 1 for planes of b bits. */
  matmulTables(...values: NativeValue[]): number;
  /** Bytes of prepared activations; 0 if they are too many. */
  preparedBytes(m: number, k: number, tables: number): number;
  matmulKernel(...values: NativeValue[]): string | undefined;
  matmulWorkspaceBytes(...values: NativeValue[]): number | undefined;
  moeForwardWorkspaceBytes(...values: NativeValue[]): number | undefined;
  describe(): NativeDescription;
  machine(): {
    version: string;
    isaAvailable: number;
    isasSupported: number[];
    isaActive: number;
    threads: number;
  };
  setIsa(isa: number): void;
  setThreads(threads: number): void;
  weightsBytes(format: number, layout: number, rows: number, cols: number): number;
  /** Bytes of one head in one page of a paged cache; 0 if there is no such page. */
  kvPageBytes(format: number, isValues: number, pageSize: number, dim: number): number;
  /** [lut rows by width of codes, tile rows by width of codes] at a level. */
  matmulTuning(isa: number): Int32Array;
  setMatmulTuning(isa: number, values: Int32Array | undefined): void;
  detach(buffer: ArrayBuffer): void;
  /** The address modulo 4096. */
  addressInPage(memory: Uint8Array): number;
  mapFile(path: string): NativeMappedFile;
}

/** The commands that make a binary, as the two errors of loading name them. */
const remedy = 'Build one for this machine with: npx bitloom build (needs g++ and CMake)';

function load(): Native {
  const require = createRequire(join(packageRoot, 'package.json'));
  const find = require('node-gyp-build') as { path(root: string): string };
  let file: string;
  try {
    file = find.path(packageRoot);
  } catch (cause) {
    throw new BitloomError(
      'BL_NOT_FOUND',
      `bitloom: no binary for ${process.platform}-${process.arch} in ${packageRoot}. ${remedy}`,
      { cause },
    );
  }
  try {
    return require(file) as Native;
  } catch (cause) {
    // The loader's own words: a C library older than the binary needs, another processor, a missing file.
    throw new BitloomError(
      'BL_UNSUPPORTED',
      `bitloom: ${file} does not load here: ${(cause as Error).message}. ${remedy}`,
      { cause },
    );
  }
}

export const native: Native = load();
applySavedTuning(native);
