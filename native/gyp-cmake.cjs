// The action of binding.gyp: gyp-cmake.cjs ROOT OUTPUT ARCH CONFIG builds with CMake into OUTPUT. Requires only
// what is in bitloom's dependencies.
'use strict';
const { join } = require('node:path');
const { build } = require('./cmake.cjs');

const [root, output, arch, config] = process.argv.slice(2);
try {
  if (arch !== process.arch) {
    throw new Error(
      `bitloom: arch is ${arch}, expected ${process.arch}; cross builds: npm run prebuild`,
    );
  }
  build(root, { output, config, buildFolder: join(root, 'build', `cmake-${arch}`) });
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
}
