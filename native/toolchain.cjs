// Finds what the native build needs and says what is missing, with the command that installs it.
// Requires nothing but Node, so that it runs before (and without) any dependency.
'use strict';
const { spawnSync } = require('node:child_process');

// What the sources use of C++20: a compiler that has these has the rest.
const probe = `
#include <atomic>
#include <bit>
#include <version>
#if __cplusplus < 202002L || !defined(__cpp_lib_bit_cast) || !defined(__cpp_lib_atomic_wait)
#error "not C++20"
#endif
int main() { return 0; }
`;
const minimumCmake = [3, 19]; // string(JSON)

const runs = (command, args, input) => {
  const result = spawnSync(command, args, { input, encoding: 'utf8' });
  return result.status === 0 ? result.stdout : undefined;
};
const isCxx20 = (compiler) =>
  runs(compiler, ['-std=c++20', '-fsyntax-only', '-x', 'c++', '-'], probe) !== undefined;

function findCompiler() {
  if (process.env.CXX) return isCxx20(process.env.CXX) ? process.env.CXX : undefined;
  const versioned = [15, 14, 13, 12, 11].map((version) => `g++-${version}`);
  return ['c++', 'g++', 'clang++', ...versioned].find(isCxx20);
}

/** True if `cmake --version` text tells of `minimum` or later. */
function cmakeIsRecent(text, [major, minor] = minimumCmake) {
  const [, x, y] = /version (\d+)\.(\d+)/.exec(text) ?? [];
  return Number(x) > major || (Number(x) === major && Number(y) >= minor);
}

/** @returns {{compiler?: string, cmake: boolean, ninja: boolean, make: boolean}} */
function findTools() {
  const cmake = runs('cmake', ['--version']);
  return {
    compiler: findCompiler(),
    cmake: cmake !== undefined && cmakeIsRecent(cmake),
    ninja: runs('ninja', ['--version']) !== undefined,
    make: runs('make', ['--version']) !== undefined,
  };
}

// Package names by manager; brew's compiler is Apple's, from the command line tools.
const managers = [
  {
    probe: 'apt-get',
    install: 'sudo apt-get install -y',
    packages: { compiler: 'g++', cmake: 'cmake', make: 'make' },
  },
  {
    probe: 'dnf',
    install: 'sudo dnf install -y',
    packages: { compiler: 'gcc-c++', cmake: 'cmake', make: 'make' },
  },
  {
    probe: 'apk',
    install: 'sudo apk add',
    packages: { compiler: 'g++', cmake: 'cmake', make: 'make' },
  },
  {
    probe: 'brew',
    install: 'brew install',
    packages: { compiler: 'gcc', cmake: 'cmake', make: 'ninja' },
  },
];
const names = {
  compiler: 'a C++20 compiler (g++ 11 or later, or clang++ 14 or later)',
  cmake: `CMake ${minimumCmake.join('.')} or later`,
  make: 'ninja or make',
};

/** What to tell the person at the keyboard; undefined if nothing is missing. */
function missingMessage(tools = findTools()) {
  const missing = [
    ...(tools.compiler ? [] : ['compiler']),
    ...(tools.cmake ? [] : ['cmake']),
    ...(tools.ninja || tools.make ? [] : ['make']),
  ];
  if (missing.length === 0) return undefined;
  const present = managers.filter((manager) => runs(manager.probe, ['--version']) !== undefined);
  const commands = (present.length > 0 ? present : managers).map(
    ({ install, packages }) => `  ${install} ${missing.map((tool) => packages[tool]).join(' ')}`,
  );
  const why = process.env.CXX && !tools.compiler ? ` (CXX is ${process.env.CXX})` : '';
  return [
    `bitloom: can not build the native library, missing: ${missing.map((tool) => names[tool]).join('; ')}${why}.`,
    `Install with${commands.length > 1 ? ' one of' : ''}:`,
    ...commands,
  ].join('\n');
}

module.exports = { cmakeIsRecent, findTools, missingMessage };
