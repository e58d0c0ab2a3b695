// Every row of an .inc list has its files, and what is generated from the lists is up to date.
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { files, root, rows, text } from './tree.js';

const find = (pattern: RegExp, content: RegExp): string | undefined =>
  files.find((file) => pattern.test(file) && content.test(text(file)));

const header = ['bitloom', 'bitloom_attention', 'bitloom_block_sparse', 'bitloom_moe']
  .map((name) => text(`native/include/${name}.h`))
  .join('');

describe('lists', () => {
  it('lib/generated.ts and lib/errors.ts say what native/ says', () => {
    const result = spawnSync(process.execPath, [join(root, 'native/generate.mjs'), '--check'], {
      encoding: 'utf8',
    });
    expect(result.stderr).toBe('');
    expect(result.status).toBe(0);
    const codes = rows('native/base/status.inc', 'BL_STATUS')
      .map(([name]) => `BL_${name?.toUpperCase()}`)
      .filter((code) => code !== 'BL_OK');
    const declared = [...text('lib/errors.ts').matchAll(/^ {2}\| '(BL_\w+)'/gm)].map((m) => m[1]);
    expect(declared).toEqual(codes);
  });

  const operators = rows('native/ops/ops.inc', 'BL_OP');
  it('has operators', () => expect(operators.length).toBeGreaterThan(0));

  it.each(operators)('operator %s: the same family in native, lib and test', (name, jsName) => {
    const module = find(
      /^lib\/ops\/[^/]+\/[^/]+\.ts$/,
      new RegExp(`^export function ${jsName}\\b`, 'm'),
    );
    expect(module, `lib/ops/<family>/ with export function ${jsName}`).toBeDefined();
    const family = (module as string).split('/')[2] as string;
    expect(text(module as string)).toMatch(
      new RegExp(`^export (async )?function ${jsName}Async\\b`, 'm'),
    );
    const inFamily = (folder: string, extension: string): RegExp =>
      new RegExp(`^${folder}/${family}/.*${extension}$`);
    expect(find(inFamily('native/ops', '\\.cc'), new RegExp(`\\bbl_${name}\\b`))).toBeDefined();
    expect(
      find(inFamily('native/node/ops', '\\.cc'), new RegExp(`\\bread_${name}\\b`)),
    ).toBeDefined();
    expect(find(inFamily('test', '\\.test\\.ts'), new RegExp(`\\b${jsName}\\b`))).toBeDefined();
    expect(header).toContain(`bl_status bl_${name}(`);
    expect(text('lib/index.ts')).toMatch(new RegExp(`\\b${jsName}\\b`));
  });

  const lists = files.filter((file) => /^native\/ops\/.*kernels\.inc$/.test(file));
  it.each(lists)('%s: each kernel has its file, the scalar one is last', (list) => {
    const levels = rows('native/isa/isa.inc', 'BL_ISA').map(([name]) => name as string);
    const kernels = rows(list, 'BL_\\w+').map((cells) =>
      cells.filter((cell) => levels.includes(cell)),
    );
    expect(kernels.length).toBeGreaterThan(0);
    for (const cells of kernels) {
      expect(cells).toHaveLength(1);
      // One file for a level, or one for each of its compute modes: avx2.cc, or avx2_i8.cc and avx2_f32.cc.
      const folder = list.slice(0, list.lastIndexOf('/') + 1);
      const level = new RegExp(`^${folder}${cells[0]}(_\\w+)?\\.cc$`);
      expect(files.some((file) => level.test(file))).toBe(true);
    }
    expect(kernels.at(-1)).toEqual(['scalar']);
  });
});
