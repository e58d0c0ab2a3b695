// The bench runs, and its JSON has the documented form. No figure is judged here: tests are not timed.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

const root = fileURLToPath(new URL('../..', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'bitloom-bench-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const bench = (script: string, ...options: string[]): string =>
  execFileSync(process.execPath, [join(root, 'bench', script), ...options], {
    cwd: root,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
  });

interface Result {
  op: string;
  algorithm: string;
  threads: number;
  median_us: number;
  p10_us: number;
  p90_us: number;
  bytes: number;
  floor_us: number;
  floor_ratio: number;
  bound: string;
  error: number;
}
interface Report {
  machine: { isa: string };
  roofs: {
    read: { bytes_per_second: number; median: number }[];
    multiply: { operations_per_second: number; median: number }[];
  };
  results: Result[];
}

describe('npm run bench', () => {
  let report: Report;
  let page: string;

  // The first call builds the bench's addon: seconds to a minute.
  beforeAll(() => {
    const json = join(folder, 'tiny.json');
    const html = join(folder, 'tiny.html');
    bench(
      'run.mjs',
      '--tiny',
      '--threads',
      '1,2',
      '--check-schema',
      '--json',
      json,
      '--html',
      html,
    );
    report = JSON.parse(readFileSync(json, 'utf8'));
    page = readFileSync(html, 'utf8');
  }, 300_000);

  it('covers every operator, with sane figures', () => {
    const operators = readFileSync(join(root, 'native/ops/ops.inc'), 'utf8').matchAll(
      /^BL_OP\((\w+),/gm,
    );
    const measured = new Set(report.results.map((result) => result.op));
    expect([...operators].map(([, name]) => name).filter((name) => !measured.has(name!))).toEqual(
      [],
    );
    for (const result of report.results) {
      expect(result.p10_us).toBeGreaterThan(0);
      expect(result.median_us).toBeGreaterThanOrEqual(result.p10_us);
      expect(result.p90_us).toBeGreaterThanOrEqual(result.median_us);
      expect(result.floor_us).toBeGreaterThan(0);
      expect(result.floor_ratio).toBeCloseTo(result.floor_us / result.median_us, 9);
      expect(['memory', 'compute']).toContain(result.bound);
    }
  });

  it('names the kernel that ran, and its error against float64', () => {
    const matmul = report.results.filter((result) => result.op === 'matmul');
    expect(matmul.length).toBeGreaterThan(0);
    for (const { algorithm, error } of matmul) {
      expect(algorithm).toMatch(/^matmul_(lut|dequant|tile)_(f32|i8|bf16)_/);
      // i8: rounding activations to 127 steps; bf16: weights and activations to 8 bits; f32: rounding of the sums.
      const [, , compute] = algorithm.split('_');
      expect(error).toBeLessThan({ i8: 2e-2, bf16: 1e-2, f32: 1e-6 }[compute as string] as number);
    }
  });

  it('measures roofs of memory and multiply-adds', () => {
    expect(report.roofs.read.length).toBeGreaterThan(0);
    expect(report.roofs.multiply.length).toBeGreaterThan(0);
    for (const roof of report.roofs.read) {
      expect(roof.median).toBeGreaterThan(0);
      expect(roof.bytes_per_second).toBeGreaterThanOrEqual(roof.median);
    }
  });

  it('writes a page without references to other files', () => {
    expect(page).toMatch(/^<!doctype html>/);
    expect(page).toContain('<svg');
    expect(page).toContain('prefers-color-scheme: dark');
    expect(page).not.toMatch(/(src|href)="(?!#)/);
  });

  it('tells a wrong report from a right one', async () => {
    const schema = '../../bench/schema.mjs';
    const { problems } = (await import(schema)) as { problems(report: unknown): string[] };
    expect(problems(report)).toEqual([]);
    const [first, ...rest] = report.results;
    const swapped = { ...first, p10_us: first!.p90_us + 1 };
    expect(problems({ ...report, results: [swapped, ...rest] })).toEqual([
      'results[0]: p10, median, p90 are not in order',
    ]);
    expect(problems({ ...report, results: [] })).toEqual(['results is empty']);
  });
});

describe('bench/run.mjs', () => {
  it('lists the cases of a filter without running them', () => {
    const lines = bench('run.mjs', '--list', '--filter', 'matmul q4_0 4096x4096')
      .trim()
      .split('\n');
    expect(lines).toContain('matmul q4_0 4096x4096 i8 M=1');
    expect(lines.every((line) => line.startsWith('matmul q4_0 4096x4096'))).toBe(true);
  });
});
