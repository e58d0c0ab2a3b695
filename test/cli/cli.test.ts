import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { main } from '../../lib/cli/main.js';
import { formatBytes, formatTable } from '../../lib/cli/text.js';
import { compileLibrary } from '../compiled.js';
import { tinyModel } from '../nn/models.js';

/** Runs a command line in this process. */
async function run(...args: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  let stdout = '';
  let stderr = '';
  const code = await main(args, {
    stdout: { write: (text) => (stdout += text) },
    stderr: { write: (text) => (stderr += text) },
  });
  return { code, stdout, stderr };
}

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'bitloom-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

describe('bitloom', () => {
  it('--help names the commands, and each has help', async () => {
    const { code, stdout } = await run('--help');
    expect(code).toBe(0);
    for (const command of ['generate', 'quantize', 'info', 'build']) {
      expect(stdout).toContain(command);
      const help = await run(command, '--help');
      expect(help.code).toBe(0);
      expect(help.stdout).toContain(`Usage: bitloom ${command}`);
    }
  });

  it.each([
    [['nonsense'], "unknown command 'nonsense'"],
    [['generate', tinyModel], "missing required argument 'prompt'"],
    [['generate', tinyModel, 'x', '--threads', 'many'], 'It is not a whole number.'],
    [
      ['generate', tinyModel, 'x', '--threads', '0'],
      'bitloom: setThreads: threads is 0, expected 1 to 256',
    ],
    [['generate', '/no/such.gguf', 'x'], '/no/such.gguf'],
    [['generate', tinyModel, 'x', '--format', 'q9'], 'format is "q9", expected e.g. q4_0'],
    [
      ['generate', tinyModel, 'x', '--method', 'best'],
      '--method is "best", expected minmax or mse',
    ],
    [['generate', tinyModel, 'x', '--activations', 'i4'], 'activations is "i4"'],
    [
      ['generate', tinyModel, 'x', '--context', '100000'],
      'contextLength is 100000, expected 1 to 512',
    ],
    [['generate', tinyModel, 'x', '--temperature', '-1'], 'temperature'],
    [['generate', tinyModel, 'a\ud800'], 'lone surrogate'],
    [['quantize', tinyModel, '/no/such/folder/out.gguf', '--format', 'q4_0'], 'ENOENT'],
    [['quantize', tinyModel, 'out.gguf'], "required option '-f, --format <name>' not specified"],
    [['info', '/no/such.gguf'], '/no/such.gguf'],
  ])('%j: one line, exit code 1', async (args, message) => {
    const { code, stdout, stderr } = await run(...args);
    expect(code).toBe(1);
    expect(stdout).toBe('');
    expect(stderr).toContain(message);
    expect(stderr).not.toMatch(/\n\s+at /);
    const lines = stderr
      .trim()
      .split('\n')
      .filter((line) => /^(bitloom|error): /.test(line));
    expect(lines).toHaveLength(1);
  });

  it('a damaged file: one line', async () => {
    const path = join(folder, 'damaged.gguf');
    writeFileSync(path, 'GGUF\x03\0\0\0');
    const { code, stderr } = await run('info', path);
    expect(code).toBe(1);
    expect(stderr).toMatch(/^bitloom: readGGUF: .*\n$/);
  });
});

