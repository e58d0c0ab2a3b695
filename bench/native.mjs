// Builds what the bench needs (the library, its addon, the bench's addon) where it is missing or older
// than its sources, and loads it.
import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, statSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = fileURLToPath(new URL('..', import.meta.url));
const require = createRequire(import.meta.url);

/** Time of the latest change below `folder`, in milliseconds. */
function newest(folder) {
  let time = 0;
  for (const entry of readdirSync(folder, { withFileTypes: true, recursive: true })) {
    if (entry.isFile()) {
      time = Math.max(time, statSync(join(entry.parentPath ?? entry.path, entry.name)).mtimeMs);
    }
  }
  return time;
}

const changedAt = (file) => (existsSync(file) ? statSync(file).mtimeMs : 0);

function build() {
  const addon = join(root, 'build/bench/bitloom_bench.node');
  const sources = Math.max(newest(join(root, 'native')), newest(join(root, 'bench/native')));
  if (changedAt(addon) < sources) {
    process.stderr.write('bench: building its addon (native/ or bench/native/ changed)\n');
    const manifest = require.resolve('cmake-js/package.json');
    const cmakeJs = join(dirname(manifest), require(manifest).bin['cmake-js']);
    const run = (...options) =>
      execFileSync(process.execPath, [cmakeJs, ...options, '--out', 'build'], {
        cwd: root,
        stdio: ['ignore', 'ignore', 'inherit'],
      });
    run('configure', '--CDBITLOOM_BENCH=ON');
    run('build');
    // A source that is in neither target leaves the addon as it was: note that it is up to date.
    execFileSync('touch', [addon]);
  }
  const index = join(root, 'dist/esm/index.js');
  if (changedAt(index) < newest(join(root, 'lib'))) {
    process.stderr.write('bench: compiling lib/\n');
    execFileSync(process.execPath, [join(root, 'native/build-ts.mjs')], {
      cwd: root,
      stdio: 'inherit',
    });
  }
  return addon;
}

/** bitloom_bench.node: time(), readRoof(), multiplyRoof(), multiplyRoofs(); see bench/native/addon.cc. */
const addonFile = build();
/** The package under measurement, as a user imports it. */
export const bitloom = await import('../dist/esm/index.js');
const { native } = await import('../dist/esm/native.js');
const { isas, operators } = await import('../dist/esm/generated.js');
export const addon = require(addonFile);
export { isas, operators };

/** Frees an ArrayBuffer's memory at once. */
export const detach = (buffer) => native.detach(buffer);

/**
 * The native call that `body` (one sync operator) makes, not run: [operator number, ...values], as
 * `addon.time` takes it. So the bench times the same C ABI arguments as a user's call gives.
 */
export function capture(body) {
  let captured;
  const originals = Object.keys(operators).map((name) => [name, native[name]]);
  for (const [name] of originals) {
    native[name] = (...values) => {
      captured = [operators[name], ...values];
    };
  }
  try {
    body();
  } finally {
    for (const [name, original] of originals) native[name] = original;
  }
  if (captured === undefined) throw new Error('bench: the case called no operator');
  return captured;
}
