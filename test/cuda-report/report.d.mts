export interface KernelRow {
  module: string;
  kernel: string;
  arch: number;
  registers: number;
  localInstructions: number;
  stackBytes: number;
  sharedBytes: number;
  threads: number;
  warps: number | null;
  occupancy: number | null;
  occupancyLimit: string | null;
  instructions: number;
  loop: {
    instructions: number;
    mma: number;
    instructionsPerMma: number | null;
    mix: Record<string, number>;
  } | null;
  opcodes: Record<string, number>;
}
export interface DynamicRow {
  kernel: string;
  target: string;
  launches: number;
  warpInstructions: number;
  mma: number;
  loadBytesUsed: number | null;
  storeBytesUsed: number | null;
  bytesMoved: number;
  wavefrontsPerIdeal: number | null;
  matrixWavefrontsPerIdeal: number | null;
  neverExecuted: number;
}
export interface Report {
  kernels: KernelRow[];
  images: { image: string; bytes: number }[];
  dynamic: DynamicRow[];
  compressedBytes: number;
}
export function makeReport(folders: string[], counterFiles: string[]): Report;
export function toJson(report: Report, withOpcodes?: boolean): string;