describe('bitloom generate', () => {
  it('text to standard output, the rest to standard error', async () => {
    const { code, stdout, stderr } = await run(
      'generate',
      tinyModel,
      'Once upon a time',
      '-n',
      '12',
    );
    expect(code).toBe(0);
    expect(stdout).toMatch(/^[\s\S]{20,}\n$/);
    expect(stderr).toMatch(/loaded .* in \d+\.\d\d s: llama, 6 layers of 128, 1.2 million weights/);
    expect(stderr).toMatch(/kernels \(\w+, \d+ threads\): matmul_\w+ x 43 for q8_0/);
    expect(stderr).toMatch(/prompt: 5 tokens, [\d.]+ tokens\/s/);
    expect(stderr).toMatch(/generated: 12 tokens, [\d.]+ tokens\/s \(as many as asked for\)/);
    expect(stderr).toMatch(/peak memory: [\d.]+ MB/);
  });

  it('--quiet, --format, sampling with a seed', async () => {
    const args = [
      'generate',
      tinyModel,
      'Once',
      '-n',
      '20',
      '-f',
      'u4_g128',
      '--temperature',
      '1',
      '-q',
    ];
    const first = await run(
      ...args,
      '--seed',
      '7',
      '--top-k',
      '50',
      '--top-p',
      '0.9',
      '--min-p',
      '0.01',
    );
    const second = await run(
      ...args,
      '--seed',
      '7',
      '--top-k',
      '50',
      '--top-p',
      '0.9',
      '--min-p',
      '0.01',
    );
    expect(first.stderr).toBe('');
    expect(first.stdout.length).toBeGreaterThan(20);
    expect(second.stdout).toBe(first.stdout);
    expect((await run(...args, '--seed', '8')).stdout).not.toBe(first.stdout);
  });

  it('--json gives one object', async () => {
    const { stdout } = await run(
      'generate',
      tinyModel,
      'Once upon a time',
      '-n',
      '8',
      '--json',
      '-q',
      '--stop',
      'zzz',
    );
    const result = JSON.parse(stdout);
    expect(result.tokens).toHaveLength(8);
    expect(result).toMatchObject({ finishReason: 'length', stats: { tokens: 8, promptTokens: 5 } });
    expect(result.kernels[0]).toMatchObject({ format: 'q8_0', layers: 43 });
    expect(result.text.length).toBeGreaterThan(8);
  });
});

describe('bitloom quantize and info', () => {
  it('writes a file that says what it is and generates', async () => {
    const out = join(folder, 'small.gguf');
    const { code, stderr } = await run(
      'quantize',
      tinyModel,
      out,
      '-f',
      'u4_g64',
      '--embedding',
      'q8_0',
      '--method',
      'mse',
    );
    expect(code).toBe(0);
    expect(stderr).toMatch(/tiny\.gguf \(1\.\d+ MB\) -> .*small\.gguf \([\d.]+ kB\) in/);
    expect(statSync(out).size).toBeLessThan(statSync(tinyModel).size * 0.65);
    const info = await run('info', out, '--tensors');
    expect(info.stdout).toMatch(/general\.architecture +llama/);
    expect(info.stdout).toMatch(/u4_g64 +42 +\d+/);
    expect(info.stdout).toMatch(/blk\.0\.ffn_up\.weight +u4_g64 +\[352,128\]/);
    expect((await run('generate', out, 'Once', '-n', '5', '-q')).code).toBe(0);
  });

  it('info without a file tells of the machine', async () => {
    const { code, stdout } = await run('info');
    expect(code).toBe(0);
    expect(stdout).toMatch(/instruction sets +scalar/);
    expect(stdout).toMatch(/q4_0 +matmul_\w+_i8_\w+ +matmul_\w+_f32_\w+/);
    const facts = JSON.parse((await run('info', '--json')).stdout);
    expect(facts.threads).toBeGreaterThan(0);
  });
});

describe('the script', () => {
  it('runs as a process, needs no addon for help, and ends with its exit code', async () => {
    const { folder: compiled, remove } = compileLibrary();
    const exec = promisify(execFile);
    try {
      const script = join(compiled, 'cli/main.js');
      const { stdout } = await exec(process.execPath, [
        script,
        'generate',
        tinyModel,
        'Once',
        '-n',
        '3',
      ]);
      expect(stdout.length).toBeGreaterThan(3);
      // With its door shut the addon can not be loaded: help must not try.
      writeFileSync(
        join(compiled, 'native.js'),
        'export let native; throw new Error("no binary");\n',
      );
      expect((await exec(process.execPath, [script, '--help'])).stdout).toContain('Usage: bitloom');
      expect((await exec(process.execPath, [script, 'build', '--help'])).stdout).toContain(
        'compile',
      );
      await expect(exec(process.execPath, [script, 'info'])).rejects.toMatchObject({
        code: 1,
        stderr: 'bitloom: no binary\n',
      });
    } finally {
      remove();
    }
  });
});

it('formats bytes and tables', () => {
  expect([0, 999, 1000, 12345, 1e9, 2.5e13].map(formatBytes)).toEqual([
    '0 B',
    '999 B',
    '1.00 kB',
    '12.3 kB',
    '1.00 GB',
    '25.0 TB',
  ]);
  expect(
    formatTable([
      ['a', 1],
      ['bcd', 22],
    ]),
  ).toBe('a     1\nbcd  22\n');
});
