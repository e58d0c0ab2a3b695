// The one door to the addon: loads it and types what it exports.
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { BitloomError } from './errors.js';
import { packageRoot } from './package_root.js';

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
  matmulKernel(...values: NativeValue[]): string | undefined;
  describe(): NativeDescription;
  machine(): { version: string; isaAvailable: number; isaActive: number; threads: number };
  setIsa(isa: number): void;
  setThreads(threads: number): void;
  weightsBytes(format: number, rows: number, cols: number): number;
  detach(buffer: ArrayBuffer): void;
  mapFile(path: string): NativeMappedFile;
}

function load(): Native {
  const require = createRequire(join(packageRoot, 'package.json'));
  try {
    return require('node-gyp-build')(packageRoot) as Native;
  } catch (cause) {
    throw new BitloomError(
      'BL_NOT_FOUND',
      `bitloom: no binary for ${process.platform}-${process.arch} in ${packageRoot}. ` +
        'Build one with: npx bitloom build (needs g++ and CMake)',
      { cause },
    );
  }
}

export const native: Native = load();
