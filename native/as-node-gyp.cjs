#!/usr/bin/env node
// Stands in for node-gyp under prebuildify (native/prebuild.mjs): builds with cmake-js, so that prebuilds need
// neither node-gyp nor its header download. Reads `rebuild ... --arch=X`; leaves the products in build/Release
// of the current folder, where prebuildify looks. BITLOOM_TOOLCHAIN names a CMake toolchain file for cross
// builds.
'use strict';
const { spawnSync } = require('node:child_process');
const { copyFileSync, mkdirSync, readdirSync, rmSync } = require('node:fs');
const { availableParallelism } = require('node:os');
const { dirname, join, resolve } = require('node:path');

const root = resolve(__dirname, '..');
const option = (name) =>
  process.argv.find((argument) => argument.startsWith(`--${name}=`))?.slice(name.length + 3);
const arch = option('arch') ?? process.arch;
const toolchain = process.env.BITLOOM_TOOLCHAIN;
const out = toolchain === undefined ? 'build' : `build/cross-${arch}`;
const cudaArchs = process.env.BITLOOM_CUDA_ARCHS ?? '80;86;89;90;100;120';

const result = spawnSync(
  process.execPath,
  [
    join(dirname(require.resolve('cmake-js/package.json')), 'bin', 'cmake-js'),
    ...['build', '--out', out, '--arch', arch, '--log-level', 'error'],
    ...['--parallel', String(availableParallelism())],
    // Machine code of every GPU, unless told otherwise; another processor than this one has no CUDA compiler here.
    toolchain === undefined ? `--CDBITLOOM_CUDA_ARCHS=${cudaArchs}` : '--CDBITLOOM_CUDA=OFF',
    // What has machine code needs no PTX; it is for what comes after, and text that costs 1.2 MB of the package.
    ...(cudaArchs === '' ? [] : ['--CDBITLOOM_CUDA_PTX=120']),
    ...(toolchain === undefined ? [] : [`--CDCMAKE_TOOLCHAIN_FILE=${resolve(toolchain)}`]),
  ],
  { cwd: root, stdio: ['ignore', 'ignore', 'inherit'] },
);
if (result.status !== 0) process.exit(result.status ?? 1);

const target = resolve('build/Release');
rmSync(target, { recursive: true, force: true });
mkdirSync(target, { recursive: true });
const products = join(root, out, 'Release');
for (const file of readdirSync(products)) {
  if (/\.(node|so|dylib|dll)$/.test(file)) copyFileSync(join(products, file), join(target, file));
}
