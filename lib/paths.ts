/**
 * Where the C side of the package lies, for build systems and foreign-function interfaces of other engines.
 * Loads no binary.
 *
 * @packageDocumentation
 */
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { BitloomError } from './errors.js';
import { packageRoot } from './package_root.js';

/** Folder of `bitloom.h`, the C interface (C99): for the compiler's `-I`. */
export const includeDir: string = join(packageRoot, 'native', 'include');

/**
 * Path of the shared library behind `bitloom.h`: for the linker, or for `dlopen`.
 *
 * @throws `BL_NOT_FOUND` if there is none for this platform
 *
 * @example
 * ```sh
 * library=$(node -p "require('bitloom/paths').libraryPath()")
 * include=$(node -p "require('bitloom/paths').includeDir")
 * cc -I "$include" main.c "$library" -Wl,-rpath,"$(dirname "$library")"
 * ```
 */
export function libraryPath(): string {
  const require = createRequire(join(packageRoot, 'package.json'));
  const find = require('node-gyp-build') as { path(root: string): string };
  const names: Partial<Record<NodeJS.Platform, string>> = {
    win32: 'bitloom.dll',
    darwin: 'libbitloom.dylib',
  };
  let cause: unknown;
  try {
    // The library lies beside the addon.
    const path = join(dirname(find.path(packageRoot)), names[process.platform] ?? 'libbitloom.so');
    if (existsSync(path)) return path;
  } catch (error) {
    cause = error;
  }
  throw new BitloomError(
    'BL_NOT_FOUND',
    `bitloom: no library for ${process.platform}-${process.arch} in ${packageRoot}. ` +
      'Build one with: npx bitloom build (needs g++ and CMake)',
    { cause },
  );
}
