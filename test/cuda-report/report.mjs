// npm run cuda:report: what the compiled kernels are made of, as report.json and report.md beside this file.
//   node test/cuda-report/report.mjs [--build build] [--images folder]... [--counters file]... [--out folder] [--opcodes] [--check]
// Images are <build>/cuda/images/<module>.sm_<arch>.cubin and <module>.compute_<arch>.ptx; counters are JSON files of the
// emulated driver (BITLOOM_CUDA_EMULATION_COUNTERS). --opcodes adds a histogram of machine instructions to each kernel. --check writes nothing and fails when a count got worse than the
// committed one, or a kernel has no line yet.
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { gzipSync } from 'node:zlib';
import { compare } from './compare.mjs';
import { readCubin } from './cubin.mjs';
import { occupancy } from './limits.mjs';
import { markdown } from './markdown.mjs';
import { decode, histogram, hotLoop, trim } from './sass.mjs';

const here = fileURLToPath(new URL('.', import.meta.url));
const byName = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
const round = (value) => Math.round(value * 1000) / 1000;

/** Counters of kernels, by name; those of several PTX targets are kept apart. */
function readCounters(files) {
  const rows = files.flatMap((file) => JSON.parse(readFileSync(file, 'utf8')).kernels);
  return rows.sort((a, b) => byName(a.kernel, b.kernel) || byName(a.target, b.target));
}

function loopOf(instructions) {
  const loop = hotLoop(instructions);
  if (!loop) return null;
  const { length } = loop.instructions;
  return {
    instructions: length,
    mma: loop.mma,
    instructionsPerMma: loop.mma ? round(length / loop.mma) : null,
    mix: histogram(loop.instructions, 'kind'),
  };
}

function kernelRow(module, arch, kernel, counters) {
  const instructions = trim(decode(kernel.code, arch));
  const launched = counters.filter((row) => row.kernel === kernel.name);
  // The source's launch bounds, else the largest block that was launched.
  const threads = kernel.maxThreads || Math.max(0, ...launched.map((row) => row.threads));
  const dynamic = Math.max(0, ...launched.map((row) => row.dynamicSharedBytes));
  const sharedBytes = kernel.sharedBytes + dynamic;
  const held = threads
    ? occupancy(arch, { registers: kernel.registers, threads, sharedBytes })
    : null;
  const opcodes = histogram(instructions);
  // No kernel converts so. ptxas 13.0 makes it of a conversion to f16 whose low byte is stored, which then is another.
  if (opcodes['F2I.U8.F16'])
    throw new Error(`${kernel.name} has F2I.U8.F16: a byte of an f16 is lost`);
  return {
    module,
    kernel: kernel.name,
    arch,
    registers: kernel.registers,
    localInstructions: (opcodes.LDL ?? 0) + (opcodes.STL ?? 0),
    stackBytes: kernel.stackBytes,
    sharedBytes,
    threads,
    warps: held?.warps ?? null,
    occupancy: held ? round(held.fraction) : null,
    occupancyLimit: held?.limit ?? null,
    instructions: instructions.length,
    loop: loopOf(instructions),
    opcodes,
  };
}

function dynamicRow(row) {
  const part = (used, moved) => (moved ? round(used / moved) : null);
  return {
    kernel: row.kernel,
    target: row.target,
    launches: row.launches,
    warpInstructions: row.warpInstructions,
    mma: row.mma,
    loadBytesUsed: part(row.globalLoads.usedBytes, row.globalLoads.movedBytes),
    storeBytesUsed: part(row.globalStores.usedBytes, row.globalStores.movedBytes),
    bytesMoved: row.globalLoads.movedBytes + row.globalStores.movedBytes,
    wavefrontsPerIdeal: part(row.wavefronts, row.idealWavefronts),
    matrixWavefrontsPerIdeal: part(row.matrixWavefronts, row.idealMatrixWavefronts),
    neverExecuted: row.neverExecuted,
  };
}

/** The whole report of some folders of images. */
export function makeReport(folders, counterFiles) {
  const counters = readCounters(counterFiles);
  const report = { kernels: [], images: [], dynamic: counters.map(dynamicRow) };
  const packed = [];
  for (const folder of folders) {
    for (const file of readdirSync(folder).sort()) {
      const parts = /^(.+)\.(sm|compute)_(\d+)\.(cubin|ptx)$/.exec(file);
      if (!parts) continue;
      const data = readFileSync(join(folder, file));
      packed.push(data);
      report.images.push({ image: file, bytes: data.length });
      if (parts[4] !== 'cubin') continue;
      const arch = Number(parts[3]);
      try {
        for (const kernel of readCubin(data))
          report.kernels.push(kernelRow(parts[1], arch, kernel, counters));
      } catch (error) {
        throw new Error(`${join(folder, file)}: ${error.message}`);
      }
    }
  }
  report.kernels.sort(
    (a, b) => byName(a.module, b.module) || byName(a.kernel, b.kernel) || a.arch - b.arch,
  );
  report.images.sort((a, b) => byName(a.image, b.image));
  report.compressedBytes = packed.reduce(
    (sum, data) => sum + gzipSync(data, { level: 9 }).length,
    0,
  );
  return report;
}

/**
 * JSON with one kernel per line, so that a change of one count is a change of one line; histograms of opcodes only
 * where they are asked for.
 */
export function toJson(report, withOpcodes = false) {
  const kept = (key, value) => (key === 'opcodes' && !withOpcodes ? undefined : value);
  const list = (rows) => rows.map((row) => `    ${JSON.stringify(row, kept)}`).join(',\n');
  return `{\n  "kernels": [\n${list(report.kernels)}\n  ],\n  "dynamic": [\n${list(report.dynamic)}\n  ]\n}\n`;
}

function main() {
  const { values } = parseArgs({
    options: {
      build: { type: 'string', default: 'build' },
      images: { type: 'string', multiple: true },
      counters: { type: 'string', multiple: true, default: [] },
      out: { type: 'string', default: here },
      opcodes: { type: 'boolean', default: false },
      check: { type: 'boolean', default: false },
    },
  });
  const report = makeReport(
    values.images ?? [join(values.build, 'cuda', 'images')],
    values.counters,
  );
  if (report.kernels.length === 0)
    throw new Error('no images: build with nvcc first, or name a folder with --images');
  if (!values.check) {
    writeFileSync(join(values.out, 'report.json'), toJson(report, values.opcodes));
    writeFileSync(join(values.out, 'report.md'), markdown(report));
    console.log(`${report.kernels.length} kernels: ${join(values.out, 'report.md')}`);
    return;
  }
  const { worse, better } = compare(
    JSON.parse(readFileSync(join(values.out, 'report.json'), 'utf8')),
    report,
  );
  for (const line of better) console.log(`better: ${line}`);
  for (const line of worse) console.error(`WORSE: ${line}`);
  console.log(`${report.kernels.length} kernels, ${worse.length} worse, ${better.length} better`);
  if (worse.length > 0) process.exitCode = 1;
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  try {
    main();
  } catch (error) {
    console.error(`cuda:report: ${error.message}`);
    process.exitCode = 1;
  }
}
