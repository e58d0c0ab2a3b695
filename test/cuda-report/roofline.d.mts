export interface Gpu {
  name: string;
  arch: number;
  half: number;
  integer8: number;
  fp8: number;
  bandwidth: number;
  multiprocessors: number;
  clock: number;
  source: string;
}
export const gpus: Gpu[];
export function bound(
  gpu: Gpu,
  work: {
    bytes: number;
    operations?: number;
    kind?: 'half' | 'integer8' | 'fp8';
    wavefronts?: number;
  },
): { microseconds: number; limit: string } | null;
export function matmulBound(
  gpu: Gpu,
  shape: { m: number; n: number; k: number; bits: number; group: number },
): { microseconds: number; limit: string; speedup: number };
