export const architectures: Record<number, { warps: number; blocks: number; sharedBytes: number }>;
export function occupancy(
  arch: number,
  kernel: { registers: number; threads: number; sharedBytes: number },
): { blocks: number; warps: number; fraction: number; limit: string };
