import { mkdirSync, renameSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { performance } from 'node:perf_hooks';
import { described } from '../../arguments.js';
import { argumentError } from '../../errors.js';
import { type Isa, isas } from '../../generated.js';
import { machine } from '../../machine.js';
import { native } from '../../native.js';
import { QuantizedTensor } from '../../quantized_tensor.js';
import {
  type MatmulTuning,
  type SavedTuning,
  tuningIdentity,
  tuningPath,
  tuningValues,
  tuningWidths,
} from '../../saved_tuning.js';
import { Tensor } from '../../tensor.js';
import { matmul, matmulKernel } from './matmul.js';
import type { Algorithm, Compute } from './options.js';

/** Options of {@link tuneMatmul}. */
export interface TuneOptions {
  /** Level to tune; default: the one in force. */
  isa?: Isa;
  /** Threads of the measured calls; default: the pool's. */
  threads?: number;
  /** Time for each measured call in milliseconds; default 30. */
  budget?: number;
  /** [N, K] of the measured weights; default [2048, 2048]. */
  shape?: readonly [rows: number, cols: number];
  /** Called with a share of 1 as the work goes on. */
  onProgress?: (done: number) => void;
}

// A format for each width of codes; 0: what is computed in bf16.
const formatOfWidth = [
  'nf4_g128',
  'u1_g128',
  'u2_g128',
  'u3_g128',
  'u4_g128',
  'u5_g128',
  'u6_g128',
  'u7_g128',
  'u8_g128',
] as const;
const rowCounts = [1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96];
const never = 2 ** 30;
// Wider codes are looked up only where a call asks for it.
const widestLut = 3;

/**
 * Measures when which algorithm of `matmul` is fastest on this machine. Gives the table; {@link setMatmulTuning} puts
 * it in force, {@link saveTuning} keeps it. It can change speed only: which algorithm `auto` takes.
 *
 * @example
 * ```ts
 * const tuning = tuneMatmul();
 * setMatmulTuning(machine().isa, tuning);
 * saveTuning({ [machine().isa]: tuning });
 * ```
 */
export function tuneMatmul(options: TuneOptions = {}): MatmulTuning {
  const isa = options.isa ?? machine().isa;
  const tuning: MatmulTuning = { lutRows: [], tileRows: [] };
  for (let width = 0; width < tuningWidths; width++) {
    const { lut, tile } = tuneWidth(width, isa, options);
    tuning.lutRows.push(lut);
    tuning.tileRows.push(tile);
    options.onProgress?.((width + 1) / tuningWidths);
  }
  return tuning;
}

function tuneWidth(width: number, isa: Isa, options: TuneOptions): { lut: number; tile: number } {
  const [rows, cols] = options.shape ?? [2048, 2048];
  const format = formatOfWidth[width] as (typeof formatOfWidth)[number];
  // Zero bytes are weights like any: time does not depend on values.
  const b = QuantizedTensor.empty(format, [rows, cols], { layout: 'lanes16' });
  const compute: Compute = width === 0 ? 'bf16' : 'i8';
  const run = {
    isa,
    compute,
    ...(options.threads === undefined ? {} : { threads: options.threads }),
  };
  let lut = 0;
  let tile = never;
  for (const m of rowCounts) {
    const a = Tensor.zeros('f32', [m, cols]);
    const out = Tensor.zeros('f32', [m, rows]);
    const time = (algorithm: Algorithm): number => {
      if (matmulKernel(a, b, { ...run, algorithm, out }) === undefined)
        return Number.POSITIVE_INFINITY;
      return bestTime(() => matmul(a, b, { ...run, algorithm, out }), options.budget ?? 30);
    };
    const dequant = time('dequant');
    const table =
      lut === previousRows(m) && width > 0 && width <= widestLut
        ? time('lut')
        : Number.POSITIVE_INFINITY;
    const tiles = time('tile');
    if (table < Math.min(dequant, tiles)) lut = m;
    if (tiles < Math.min(dequant, table)) {
      tile = m;
      break;
    }
  }
  return { lut, tile };
}

const previousRows = (m: number): number => rowCounts[rowCounts.indexOf(m) - 1] ?? 0;

/** Milliseconds: the fastest of the calls that fit the budget, three at least. */
function bestTime(call: () => unknown, budget: number): number {
  let best = Number.POSITIVE_INFINITY;
  const begin = performance.now();
  for (let i = 0; i < 3 || performance.now() - begin < budget; i++) {
    const start = performance.now();
    call();
    best = Math.min(best, performance.now() - start);
  }
  return best;
}

/** The table in force at a level. */
export function matmulTuning(isa: Isa = machine().isa): MatmulTuning {
  const values = Array.from(native.matmulTuning(levelOf('matmulTuning', isa)));
  return { lutRows: values.slice(0, tuningWidths), tileRows: values.slice(tuningWidths) };
}

/**
 * Puts a table in force for this process; undefined: the built-in one.
 *
 * @throws `BL_INVALID_ARGUMENT` if it is no such table
 */
export function setMatmulTuning(isa: Isa, tuning: MatmulTuning | undefined): void {
  const level = levelOf('setMatmulTuning', isa);
  const values = tuning === undefined ? undefined : tuningValues(tuning);
  if (tuning !== undefined && values === undefined) {
    throw argumentError(
      'BL_INVALID_ARGUMENT',
      `setMatmulTuning: tuning is ${JSON.stringify(tuning)}, expected { lutRows, tileRows } of ${tuningWidths} whole numbers, at least 0 and 1`,
    );
  }
  native.setMatmulTuning(level, values);
}

/**
 * Keeps tables in the file that is read whenever bitloom is loaded: `BITLOOM_TUNING`, else `bitloom/tuning.json` in
 * the user's cache folder. It holds for this version on this kind of processor.
 *
 * @returns the file's path
 * @throws `BL_INVALID_ARGUMENT` if `BITLOOM_TUNING` is `off`
 */
export function saveTuning(
  tables: Partial<Record<Isa, MatmulTuning>>,
  path: string | undefined = tuningPath(),
): string {
  if (path === undefined) {
    throw argumentError(
      'BL_INVALID_ARGUMENT',
      'saveTuning: BITLOOM_TUNING is off, expected a path',
    );
  }
  const matmulTables: SavedTuning['matmul'] = {};
  for (const [isa, tuning] of Object.entries(tables)) {
    matmulTables[levelOf('saveTuning', isa)] = tuning;
  }
  const saved: SavedTuning = { ...tuningIdentity(native), matmul: matmulTables };
  mkdirSync(dirname(path), { recursive: true });
  const part = `${path}.${process.pid}.part`;
  writeFileSync(part, `${JSON.stringify(saved, undefined, 2)}\n`);
  renameSync(part, path);
  return path;
}

function levelOf(op: string, isa: string): number {
  if (Object.hasOwn(isas, isa)) return isas[isa as Isa];
  throw argumentError(
    'BL_INVALID_ARGUMENT',
    `${op}: isa is ${described(isa)}, expected one of ${Object.keys(isas).join(', ')}`,
  );
}
