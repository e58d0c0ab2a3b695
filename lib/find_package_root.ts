import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';

/** The nearest folder above `file` that holds bitloom's CMakeLists.txt beside a package.json. */
export function findPackageRoot(file: string): string {
  let folder = dirname(file);
  while (!existsSync(join(folder, 'CMakeLists.txt')) || !existsSync(join(folder, 'package.json'))) {
    const parent = dirname(folder);
    if (parent === folder) throw new Error(`bitloom: no package.json above ${file}`);
    folder = parent;
  }
  return folder;
}
