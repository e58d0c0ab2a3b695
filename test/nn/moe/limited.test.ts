// Experts larger than memory: in a process that may use less than they take.
import { execFileSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  rmdirSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';

const root = join(import.meta.dirname, '../../..');
const main = join(root, 'dist/cjs/index.js');
const folder = mkdtempSync(join(tmpdir(), 'bitloom-limited-'));
const file = join(folder, 'experts');
const megabyte = 2 ** 20;

/** A group of processes that may use `bytes` of memory (cgroup v2 or v1), undefined where there are none to make. */
function memoryGroup(bytes: number): string | undefined {
  for (const [parent, limit] of [
    ['/sys/fs/cgroup', 'memory.max'],
    ['/sys/fs/cgroup/memory', 'memory.limit_in_bytes'],
  ] as const) {
    const group = join(parent, `bitloom-test-${process.pid}`);
    try {
      mkdirSync(group);
    } catch {
      continue; // not ours to make
    }
    try {
      if (!existsSync(join(group, limit))) throw new Error('no limit of memory here');
      writeFileSync(join(group, limit), String(bytes));
      return group;
    } catch {
      rmdirSync(group);
    }
  }
  return undefined;
}

const group = memoryGroup(400 * megabyte);
afterAll(() => {
  rmSync(folder, { recursive: true, force: true });
  if (group !== undefined) rmdirSync(group);
});

/** What limited.mjs says, run with a limit where `into` is a group. */
function run(into?: string): { each: number; before: number; after: number; zeros: boolean } {
  const script = join(import.meta.dirname, 'limited.mjs');
  const io = join(root, 'dist/cjs/io/index.js');
  const enter = into === undefined ? '' : `echo $$ > ${join(into, 'cgroup.procs')} && `;
  const command = `${enter}exec ${process.execPath} ${script} ${main} ${io} ${file}`;
  return JSON.parse(execFileSync('sh', ['-c', command], { encoding: 'utf8', timeout: 120_000 }));
}

describe('a mixture of 1.1 GB that is mapped', () => {
  // A file without blocks: zeros that take no disk.
  writeFileSync(file, '');
  truncateSync(file, 1100 * megabyte);

  it.skipIf(group === undefined)('runs in 400 MB (needs a group of processes)', () => {
    const { each, before, after, zeros } = run(group);
    expect(zeros).toBe(true);
    expect(before).toBeLessThan(megabyte);
    // Two experts, and what the system reads ahead.
    expect(after).toBeGreaterThan(each);
    expect(after).toBeLessThan(4 * each);
  });
});
