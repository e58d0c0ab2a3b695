// The report as a page.
import { gpus, matmulBound } from './roofline.mjs';

const table = (head, rows) =>
  [head, head.map(() => '---'), ...rows].map((cells) => `| ${cells.join(' | ')} |`).join('\n');
const shown = (value) => (value === null || value === undefined ? '-' : String(value));
const percent = (value) => (value === null ? '-' : `${Math.round(value * 1000) / 10}%`);

function kernelTable(kernels) {
  const head = [
    'module',
    'kernel',
    'sm',
    'registers',
    'local',
    'stack',
    'shared',
    'threads',
    'warps',
    'limit',
    'SASS',
    'loop',
    'mma',
    'per mma',
    'mix of the loop',
  ];
  return table(
    head,
    kernels.map((row) => [
      row.module,
      row.kernel,
      row.arch,
      row.registers,
      row.localInstructions,
      row.stackBytes,
      row.sharedBytes,
      row.threads || '-',
      row.warps === null ? '-' : `${row.warps} (${percent(row.occupancy)})`,
      shown(row.occupancyLimit),
      row.instructions,
      shown(row.loop?.instructions),
      shown(row.loop?.mma),
      shown(row.loop?.instructionsPerMma),
      row.loop
        ? Object.entries(row.loop.mix)
            .map(([kind, count]) => `${kind} ${count}`)
            .join(', ')
        : '-',
    ]),
  );
}

function dynamicTable(rows) {
  const head = [
    'kernel',
    'PTX',
    'launches',
    'warp instructions',
    'mma',
    'loads used',
    'stores used',
    'MB moved',
    'wavefronts / ideal',
    'of matrices',
    'never ran',
  ];
  return table(
    head,
    rows.map((row) => [
      row.kernel,
      row.target,
      row.launches,
      row.warpInstructions,
      row.mma,
      percent(row.loadBytesUsed),
      percent(row.storeBytesUsed),
      (row.bytesMoved / 1e6).toFixed(2),
      shown(row.wavefrontsPerIdeal),
      shown(row.matrixWavefrontsPerIdeal),
      row.neverExecuted,
    ]),
  );
}

function boundTable() {
  const size = 4096;
  const batches = [1, 16, 64, 256];
  const head = ['GPU', ...batches.map((m) => `M = ${m}`), 'peaks', 'source'];
  return table(
    head,
    gpus.map((gpu) => [
      gpu.name,
      ...batches.map((m) => {
        const { microseconds, limit, speedup } = matmulBound(gpu, {
          m,
          n: size,
          k: size,
          bits: 4,
          group: 128,
        });
        return `${microseconds.toFixed(1)} us, ${limit}, ${speedup.toFixed(2)} x`;
      }),
      `${gpu.half} TFLOPS f16, ${gpu.bandwidth} GB/s`,
      gpu.source,
    ]),
  );
}

/** The report as Markdown. */
export function markdown(report) {
  const megabytes = (bytes) => `${(bytes / 2 ** 20).toFixed(2)} MiB`;
  const total = report.images.reduce((sum, { bytes }) => sum + bytes, 0);
  return `# What the CUDA kernels are made of

Made by \`npm run cuda:report\`; do not edit. Nothing here is a measured time.

${report.images.length} images, ${megabytes(total)}, ${megabytes(report.compressedBytes)} as gzip packs them one by one.

## Machine code

Read from the cubins. \`local\`: instructions on local memory (spills and arrays in it); \`stack\`: bytes of it per thread.
\`shared\`: static bytes of a block, and dynamic ones where counters were given. \`warps\`: that a multiprocessor holds, and
which limit is met first; wants the block's size, from launch bounds or counters. \`SASS\`: instructions of the kernel;
\`loop\`: those of the loop with the most mma, or else of the innermost loop with the most memory accesses.

${kernelTable(report.kernels)}

## Executed

${
  report.dynamic.length > 0
    ? `Counted by the PTX interpreter over the test cases. \`used\`: distinct bytes that each request asked for, of those in the
32-byte sectors it moved. Wavefronts are passes over the banks of shared memory.

${dynamicTable(report.dynamic)}`
    : 'No counters were given (`--counters`).'
}

## Roofline bounds

A bound is the least time at the maker's peak figures, every byte moved once: no kernel can be faster, none is claimed to
reach it. Product of f16 activations (M x 4096) and weights (4096 x 4096) of 4 bits with f16 scales per 128, and how much
faster than the bound with f16 weights that is.

${boundTable()}

Published by their authors, for comparison: Marlin 3.87 x of f16 up to M = 16 to 32; FLUTE 2 to 4 x.
`;
}
