// The folder of bitloom's package.json. The CommonJS build replaces this file (native/build-ts.mjs),
// because `import.meta` exists only in ES modules.
import { fileURLToPath } from 'node:url';
import { findPackageRoot } from './find_package_root.js';

export const packageRoot: string = findPackageRoot(fileURLToPath(import.meta.url));
