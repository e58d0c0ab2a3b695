// What `bitloom tune` measured on this machine, kept in a file and put in force when the addon is loaded.
import { readFileSync } from 'node:fs';
import { cpus, homedir } from 'node:os';
import { join } from 'node:path';
import type { Native } from './native.js';

/** Widths of codes that a table tells apart: 1 to 8 bits, and 0 for what is computed in bf16. */
export const tuningWidths = 9;

/** When `algorithm: 'auto'` of `matmul` takes which algorithm; by the width of the weights' codes, 0 to 8. */
export interface MatmulTuning {
  /** `lut` up to so many activation rows; 0: never. */
  lutRows: number[];
  /** `tile` from so many activation rows on; `dequant` between. */
  tileRows: number[];
}

/** The file's contents. */
export interface SavedTuning {
  bitloom: string;
  processor: string;
  isaAvailable: number;
  /** By number of ISA level. */
  matmul: Record<string, MatmulTuning>;
}

/**
 * Where tuning is kept: `BITLOOM_TUNING` (`off`: nowhere), else `bitloom/tuning.json` in `XDG_CACHE_HOME` or
 * `~/.cache`.
 */
export function tuningPath(): string | undefined {
  const named = process.env.BITLOOM_TUNING;
  if (named === 'off') return undefined;
  if (named !== undefined && named !== '') return named;
  const cache = process.env.XDG_CACHE_HOME || join(homedir(), '.cache');
  return join(cache, 'bitloom', 'tuning.json');
}

/** What a file must name to hold here: it was measured by this version on this kind of processor. */
export function tuningIdentity(native: Native): Omit<SavedTuning, 'matmul'> {
  const { version, isaAvailable } = native.machine();
  return { bitloom: version, processor: cpus()[0]?.model.trim() ?? 'unknown', isaAvailable };
}

/** As the addon reads it; undefined if it is not such a table. */
export function tuningValues(tuning: unknown): Int32Array | undefined {
  const { lutRows, tileRows } = (tuning ?? {}) as Partial<Record<keyof MatmulTuning, unknown>>;
  const valid = (list: unknown, least: number): list is number[] =>
    Array.isArray(list) &&
    list.length === tuningWidths &&
    list.every((rows) => Number.isInteger(rows) && rows >= least && rows <= 2 ** 30);
  if (!valid(lutRows, 0) || !valid(tileRows, 1)) return undefined;
  return Int32Array.from([...lutRows, ...tileRows]);
}

/** Puts the saved tables in force. A file that is absent, broken or another machine's changes nothing. */
export function applySavedTuning(native: Native, path: string | undefined = tuningPath()): boolean {
  if (path === undefined) return false;
  let saved: Partial<SavedTuning> | null;
  try {
    saved = JSON.parse(readFileSync(path, 'utf8'));
  } catch {
    return false;
  }
  const identity = tuningIdentity(native);
  for (const [key, value] of Object.entries(identity)) {
    if (saved?.[key as keyof SavedTuning] !== value) return false;
  }
  const tables = Object.entries(saved?.matmul ?? {}).map(
    ([isa, tuning]) => [Number(isa), tuningValues(tuning)] as const,
  );
  const known = ([isa, values]: (typeof tables)[number]) =>
    native.machine().isasSupported.includes(isa) && values !== undefined;
  if (tables.length === 0 || !tables.every(known)) return false;
  for (const [isa, values] of tables) native.setMatmulTuning(isa, values);
  return true;
}
