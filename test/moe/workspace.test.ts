// moeForward with memory of the caller's: no allocation (counted by a C++ program), the same bits, errors.
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import {
  type MoEExpert,
  MoEExperts,
  moeForward,
  moeForwardAsync,
  moeForwardWorkspaceBytes,
  Tensor,
} from '../../lib/index.js';
import { includeDir, libraryPath } from '../../lib/paths.js';
import { expectError } from '../reference/op_checks.js';
import { firstDifference, gaussian } from '../reference/random.js';
import { expertsOf, f32, routesOf } from './cases.js';

const require = createRequire(import.meta.url);
const { findTools } = require('../../native/toolchain.cjs') as {
  findTools(): { compiler: string };
};

const sizes = { hidden: 64, width: 96, count: 4, topK: 2, seed: 11, tokens: 0 };

describe('moeForward with a workspace', () => {
  // A sanitizer has allocators of its own; the program runs at every level in any case.
  it.skipIf(
    process.env.LD_PRELOAD?.includes('san') === true || process.env.BITLOOM_ISA !== undefined,
  )(
    'allocates nothing, wherever the tokens go',
    () => {
      const folder = mkdtempSync(join(tmpdir(), 'bitloom-moe-'));
      try {
        const library = libraryPath();
        const program = join(folder, 'moe_workspace_test');
        const tests = join(import.meta.dirname, '../native');
        execFileSync(findTools().compiler, [
          ...['-std=c++20', '-O1', '-Wall', '-Wextra', '-Werror', '-I', includeDir, '-I', tests],
          ...[join(tests, 'moe_workspace_test.cc'), library, `-Wl,-rpath,${dirname(library)}`],
          ...['-o', program],
        ]);
        const result = spawnSync(program, { encoding: 'utf8' });
        expect(result.stderr).toBe('');
        expect(result.stdout).toMatch(/\n\d{4} passed, 0 failed\n$/);
        expect(result.status).toBe(0);
      } finally {
        rmSync(folder, { recursive: true });
      }
    },
    300_000,
  );

  it('gives the same bits, on a worker thread too; too little of it does no harm', async () => {
    const experts = new MoEExperts(expertsOf(sizes, () => 'q4_0'));
    const x = f32(gaussian(5 * 64, 3), [5, 64]);
    const routes = routesOf({ ...sizes, tokens: 5 });
    const expected = moeForward(x, routes, experts);
    const bytes = moeForwardWorkspaceBytes(x, routes, experts);
    expect(bytes).toBeGreaterThan(0);
    for (const size of [bytes, Math.floor(bytes / 2), 1]) {
      const workspace = Tensor.zeros('u8', [size]);
      for (const y of [
        moeForward(x, routes, experts, { workspace }),
        await moeForwardAsync(x, routes, experts, { workspace }),
      ]) {
        expect(firstDifference(y.data, expected.data)).toBe(-1);
      }
    }
  });

  it('is little where tokens go nowhere', () => {
    const experts = new MoEExperts(expertsOf(sizes, () => 'q4_0'));
    const x = f32(gaussian(64, 3), [1, 64]);
    const nowhere = { indices: Tensor.zeros('i32', [1, 0]), weights: Tensor.zeros('f32', [1, 0]) };
    for (const own of [experts, new MoEExperts([])]) {
      const bytes = moeForwardWorkspaceBytes(x, nowhere, own);
      expect(bytes).toBeGreaterThan(0);
      expect(bytes).toBeLessThan(4096);
      const workspace = Tensor.zeros('u8', [bytes]);
      expect(moeForward(x, nowhere, own, { workspace }).toArray()).toEqual(new Array(64).fill(0));
    }
  });

  it('refuses memory of its tensors', () => {
    const experts = new MoEExperts(expertsOf(sizes, () => 'q4_0'));
    const x = f32(gaussian(64, 3), [1, 64]);
    const routes = routesOf({ ...sizes, tokens: 1 });
    const out = Tensor.zeros('f32', [1, 64]);
    for (const [name, tensor] of Object.entries({ x, out, indices: routes.indices })) {
      const workspace = new Tensor('u8', tensor.bytes.subarray(4), [4]);
      expectError(
        () => moeForward(x, routes, experts, { out, workspace }),
        'BL_INVALID_ARGUMENT',
        `moeForward: workspace overlaps ${name}, expected memory apart from it`,
      );
    }
    // A token more than experts, so that these are looked at by number, and one, so that they are by route.
    for (const tokens of [1, sizes.count + 1]) {
      const rows = f32(gaussian(tokens * 64, 3), [tokens, 64]);
      const own = routesOf({ ...sizes, tokens });
      const [e] = own.indices.toArray() as [number];
      const { down } = experts.experts[e] as MoEExpert;
      const before = down.bytes.slice();
      const workspace = new Tensor('u8', down.bytes, [down.bytes.length]);
      expectError(
        () => moeForward(rows, own, experts, { workspace }),
        'BL_INVALID_ARGUMENT',
        `moeForward: workspace overlaps experts[${e}].down, expected memory apart from it`,
      );
      expect(down.bytes).toEqual(before);
    }
    expectError(
      () => moeForward(x, routes, experts, { workspace: out as never }),
      'BL_INVALID_DTYPE',
      'moeForward: workspace.dtype is f32, expected u8',
    );
    expect(out.toArray().every((value) => value === 0)).toBe(true);
    const bad = Tensor.zeros('f32', [2, 64]);
    expect(moeForwardWorkspaceBytes(x, routes, experts, { out: bad })).toBe(0);
    expectError(
      () => moeForward(x, routes, experts, { workspace: 5 as never }),
      'BL_INVALID_ARGUMENT',
      'moeForward: workspace is 5, expected a Tensor',
    );
  });
});
