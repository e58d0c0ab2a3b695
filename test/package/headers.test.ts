// Each header compiles alone; the C header is C99, and a C program can link the library.
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { includeDir, libraryPath } from '../../lib/paths.js';
import { files, root, text } from './tree.js';

const require = createRequire(import.meta.url);
const { findTools } = require('../../native/toolchain.cjs') as {
  findTools(): { compiler: string };
};
const nodeApi = ['node-api-headers/include', 'node-addon-api'].map((path) => {
  const [name = '', ...rest] = path.split('/');
  return join(dirname(require.resolve(`${name}/package.json`)), ...rest);
});
const c = process.env.CC ?? 'cc';

describe('headers', () => {
  it('each C++ header compiles alone', () => {
    // What has no guard is a part of an instruction set's region, included between its begin and end.
    const all = files.filter((file) => /^native\/.*\.h$/.test(file));
    const headers = all.filter((file) => /^#(pragma once|ifndef \w+_H)/m.test(text(file)));
    const parts = all.filter((file) => !headers.includes(file));
    expect(parts.filter((file) => !file.startsWith('native/isa/'))).toEqual([]);
    expect(headers.length).toBeGreaterThan(10);
    const result = spawnSync(
      findTools().compiler,
      [
        ...['-std=c++20', '-fsyntax-only', '-Wall', '-Wextra', '-Wno-pragma-once-outside-header'],
        ...nodeApi.flatMap((folder) => ['-isystem', folder]),
        ...['-x', 'c++', ...headers],
      ],
      { cwd: root, encoding: 'utf8' },
    );
    const complaints = result.stderr
      .split('\n')
      .filter((line) => /error|warning/.test(line) && !/pragma once in main file/.test(line));
    expect(complaints).toEqual([]);
    expect(result.status).toBe(0);
  });

  it('bitloom.h is C99, and a C program links the library and runs an operator', () => {
    const folder = mkdtempSync(join(tmpdir(), 'bitloom-c-'));
    try {
      const library = libraryPath();
      const program = join(folder, 'matmul');
      execFileSync(c, [
        ...['-std=c99', '-pedantic', '-Wall', '-Wextra', '-Werror', '-I', includeDir],
        ...[join(root, 'test/native/matmul.c'), library, `-Wl,-rpath,${dirname(library)}`],
        ...['-o', program],
      ]);
      const result = spawnSync(program, { encoding: 'utf8' });
      expect(result.stderr).toBe('');
      expect(result.status).toBe(0);
      expect(result.stdout).toMatch(/^\d+\.\d+\.\d+\nmatmul: b\.cols is 2, expected 3/);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});
