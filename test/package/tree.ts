// The project's own files, as the tests of its shape see them.
import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));

export const text = (path: string): string => readFileSync(join(root, path), 'utf8');

/** Paths, relative to the root, of tracked files and of new ones that git does not ignore. */
export const files: string[] = execFileSync('git', ['ls-files', '-co', '--exclude-standard'], {
  cwd: root,
  encoding: 'utf8',
})
  .split('\n')
  .filter((path) => path !== '' && existsSync(join(root, path)))
  .sort();

/** Rows `MACRO(a, b, ...)` of an .inc list, comments and definitions left out. */
export function rows(path: string, macro: string): string[][] {
  const pattern = new RegExp(`^${macro}\\(([^)]*)\\)`, 'gm');
  return [...text(path).matchAll(pattern)].map((match) =>
    (match[1] as string).split(',').map((cell) => cell.trim()),
  );
}

export const folders = (path: string): string[] =>
  existsSync(join(root, path))
    ? readdirSync(join(root, path), { withFileTypes: true })
        .filter((entry) => entry.isDirectory())
        .map((entry) => entry.name)
        .sort()
    : [];

/** `target` as written in `file`, relative to the root. */
export const resolveFrom = (file: string, target: string): string =>
  relative(root, join(root, dirname(file), target));
