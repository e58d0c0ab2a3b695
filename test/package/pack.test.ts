// The packed tarball, installed in an empty folder with no compiler on the PATH.
import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Installation, installTarball, workFolder } from './install.js';
import { root } from './tree.js';

let app: Installation;
let prebuilds: string;
beforeAll(() => {
  app = installTarball();
  prebuilds = join(app.installed, 'prebuilds', `${process.platform}-${process.arch}`);
}, 600_000);
afterAll(() => rmSync(workFolder(app), { recursive: true, force: true }));

const program = `
  const w = quantize(new Tensor('f32', [1, 0, 0, 0, 1, 0], [2, 3]), 'f32');
  const y = matmul(new Tensor('f32', [5, 6, 7], [1, 3]), w);
  const maps = readFileSync('/proc/self/maps', 'utf8');
  const loaded = [...new Set(maps.match(/\\S*bitloom[^/\\s]*\\.(?:node|so)$/gm))];
  console.log(JSON.stringify({ y: y.toArray(), loaded }));
`;
const esm = `
  import { readFileSync } from 'node:fs';
  import { matmul, quantize, Tensor } from 'bitloom';
  ${program}`;
const commonJs = `
  const { readFileSync } = require('node:fs');
  const { matmul, quantize, Tensor } = require('bitloom');
  ${program}`;

