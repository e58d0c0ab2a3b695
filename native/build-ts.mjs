// Compiles lib/ twice: ES modules to dist/esm, CommonJS to dist/cjs.
import { execFileSync } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const require = createRequire(import.meta.url);
const tsc = join(dirname(require.resolve('typescript/package.json')), 'bin', 'tsc');
const compile = (...options) =>
  execFileSync(process.execPath, [tsc, '--project', root, ...options], { stdio: 'inherit' });

rmSync(join(root, 'dist'), { recursive: true, force: true });
compile();
const cli = join(root, 'dist/esm/cli/main.js');
if (existsSync(cli)) chmodSync(cli, 0o755);

// CommonJS has no import.meta: the one file that uses it is replaced after compiling.
compile(
  '--module', 'commonjs', '--moduleResolution', 'bundler', '--outDir', 'dist/cjs', '--noEmitOnError', 'false',
);
mkdirSync(join(root, 'dist/cjs'), { recursive: true });
writeFileSync(join(root, 'dist/cjs/package.json'), '{ "type": "commonjs" }\n');
writeFileSync(
  join(root, 'dist/cjs/package_root.js'),
  `"use strict";
exports.packageRoot = require("./find_package_root.js").findPackageRoot(__filename);
`,
);
