// Compiles lib/ twice: ES modules to dist/esm, CommonJS (without the CLI) to dist/cjs. Does nothing when lib/
// has not changed since. A new dist/ replaces the old one as a whole, so no program sees half of it.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join, sep } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

const require = createRequire(import.meta.url);

// CommonJS has no import.meta: the one file of the library that needs it is exchanged.
const packageRootForCommonJs = `import { findPackageRoot } from './find_package_root.js';

export const packageRoot: string = findPackageRoot(__filename);
`;

/** Changes whenever a source or the way to compile it does. */
function fingerprint(root) {
  const hash = createHash('sha256').update(require('typescript/package.json').version);
  const files = readdirSync(join(root, 'lib'), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath ?? entry.path, entry.name))
    .sort();
  for (const file of [...files, join(root, 'tsconfig.json'), join(root, 'native/build-ts.mjs')]) {
    hash.update(`\0${file.slice(root.length)}\0`).update(readFileSync(file));
  }
  return hash.digest('hex');
}

function compile(root, ...options) {
  const tsc = join(dirname(require.resolve('typescript/package.json')), 'bin', 'tsc');
  const result = spawnSync(process.execPath, [tsc, ...options], { cwd: root, stdio: 'inherit' });
  if (result.status !== 0) throw new Error(`tsc ${options.join(' ')} failed`);
}

/**
 * @param {string} root the package's folder
 * @returns {boolean} false if dist/ was up to date
 */
export function buildTypeScript(root) {
  const dist = join(root, 'dist');
  const stamp = fingerprint(root);
  const stampFile = join(dist, '.fingerprint');
  if (existsSync(stampFile) && readFileSync(stampFile, 'utf8') === stamp) return false;

  // Both beneath the root, so that node_modules is found from there.
  const work = join(root, 'build', `ts-${process.pid}`);
  const fresh = join(work, 'dist');
  try {
    mkdirSync(fresh, { recursive: true });
    compile(root, '--project', root, '--outDir', join(fresh, 'esm'));
    const cli = join(fresh, 'esm/cli/main.js');
    if (existsSync(cli)) chmodSync(cli, 0o755);

    // A package.json of type commonjs above the sources makes the compiler write CommonJS.
    const commonJs = join(work, 'cjs');
    cpSync(join(root, 'lib'), join(commonJs, 'lib'), {
      recursive: true,
      filter: (file) =>
        file !== join(root, 'lib', 'cli') && !file.startsWith(join(root, 'lib', 'cli') + sep),
    });
    writeFileSync(join(commonJs, 'package.json'), '{ "type": "commonjs" }\n');
    writeFileSync(join(commonJs, 'lib/package_root.ts'), packageRootForCommonJs);
    cpSync(join(root, 'tsconfig.json'), join(commonJs, 'tsconfig.json'));
    compile(root, '--project', commonJs, '--outDir', join(fresh, 'cjs'));
    writeFileSync(join(fresh, 'cjs/package.json'), '{ "type": "commonjs" }\n');

    writeFileSync(join(fresh, '.fingerprint'), stamp);
    if (existsSync(dist)) renameSync(dist, join(work, 'old'));
    renameSync(fresh, dist);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
  return true;
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  buildTypeScript(fileURLToPath(new URL('..', import.meta.url)).replace(/[\\/]$/, ''));
}
