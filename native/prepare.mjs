// npm's `prepare`: runs at `npm install` in a checkout and before `npm pack`, never in an installed package.
// Builds the addon (cmake-js; without devDependencies plain CMake) and compiles lib/ to dist/. What is up to
// date is not built again.
import { spawnSync } from 'node:child_process';
import { createRequire } from 'node:module';
import { availableParallelism } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url)).replace(/[\\/]$/, '');
const require = createRequire(import.meta.url);
const { findTools, missingMessage } = require('./toolchain.cjs');
const cmake = require('./cmake.cjs');

function find(name) {
  try {
    return require.resolve(name);
  } catch {
    return undefined;
  }
}
function fail(message) {
  console.error(message);
  process.exit(1);
}
const seconds = (start) => `${((performance.now() - start) / 1000).toFixed(1)} s`;

const tools = findTools();
const missing = missingMessage(tools);
if (missing !== undefined) fail(missing);
if (find('node-addon-api') === undefined)
  fail('bitloom: node_modules is not complete: run npm install');

let start = performance.now();
const cmakeJs = find('cmake-js/package.json');
if (cmakeJs === undefined) {
  try {
    cmake.build(root, { quiet: true });
  } catch (error) {
    fail(error.message);
  }
} else {
  cmake.dropForeignCache(join(root, 'build'), root);
  const result = spawnSync(
    process.execPath,
    [
      join(dirname(cmakeJs), 'bin', 'cmake-js'),
      ...[
        'build',
        '--out',
        'build',
        '--log-level',
        'error',
        '--parallel',
        String(availableParallelism()),
        '--CDBITLOOM_CUDA_ARCHS=', // as cuda/CMakeLists.txt has it: a prebuild in this folder had more
        '--CDBITLOOM_CUDA_PTX=80;120',
      ],
    ],
    {
      cwd: root,
      encoding: 'utf8',
      env: { CXX: tools.compiler, ...process.env },
      maxBuffer: 1 << 28,
    },
  );
  if (result.status !== 0) {
    fail(
      `${result.stdout}${result.stderr}\nbitloom: the native build failed (its output stands above)`,
    );
  }
}
// A binary that was built but does not load is worth saying here, not at the first import.
const loaded = spawnSync(
  process.execPath,
  ['-p', `require('node-gyp-build')(${JSON.stringify(root)}).machine().version`],
  { cwd: root, encoding: 'utf8' },
);
if (loaded.status !== 0) fail(`bitloom: the addon was built but does not load:\n${loaded.stderr}`);
console.log(`bitloom ${loaded.stdout.trim()}: addon ready in build/Release (${seconds(start)})`);

if (find('typescript/package.json') === undefined) {
  console.log(
    'bitloom: TypeScript is not installed (devDependencies left out): dist/ is not built',
  );
} else {
  start = performance.now();
  const { buildTypeScript } = await import('./build-ts.mjs');
  try {
    const built = buildTypeScript(root);
    console.log(`bitloom: dist ${built ? `compiled (${seconds(start)})` : 'is up to date'}`);
  } catch (error) {
    fail(`bitloom: ${error.message}`);
  }
}
