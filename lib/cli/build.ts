// `bitloom build`: compiles the addon and the library from the sources in the package. Imports nothing that
// loads the addon, which does not exist yet when this runs.
import { spawnSync } from 'node:child_process';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { packageRoot } from '../package_root.js';

/** Options of {@link buildFromSource}. */
export interface BuildOptions {
  /** Compilations at a time; default: the processors. */
  jobs?: number;
  /** Show CMake's output only if it fails. Default: false. */
  quiet?: boolean;
}

/** What {@link buildFromSource} made. */
export interface BuildResult {
  /** Folder with bitloom.node and the shared library; found first when bitloom loads. */
  output: string;
  /** Version that the new binary states. */
  version: string;
}

/**
 * Builds `build/Release` in the package's folder with CMake, from CMakeLists.txt and native/.
 *
 * @param root the package's folder
 * @throws an Error that names the missing tools and the command that installs them, or carries CMake's
 *   output, or says why the new binary does not load
 */
export function buildFromSource(
  root: string = packageRoot,
  options: BuildOptions = {},
): BuildResult {
  const require = createRequire(join(root, 'package.json'));
  const cmake = require(join(root, 'native', 'cmake.cjs')) as {
    build(root: string, options: BuildOptions): string;
  };
  const output = cmake.build(root, options);
  // In a process of its own: a binary that crashes takes nothing along, and this process keeps none open.
  const script = 'process.stdout.write(require(process.argv[1]).machine().version)';
  const result = spawnSync(process.execPath, ['-e', script, join(output, 'bitloom.node')], {
    encoding: 'utf8',
  });
  if (result.status !== 0) {
    throw new Error(`bitloom: built ${output}, but it does not load:\n${result.stderr}`);
  }
  return { output, version: result.stdout };
}
