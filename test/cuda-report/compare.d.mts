import type { Report } from './report.mjs';
export function compare(
  committed: Pick<Report, 'kernels' | 'dynamic'>,
  current: Pick<Report, 'kernels' | 'dynamic'>,
): { worse: string[]; better: string[] };
