export interface CubinKernel {
  name: string;
  registers: number;
  stackBytes: number;
  sharedBytes: number;
  maxThreads: number;
  parameterBytes: number;
  code: Buffer;
}
export function readCubin(file: Buffer): CubinKernel[];