describe('the packed tarball', () => {
  it('runs no script when it is installed', () => {
    const { scripts, gypfile } = JSON.parse(
      readFileSync(join(app.installed, 'package.json'), 'utf8'),
    );
    expect(gypfile).toBe(false);
    expect(scripts).not.toHaveProperty('preinstall');
    expect(scripts).not.toHaveProperty('install');
    expect(scripts).not.toHaveProperty('postinstall');
    expect(existsSync(join(app.installed, 'binding.gyp'))).toBe(false);
    expect(existsSync(join(app.installed, 'build'))).toBe(false);
    expect(app.output).not.toMatch(/gyp|cmake|addon ready/i);
    // npm lists `prepare` of a package that does not come from the registry as a script; it runs it for git
    // dependencies only. Nothing else may stand there.
    const warned = [...app.output.matchAll(/bitloom@\S+ \((\w+):/g)].map((match) => match[1]);
    expect(warned.filter((script) => script !== 'prepare')).toEqual([]);
  });

  it.each([
    ['ES modules', ['--input-type=module', '--eval', esm]],
    ['CommonJS', ['--eval', commonJs]],
  ])('runs an operator from %s', (_, args) => {
    const result = app.run(process.execPath, args, { PREBUILDS_ONLY: '1' });
    expect(result.stderr).toBe('');
    const { y, loaded } = JSON.parse(result.stdout) as { y: number[]; loaded: string[] };
    expect(y).toEqual([5, 6]);
    expect(loaded.map((path) => path.startsWith(prebuilds))).toEqual([true, true]);
  });

  it('has each entry point of its manifest', () => {
    const { exports, bin } = JSON.parse(readFileSync(join(app.installed, 'package.json'), 'utf8'));
    const strings = (value: unknown): string[] =>
      typeof value === 'string' ? [value] : Object.values(value as object).flatMap(strings);
    const targets = [...strings(exports), ...strings(bin)];
    expect(targets.filter((path) => !existsSync(join(app.installed, path)))).toEqual([]);
    const script = `for (const name of process.argv.slice(1)) Object.keys(require(name)).length || process.exit(1)`;
    const names = Object.keys(exports).map((name) => `bitloom${name.slice(1)}`);
    expect(app.run(process.execPath, ['--eval', script, ...names])).toMatchObject({
      status: 0,
      stderr: '',
    });
  });

  it('carries the sources, the header and the library', () => {
    const script = `
      const { includeDir, libraryPath } = require('bitloom/paths');
      console.log(JSON.stringify([includeDir + '/bitloom.h', libraryPath()]));`;
    const result = app.run(process.execPath, ['--eval', script]);
    expect(result.stderr).toBe('');
    const paths = JSON.parse(result.stdout) as string[];
    for (const path of [
      ...paths,
      ...['CMakeLists.txt', 'LICENSE'].map((f) => join(app.installed, f)),
    ]) {
      expect(path.startsWith(app.installed)).toBe(true);
      expect(existsSync(path), path).toBe(true);
    }
  });
});

describe('without a binary', () => {
  const move = (to: 'away' | 'back'): void => {
    const [from, target] = [prebuilds, `${prebuilds}.away`];
    if (to === 'away') renameSync(from, target);
    else renameSync(target, from);
  };

  it('names the command that builds one', () => {
    move('away');
    try {
      const script = `try { require('bitloom') } catch (e) { console.log(e.code, e.message) }`;
      const { stdout } = app.run(process.execPath, ['--eval', script]);
      expect(stdout).toMatch(/^BL_NOT_FOUND bitloom: no binary for \w+-\w+ in .*npx bitloom build/);
    } finally {
      move('back');
    }
  });

  it('says why a binary does not load', () => {
    // What an incomplete copy looks like to the loader.
    const library = join(prebuilds, 'libbitloom.so');
    renameSync(library, `${library}.away`);
    try {
      const script = `try { require('bitloom') } catch (e) { console.log(e.code, e.message) }`;
      const { stdout } = app.run(process.execPath, ['--eval', script]);
      expect(stdout).toMatch(
        /^BL_UNSUPPORTED bitloom: .*\.node does not load here: .*libbitloom\.so/,
      );
      expect(stdout).toContain('npx bitloom build');
    } finally {
      renameSync(`${library}.away`, library);
    }
  });

  it('`bitloom build` starts, and tells what it lacks', () => {
    move('away');
    try {
      const cli = join(app.folder, 'node_modules/.bin/bitloom');
      const result = app.run(process.execPath, [cli, 'build']);
      expect(result.status).toBe(1);
      expect(result.stderr).toMatch(/missing: a C\+\+20 compiler .*; CMake .*; ninja or make/);
      expect(result.stderr).toContain('sudo apt-get install -y g++ cmake make');
      expect(result.stderr).toContain('sudo dnf install -y gcc-c++ cmake make');
      expect(result.stderr).toContain('brew install gcc cmake ninja');
    } finally {
      move('back');
    }
  });
});

describe('the prebuilt binaries', () => {
  // The oldest systems that the binaries run on: glibc 2.34 and libstdc++ of GCC 7 (RHEL 9, Ubuntu 22.04,
  // Debian 12). Built on a system newer than Debian 12 they need what that system's headers ask for.
  const header = process.report.getReport() as unknown as {
    header: { glibcVersionRuntime?: string };
  };
  const host = header.header.glibcVersionRuntime ?? '0';
  const compare = (x: string, y: string): number => x.localeCompare(y, 'en', { numeric: true });
  const release = compare(host, '2.36') <= 0;
  const floors: Record<string, string> = {
    GLIBC: release ? '2.34' : host,
    GLIBCXX: release ? '3.4.22' : '3.4.32',
    CXXABI: release ? '1.3.9' : '1.3.15',
    GCC: '4.8.0',
  };
  const machines: Record<string, number> = { x64: 62, arm64: 183 };
  const binaries = (): string[] => readdirSync(prebuilds).filter((f) => /\.(node|so)$/.test(f));

  it('are an addon and the library, for this machine type, stripped', () => {
    // The CUDA kernels where this machine has their compiler.
    const cuda = existsSync(join(root, 'build/Release/libbitloom_cuda.so'));
    const expected = [
      'bitloom.glibc.node',
      'libbitloom.so',
      ...(cuda ? ['libbitloom_cuda.so'] : []),
    ];
    expect(binaries().sort()).toEqual(expected);
    for (const file of binaries()) {
      const bytes = readFileSync(join(prebuilds, file));
      expect(bytes.subarray(0, 4).toString('latin1')).toBe('\x7fELF');
      expect(bytes.readUInt16LE(18)).toBe(machines[process.arch]);
      const sections = execFileSync('readelf', ['-SW', join(prebuilds, file)], {
        encoding: 'utf8',
      });
      expect(sections).not.toMatch(/\.symtab|\.debug_/);
    }
  });

  it('find the library beside the addon', () => {
    const dynamic = execFileSync('readelf', ['-dW', join(prebuilds, 'bitloom.glibc.node')], {
      encoding: 'utf8',
    });
    expect(dynamic).toMatch(/\(RUNPATH\).*\[\$ORIGIN\]/);
    expect(dynamic).toMatch(/\(NEEDED\).*\[libbitloom\.so\]/);
  });

  it('need no newer system libraries than stated', () => {
    const raised: string[] = [];
    for (const file of binaries()) {
      const symbols = execFileSync('objdump', ['-T', join(prebuilds, file)], { encoding: 'utf8' });
      const versions = new Set(symbols.match(/\b[A-Z]+_\d+(\.\d+)+\b/g));
      expect(versions.size).toBeGreaterThan(0);
      for (const name of versions) {
        const [family = '', version = ''] = name.split('_');
        const floor = floors[family];
        if (floor === undefined || compare(version, floor) > 0) raised.push(`${file}: ${name}`);
      }
    }
    expect(raised).toEqual([]);
  });
});
