// Packs the project and installs the tarball the way a user does, on a machine without a compiler.
import { execFileSync, spawnSync } from 'node:child_process';
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  realpathSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { root, text } from './tree.js';

/** npm's own script, so that it runs without a PATH. */
function npmScript(): string {
  const said = process.env.npm_execpath;
  if (said !== undefined && /npm-cli\.js$/.test(said)) return said;
  return realpathSync(execFileSync('sh', ['-c', 'command -v npm'], { encoding: 'utf8' }).trim());
}

/** Every package that bitloom's dependencies bring, from the lock file, as it lies in node_modules. */
function runtimePackages(): Record<string, string> {
  const { packages } = JSON.parse(text('package-lock.json')) as {
    packages: Record<string, { dev?: boolean; optional?: boolean }>;
  };
  return Object.fromEntries(
    Object.entries(packages)
      .filter(([path, { dev }]) => /^node_modules\/(@[^/]+\/)?[^/]+$/.test(path) && dev !== true)
      .map(([path]) => [path.slice('node_modules/'.length), `file:${join(root, path)}`]),
  );
}

export interface Installation {
  /** The user's project. */
  folder: string;
  /** node_modules/bitloom in it. */
  installed: string;
  /** What npm said. */
  output: string;
  /** Runs a program there; only node and a shell are on the PATH. */
  run(
    file: string,
    args: string[],
    env?: NodeJS.ProcessEnv,
  ): { status: number | null; stdout: string; stderr: string };
}

/** The environment of this test run must not reach npm or node: it names this checkout. */
const cleanEnvironment = (path: string, home: string): NodeJS.ProcessEnv => ({
  PATH: path,
  HOME: home,
  ...(process.env.CI === undefined ? {} : { CI: process.env.CI }),
});

export function installTarball(): Installation {
  const work = mkdtempSync(join(tmpdir(), 'bitloom-pack-'));
  execFileSync(process.execPath, [npmScript(), 'pack', '--pack-destination', work], {
    cwd: root,
    // Machine code of all GPUs would take minutes, and changes nothing that is looked at here.
    env: { ...process.env, BITLOOM_CUDA_ARCHS: '' },
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  const tarball = readdirSync(work).find((file) => file.endsWith('.tgz')) as string;

  const bin = join(work, 'bin');
  const folder = join(work, 'project');
  mkdirSync(bin);
  mkdirSync(folder);
  symlinkSync(process.execPath, join(bin, 'node'));
  symlinkSync('/bin/sh', join(bin, 'sh'));
  // Dependencies come from this checkout's node_modules, so that no network is needed.
  writeFileSync(
    join(folder, 'package.json'),
    JSON.stringify({ name: 'user', private: true, overrides: runtimePackages() }),
  );
  const environment = cleanEnvironment(bin, work);
  const result = spawnSync(
    process.execPath,
    [
      npmScript(),
      'install',
      '--offline',
      '--no-audit',
      '--no-fund',
      '--foreground-scripts',
      join(work, tarball),
    ],
    { cwd: folder, encoding: 'utf8', env: environment },
  );
  const output = `${result.stdout}${result.stderr}`;
  if (result.status !== 0) throw new Error(`npm install failed:\n${output}`);
  return {
    folder,
    installed: join(folder, 'node_modules', 'bitloom'),
    output,
    run: (file, args, env = {}) => {
      const { status, stdout, stderr } = spawnSync(file, args, {
        cwd: folder,
        encoding: 'utf8',
        env: { ...environment, ...env },
      });
      return { status, stdout, stderr };
    },
  };
}

export const workFolder = (installation: Installation): string => dirname(installation.folder);
