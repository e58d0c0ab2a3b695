// Builds the addon and the library with plain CMake. Needs only Node and the run-time dependencies, so it
// works in an installed package too: `npx bitloom build`, node-gyp (gyp-cmake.cjs) and an install without
// devDependencies come here. (In a checkout cmake-js does the same with the same CMakeLists.txt.)
'use strict';
const { spawnSync } = require('node:child_process');
const { existsSync, readFileSync, rmSync } = require('node:fs');
const { availableParallelism } = require('node:os');
const { dirname, join, resolve } = require('node:path');
const { findTools, missingMessage } = require('./toolchain.cjs');

/** Removes the state of a CMake build folder that was configured for another place (a moved checkout). */
function dropForeignCache(buildFolder, source) {
  const cache = join(buildFolder, 'CMakeCache.txt');
  if (!existsSync(cache)) return;
  const home = /^CMAKE_HOME_DIRECTORY:INTERNAL=(.*)$/m.exec(readFileSync(cache, 'utf8'))?.[1];
  if (home === source) return;
  rmSync(cache);
  rmSync(join(buildFolder, 'CMakeFiles'), { recursive: true, force: true });
}

/** Include folders of Node-API, from the two packages among bitloom's dependencies. */
function nodeApiIncludes() {
  return ['node-api-headers/package.json', 'node-addon-api/package.json']
    .map((name) => dirname(require.resolve(name)))
    .map((folder, i) => (i === 0 ? join(folder, 'include') : folder));
}

/**
 * @param {string} root the package's folder
 * @param {{output?: string, buildFolder?: string, config?: string, jobs?: number, defines?: string[],
 *   quiet?: boolean}} [options]
 * @returns {string} the folder with bitloom.node and the library
 * @throws {Error} with the reason: missing tools, or CMake's output
 */
function build(root, options = {}) {
  const source = resolve(root);
  const config = options.config ?? 'Release';
  const output = resolve(options.output ?? join(source, 'build', config));
  const buildFolder = resolve(options.buildFolder ?? join(source, 'build', 'cmake'));
  const tools = findTools();
  const missing = missingMessage(tools);
  if (missing !== undefined) throw new Error(missing);

  const run = (...args) => {
    const result = spawnSync('cmake', args, {
      cwd: source,
      env: { CXX: tools.compiler, ...process.env },
      stdio: options.quiet ? ['ignore', 'pipe', 'pipe'] : ['ignore', 'inherit', 'inherit'],
      encoding: 'utf8',
      maxBuffer: 1 << 28,
    });
    if (result.status !== 0) {
      const said = options.quiet ? `\n${result.stdout ?? ''}${result.stderr ?? ''}` : '';
      throw new Error(
        `bitloom: cmake ${args.join(' ')} failed (${result.status ?? result.error?.message})${said}`,
      );
    }
  };
  dropForeignCache(buildFolder, source);
  const generator =
    existsSync(join(buildFolder, 'CMakeCache.txt')) || !tools.ninja ? [] : ['-G', 'Ninja'];
  run(
    ...['-S', source, '-B', buildFolder, ...generator, `-DCMAKE_BUILD_TYPE=${config}`],
    ...[
      `-DCMAKE_LIBRARY_OUTPUT_DIRECTORY=${output}`,
      `-DCMAKE_JS_INC=${nodeApiIncludes().join(';')}`,
    ],
    ...(options.defines ?? []).map((define) => `-D${define}`),
  );
  run(
    '--build',
    buildFolder,
    '--config',
    config,
    '--parallel',
    String(options.jobs ?? availableParallelism()),
  );
  return output;
}

module.exports = { build, dropForeignCache };
