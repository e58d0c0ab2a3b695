// Dependencies go one way: base <- formats, isa <- ops <- bitloom.h <- node <- lib. The rules in words are
// in native/README.md.
import { describe, expect, it } from 'vitest';
import { files, resolveFrom, text } from './tree.js';

/** Folders of native/ that each folder may include from, besides itself and bitloom.h (the types). */
const allowed: Record<string, string[]> = {
  base: [],
  isa: ['base'],
  formats: ['base'],
  ops: ['base', 'isa', 'formats'],
  include: [],
  node: ['base'],
};

/** What is wrong with an #include line of a native file; undefined if nothing. */
function nativeFault(file: string, target: string): string | undefined {
  const layer = file.split('/')[1] as string;
  if (target.startsWith('<')) {
    const nodeApi = /^<(napi|node_api|js_native_api)/.test(target);
    return nodeApi && layer !== 'node' ? 'only native/node sees Node-API' : undefined;
  }
  const path = resolveFrom(file, target.slice(1, -1));
  if (path.startsWith('cuda/')) return 'nothing includes cuda';
  if (!path.startsWith('native/')) return 'outside native/';
  const other = path.split('/')[1] as string;
  if (other === layer || path.startsWith('native/include/bitloom')) return undefined;
  // Lists are data: the header, the glue and the table of a backend make their enumerations and tables of them.
  const makesTables = layer === 'include' || layer === 'node' || file === 'native/base/backend.h';
  if (path.endsWith('.inc') && makesTables) return undefined;
  if (allowed[layer]?.includes(other)) return undefined;
  return `native/${layer} may not include native/${other}`;
}

/** What is wrong with an #include line of a file in cuda/. */
function cudaFault(file: string, target: string): string | undefined {
  if (target.startsWith('<')) {
    const ours = /\.(cc|h|inc)$/.test(file) && /^<(cuda|nv)/.test(target);
    return ours ? 'host code needs nothing of the CUDA toolkit' : undefined;
  }
  const path = resolveFrom(file, target.slice(1, -1));
  const [top, layer] = path.split('/');
  if (top === 'cuda') return undefined;
  if (top !== 'native') return 'outside cuda/ and native/';
  if (['include', 'base', 'formats'].includes(layer as string) || path.endsWith('.inc')) {
    return undefined;
  }
  // Frequencies of rope are computed on the processor for both; a draw is the same on both.
  const shared = ['native/ops/rope/frequencies.h', 'native/ops/sampling/draw.h'];
  return shared.includes(path) ? undefined : `cuda may not include ${path}`;
}

const layers = ['core', 'ops', 'io', 'nn', 'cli'];
/** lib/tensor.ts is core, lib/nn/linear.ts is nn; lib/index.ts gathers core and ops. */
function libLayer(file: string): string {
  const [, folder] = /^lib\/([^/]+)\//.exec(file) ?? [];
  return folder ?? (file === 'lib/index.ts' ? 'ops' : 'core');
}

/** What is wrong with an import of a file in lib/; undefined if nothing. */
function libFault(file: string, target: string): string | undefined {
  if (!target.startsWith('.')) {
    const finder = target === 'node-gyp-build' || target.endsWith('.node');
    return finder && file !== 'lib/native.ts' ? 'only lib/native.ts loads the addon' : undefined;
  }
  const path = resolveFrom(file, target).replace(/\.js$/, '.ts');
  if (!path.startsWith('lib/')) return 'outside lib/';
  const own = libLayer(file);
  const other = libLayer(path);
  if (layers.indexOf(own) >= layers.indexOf(other)) return undefined;
  return `lib/${own} may not import lib/${other}`;
}

const faults = (
  list: string[],
  pattern: RegExp,
  fault: (file: string, target: string) => string | undefined,
): string[] =>
  list.flatMap((file) =>
    [...text(file).matchAll(pattern)]
      .map((match) => [match[1], fault(file, match[1] as string)])
      .filter(([, reason]) => reason !== undefined)
      .map(([target, reason]) => `${file}: ${target}: ${reason}`),
  );

const includes = /^\s*#\s*include\s+(<[^>]+>|"[^"]+")/gm;
const imports = /(?:\bfrom\s+|\bimport\s*\(\s*|\bimport\s+|\brequire\(\s*)'([^']+)'/g;
const native = files.filter((file) => /^native\/.*\.(cc|h|inc|inl)$/.test(file));
const cuda = files.filter((file) => /^cuda\/.*\.(cc|h|inc|cu|cuh)$/.test(file));
const lib = files.filter((file) => /^lib\/.*\.ts$/.test(file));

describe('include direction', () => {
  it('native files include downwards only', () => {
    expect(native.length).toBeGreaterThan(20);
    expect(faults(native, includes, nativeFault)).toEqual([]);
  });

  it('cuda includes what is below the operators, and no header of the toolkit in host code', () => {
    expect(cuda.length).toBeGreaterThan(20);
    expect(faults(cuda, includes, cudaFault)).toEqual([]);
    expect(cudaFault('cuda/ops/norm/norm.cc', '"../../../native/ops/rows.h"')).toMatch(/may not/);
  });

  it('every native file lies in a known layer', () => {
    const stray = native.filter((file) => !((file.split('/')[1] as string) in allowed));
    expect(stray).toEqual([]);
  });

  it('lib imports downwards only, and only lib/native.ts loads the addon', () => {
    expect(lib.length).toBeGreaterThan(5);
    // paths.ts asks node-gyp-build where the addon is, and loads nothing.
    const list = faults(lib, imports, libFault).filter((line) => !line.startsWith('lib/paths.ts'));
    expect(list).toEqual([]);
  });

  it('a module of the CLI that runs without a binary does not import the addon at start', () => {
    const seen = new Set<string>();
    const visit = (file: string): void => {
      if (seen.has(file) || !files.includes(file)) return;
      seen.add(file);
      // Static imports of values; import(...) happens later, and types vanish.
      for (const match of text(file).matchAll(
        /^(?:import|export)\s+(?!type\b)[^;]*?'(\.[^']+)';/gm,
      )) {
        visit(resolveFrom(file, match[1] as string).replace(/\.js$/, '.ts'));
      }
    };
    for (const entry of ['lib/cli/main.ts', 'lib/cli/build.ts', 'lib/paths.ts']) visit(entry);
    expect(seen).toContain('lib/cli/build.ts');
    expect([...seen]).not.toContain('lib/native.ts');
  });

  it('sees what it is there to see', () => {
    expect(nativeFault('native/base/tensor.cc', '"../ops/rows.h"')).toMatch(/may not include/);
    expect(nativeFault('native/isa/isa.cc', '"../formats/formats.h"')).toMatch(/may not include/);
    expect(nativeFault('native/ops/matmul/avx2.cc', '<napi.h>')).toMatch(/Node-API/);
    expect(nativeFault('native/node/call.cc', '"../ops/choose.h"')).toMatch(/may not include/);
    expect(nativeFault('native/node/call.cc', '"../ops/ops.inc"')).toBeUndefined();
    expect(libFault('lib/tensor.ts', './ops/matmul/matmul.js')).toMatch(/may not import/);
    expect(libFault('lib/io/gguf.ts', '../nn/decoder.js')).toMatch(/may not import/);
    expect(libFault('lib/nn/linear.ts', '../ops/matmul/matmul.js')).toBeUndefined();
    expect(libFault('lib/tensor.ts', 'node-gyp-build')).toMatch(/loads the addon/);
  });
});
