// Examples of README.md and the guide, as they stand there, run as a user's programs.
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { root } from './package/tree.js';

/** Runs the first block of TypeScript after `heading`, with more lines behind it. */
function runExample(file: string, heading: string, more = '') {
  const text = readFileSync(join(root, file), 'utf8');
  const [, code] = /^```ts\n([\s\S]*?)^```/m.exec(text.slice(text.indexOf(heading))) ?? [];
  // Sources are run as they are: the examples have no type annotations.
  const program = (code as string)
    .replace("'bitloom'", JSON.stringify(join(root, 'dist/esm/index.js')))
    .replace("'bitloom/nn'", JSON.stringify(join(root, 'dist/esm/nn/index.js')));
  return spawnSync(process.execPath, ['--input-type=module', '--eval', program + more], {
    encoding: 'utf8',
  });
}

it('the example of README.md runs and prints what it says', () => {
  const result = runExample('README.md', '# bitloom');
  expect(result.stderr).toBe('');
  const [bytes, ...product] = result.stdout.trim().split('\n');
  // 256 weights of 4 bits, and 8 scales of 2 bytes.
  expect(bytes).toBe('144 bytes instead of 1024');
  const numbers =
    product
      .join(' ')
      .match(/-?\d+(\.\d+)?(e-?\d+)?/g)
      ?.map(Number) ?? [];
  expect(numbers.slice(0, 2)).toEqual([2, 4]);
  const exact = [0, 1, 2, 3].map((n) => {
    let sum = 0;
    for (let k = 0; k < 64; k += 1) sum += 0.5 * Math.sin(n * 64 + k);
    return sum;
  });
  expect(numbers.slice(2)).toHaveLength(8);
  // 64 weights, each off by at most half a step of 1/7.5: far less in sum, as errors alternate.
  numbers.slice(2).forEach((value, i) => {
    expect(Math.abs(value - (exact[i % 4] as number))).toBeLessThan(1.5);
  });
});

it("the guide's example of devices runs, with a device or without", () => {
  const result = runExample('docs/guide.md', '## Devices', '');
  expect(result.stderr).toBe('');
  expect(result.stdout).toMatch(/\[ 2, 32 \]\s*$/);
});

it("the guide's example of products runs", () => {
  const shapes =
    'for (const c of [query, key, value, h, y]) console.log(c.shape.join(), c.toArray().every(Number.isFinite));';
  const result = runExample('docs/guide.md', '## Products', shapes);
  expect(result.stderr).toBe('');
  expect(result.stdout.trim().split('\n')).toEqual(
    ['1,256', '1,64', '1,64', '1,512', '1,256'].map((shape) => `${shape} true`),
  );
});

it("the guide's example of pages runs", () => {
  const more = 'console.log(back.k.shape.join(), back.v.shape.join());';
  const result = runExample('docs/guide.md', '## Paged caches', more);
  expect(result.stderr).toBe('');
  expect(result.stdout.trim()).toBe('1,2,64 1,2,64');
});

it("the guide's example of paged caches runs", () => {
  const result = runExample('docs/guide.md', '## Paged cache for many sequences');
  expect(result.stderr).toBe('');
  // 300 tokens: 3 pages have left the 64 recent ones. 2 more and a page less; the match is of whole sealed pages.
  expect(result.stdout.trim()).toBe('301 238 192 3');
});
