// The docstring of every policy: source, options with their defaults, errors, and an example that runs as it stands.
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import * as nn from '../../../lib/nn/index.js';
import { tinyModel } from '../models.js';
import { root } from '../../package/tree.js';
import { policies } from './all.js';

const folder = join(root, 'lib/nn/policies');
const sources = readdirSync(folder)
  .filter((file) => file.endsWith('.ts'))
  .map((file) => readFileSync(join(folder, file), 'utf8'))
  .join('\n');

/** The comment before an exported function, without its margin. */
function docstring(name: string): string {
  const at = new RegExp(`^export (async )?function ${name}\\(`, 'm').exec(sources)?.index ?? -1;
  expect(at, name).toBeGreaterThan(0);
  const begin = sources.lastIndexOf('/**', at);
  return sources.slice(begin, at).replace(/^ ?\* ?/gm, '');
}

const names = Object.keys(policies).filter((name) => !name.includes(' '));
const all: Record<string, unknown> = { ...nn };
const measures = ['retrievalHeads', 'keySimilarity'];

describe('docstrings', () => {
  it.each(names)('%s: source, options and errors', (name) => {
    const text = docstring(name);
    expect(text).toMatch(/\([A-Z]\w+ et al\. \d{4}, arXiv:\d{4}\.\d{5}\)/);
    expect(text).toMatch(/^@param options `budget`/m);
    expect(text).toMatch(/^@throws `BL_INVALID_ARGUMENT` .*`BL_OUT_OF_RANGE`/ms);
    const make = all[name] as (options: unknown) => unknown;
    const codeOf = (options: unknown): unknown => {
      try {
        return make(options);
      } catch (error) {
        return (error as { code?: string }).code;
      }
    };
    expect(codeOf(undefined)).toBe('BL_INVALID_ARGUMENT');
    expect(codeOf({ budget: 64, bugdet: 64 })).toBe('BL_INVALID_ARGUMENT');
    expect(codeOf({ budget: 0 })).toBe('BL_OUT_OF_RANGE');
  });

  it('examples run', () => {
    const programs = [...names, ...measures].map((name) => {
      const [, code = ''] = /^@example\n```ts\n([\s\S]*?)^```/m.exec(docstring(name)) ?? [];
      expect(code, name).toContain(`${name}(`);
      const [, imported, rest] =
        /^import \{ (.*) \} from 'bitloom\/nn';\n([\s\S]*)/.exec(code) ?? [];
      expect(rest, name).toContain("load('model.gguf')");
      return `{ const { ${imported} } = nn;\n${rest?.replace('.text()', '.text().then((text) => text.length > 9)')}}`;
    });
    const program = `import * as nn from ${JSON.stringify(join(root, 'dist/esm/nn/index.js'))};
      ${programs.join('\n')}`;
    const run = spawnSync(
      process.execPath,
      [
        '--input-type=module',
        '--eval',
        program.replaceAll("'model.gguf'", JSON.stringify(tinyModel)),
      ],
      { encoding: 'utf8' },
    );
    expect(run.stderr).toBe('');
    expect(run.stdout).toBe('true\n'.repeat(programs.length));
  }, 60_000);
});
