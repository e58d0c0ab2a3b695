// Links and paths in the Markdown documents lead somewhere.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { files, resolveFrom, root, text } from './tree.js';

const documents = files.filter((file) => file.endsWith('.md'));
const scripts = Object.keys(JSON.parse(text('package.json')).scripts as object);

/** The anchors that headings of a document make. */
const anchors = (path: string): string[] =>
  [...text(path).matchAll(/^#+\s+(.*)$/gm)].map((match) =>
    (match[1] as string)
      .toLowerCase()
      .replace(/[^\w\- ]/g, '')
      .replaceAll(' ', '-'),
  );

const withoutCode = (path: string): string => text(path).replace(/^```[\s\S]*?^```/gm, '');

describe.each(documents)('%s', (document) => {
  it('has links that lead to files and headings', () => {
    const broken = [...withoutCode(document).matchAll(/\]\(([^)\s]+)\)/g)]
      .map((match) => match[1] as string)
      .filter((link) => !/^(https?|mailto):/.test(link))
      .filter((link) => {
        const [path = '', anchor] = link.split('#');
        const target = path === '' ? document : resolveFrom(document, path);
        if (!existsSync(join(root, target))) return true;
        return anchor !== undefined && target.endsWith('.md') && !anchors(target).includes(anchor);
      });
    expect(broken).toEqual([]);
  });

  it('names paths that exist', () => {
    // `native/ops/x.cc` in code spans; with <placeholders>, globs or "..." it is a pattern, not a path.
    const missing = [...withoutCode(document).matchAll(/`([^`\s]+)`/g)]
      .map((match) => match[1] as string)
      .filter((path) => /^(native|lib|test|bench|examples|docs|cuda)\/[\w./-]*$/.test(path))
      .filter((path) => !path.includes('...') && !path.startsWith('docs/api'))
      .filter((path) => !existsSync(join(root, path)));
    expect(missing).toEqual([]);
  });

  it('names npm scripts that exist', () => {
    const unknown = [...text(document).matchAll(/\bnpm run ([\w:]+)/g)]
      .map((match) => match[1] as string)
      .filter((name) => !scripts.includes(name));
    expect(unknown).toEqual([]);
  });
});
