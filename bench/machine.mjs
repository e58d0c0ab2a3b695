// What was measured on: features, not names of hosts.
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import os from 'node:os';
import { bitloom, root } from './native.mjs';
import { cacheSizes } from './roofs.mjs';

const interesting = [
  'avx2',
  'fma',
  'avx_vnni',
  'avx512f',
  'avx512_vnni',
  'avx512vbmi',
  'avx512_bf16',
  'avx512_fp16',
  'amx_tile',
  'amx_int8',
  'amx_bf16',
];

function processorFlags() {
  if (!existsSync('/proc/cpuinfo')) return [];
  const line = /^flags\s*:(.*)$/m.exec(readFileSync('/proc/cpuinfo', 'utf8'))?.[1] ?? '';
  const flags = new Set(line.trim().split(/\s+/));
  return interesting.filter((flag) => flags.has(flag));
}

/** { features, isa, threads, caches, memory_bytes, node, bitloom }. */
export function machineFacts() {
  const { version, isaAvailable, threads } = bitloom.machine();
  return {
    architecture: process.arch,
    features: processorFlags(),
    isa: isaAvailable,
    threads,
    caches: cacheSizes(),
    memory_bytes: os.totalmem(),
    load_average: os.loadavg()[0],
    node: process.versions.node,
    bitloom: version,
  };
}

/** The commit that was measured, with "+changes" if files differ from it; "unknown" outside a checkout. */
export function commit() {
  try {
    const git = (...options) =>
      execFileSync('git', options, {
        cwd: root,
        encoding: 'utf8',
        stdio: ['ignore', 'pipe', 'ignore'],
      }).trim();
    return git('rev-parse', 'HEAD') + (git('status', '--porcelain') === '' ? '' : '+changes');
  } catch {
    return 'unknown';
  }
}
