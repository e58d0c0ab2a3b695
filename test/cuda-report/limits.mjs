// What a multiprocessor holds, by architecture: "Technical specifications per compute capability" of NVIDIA's CUDA C++
// Programming Guide (13.0). Every multiprocessor has 65,536 registers, given to warps in units of 256; shared memory is
// given in units of 128 bytes, with 1 KiB per block for the system.
export const architectures = {
  80: { warps: 64, blocks: 32, sharedBytes: 164 * 1024 },
  86: { warps: 48, blocks: 16, sharedBytes: 100 * 1024 },
  89: { warps: 48, blocks: 24, sharedBytes: 100 * 1024 },
  90: { warps: 64, blocks: 32, sharedBytes: 228 * 1024 },
  100: { warps: 64, blocks: 32, sharedBytes: 228 * 1024 },
  120: { warps: 48, blocks: 24, sharedBytes: 100 * 1024 },
};

const up = (value, unit) => Math.ceil(value / unit) * unit;

/**
 * Blocks and warps that one multiprocessor holds at a time, and what limits them ('registers', 'shared', 'warps' or
 * 'blocks'). `threads` and `sharedBytes` (static and dynamic) are of a block.
 */
export function occupancy(arch, { registers, threads, sharedBytes }) {
  const limits = architectures[arch];
  if (!limits) throw new RangeError(`occupancy: no limits of sm_${arch}`);
  const warps = Math.ceil(threads / 32);
  // Each of the four parts of a multiprocessor has a quarter of the registers and takes whole warps.
  const warpsByRegisters = registers
    ? 4 * Math.floor(16384 / up(Math.max(registers, 1) * 32, 256))
    : limits.warps;
  const bounds = {
    blocks: limits.blocks,
    warps: Math.floor(limits.warps / warps),
    registers: Math.floor(warpsByRegisters / warps),
    shared: Math.floor(limits.sharedBytes / (up(sharedBytes, 128) + 1024)),
  };
  const blocks = Math.min(...Object.values(bounds));
  const limit = Object.keys(bounds).find((name) => bounds[name] === blocks);
  return { blocks, warps: blocks * warps, fraction: (blocks * warps) / limits.warps, limit };
}
