// Finds the cases: every bench/<family>/<op>.mjs exports `cases({ tiny, quick })`.
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { root } from './native.mjs';

const notFamilies = new Set(['native', 'peers', 'out']);

/**
 * All cases of all operators, ordered by family and operator.
 *
 * A case is { family, op, case, format, m, n, k, cold, type, bytes, operations, prepare }: `type` is the
 * operand type of its multiply-adds ('f32', 'bf16' or 'i8'), `bytes` the least it must move, `operations`
 * the least it must compute (a multiply-add is two). prepare() gives { variants, body(run, variant),
 * error(), algorithm?(run) }; body is one call of a public operator.
 */
export async function allCases({ tiny = false, quick = false } = {}) {
  const list = [];
  for (const family of readdirSync(join(root, 'bench'), { withFileTypes: true })) {
    if (!family.isDirectory() || notFamilies.has(family.name)) continue;
    for (const file of readdirSync(join(root, 'bench', family.name)).sort()) {
      const operator = await import(`./${family.name}/${file}`);
      if (operator.cases !== undefined) list.push(...operator.cases({ tiny, quick }));
    }
  }
  return list;
}

/** The name that --filter and the output use. */
export const caseName = (one) =>
  `${one.op} ${one.format ?? ''} ${one.case} M=${one.m}`.replace(/\s+/g, ' ');
