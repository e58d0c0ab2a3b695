// The one door to the addon: loads it and types what it exports.
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { BitloomError } from './errors.js';
import { packageRoot } from './package_root.js';
import { applySavedTuning } from './saved_tuning.js';

/** A positional value of a native call; see native/node/arguments.h. */
export type NativeValue = ArrayBufferView | number | bigint | undefined;
type NativeOperator = (...values: NativeValue[]) => void;

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
}

export interface Native {
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
  sample: NativeOperator;
  /** Runs calls[i] = [operator number, ...values] in order on a worker thread. */
  runAsync(calls: NativeValue[][], state?: Int32Array): Promise<void>;
  prepareActivations: NativeOperator;
  /** Which tables `matmul` would look up: bit b - 1 for planes of b bits. */
  matmulTables(...values: NativeValue[]): number;
  /** Bytes of prepared activations; 0 if they are too many. */
  preparedBytes(m: number, k: number, tables: number): number;
  matmulKernel(...values: NativeValue[]): string | undefined;
  matmulWorkspaceBytes(...values: NativeValue[]): number | undefined;
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
  /** [lut rows by width of codes, tile rows by width of codes] at a level. */
  matmulTuning(isa: number): Int32Array;
  setMatmulTuning(isa: number, values: Int32Array | undefined): void;
  detach(buffer: ArrayBuffer): void;
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
