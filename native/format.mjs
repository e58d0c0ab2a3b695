// Formats C and C++ sources with the clang-format of the clang-format-node package (one version for
// everybody), as .clang-format says. `--check` only names the files that differ and exits with 1.
import { execFileSync } from 'node:child_process';
import { chmodSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const { clangFormatPath } = createRequire(import.meta.url)('clang-format-node');
// The package marks its program executable in an install script, which npm 12 does not run.
chmodSync(clangFormatPath, 0o755);
const check = process.argv.includes('--check');

// Tracked files and new ones that git does not ignore.
const files = execFileSync('git', ['ls-files', '-co', '--exclude-standard', '*.cc', '*.h', '*.c'], {
  cwd: root,
  encoding: 'utf8',
})
  .split('\n')
  .filter(Boolean);

let different = 0;
for (const file of files) {
  const path = root + file;
  let before;
  try {
    before = readFileSync(path, 'utf8');
  } catch {
    continue; // deleted, but not yet in git's index
  }
  const after = execFileSync(clangFormatPath, [file], {
    cwd: root,
    encoding: 'utf8',
    maxBuffer: 1 << 26,
  });
  if (after === before) continue;
  different += 1;
  if (check) console.error(`${file}: not formatted`);
  else writeFileSync(path, after);
}
if (check && different > 0) {
  console.error(`${different} of ${files.length} files are not formatted: run npm run format`);
  process.exit(1);
}
console.log(
  `clang-format: ${files.length} files${check ? ' are formatted' : `, ${different} changed`}`,
);
