import { described } from './arguments.js';
import { argumentError } from './errors.js';
import { type Isa, isas } from './generated.js';
import { native } from './native.js';

/** What this process computes with. */
export interface Machine {
  /** Version of the native library. */
  version: string;
  /** Best instruction set level of this processor. */
  isaAvailable: Isa;
  /** Levels that this processor runs, lowest first: `scalar` and those of its family. */
  isas: readonly Isa[];
  /** Level in force: `BITLOOM_ISA`, {@link setIsa}, or the best. */
  isa: Isa;
  /** Threads that an operator uses at most: `BITLOOM_THREADS`, {@link setThreads}, or the physical cores. */
  threads: number;
}

const names = Object.keys(isas) as Isa[];

/**
 * @example
 * ```ts
 * machine().isas; // ['scalar', 'avx2', 'avx512'], or on ARM ['scalar', 'neon', 'dotprod']
 * ```
 */
export function machine(): Machine {
  const { version, isaAvailable, isasSupported, isaActive, threads } = native.machine();
  return {
    version,
    isaAvailable: names[isaAvailable] as Isa,
    isas: isasSupported.map((isa) => names[isa] as Isa),
    isa: names[isaActive] as Isa,
    threads,
  };
}

/**
 * Forces an instruction set level for the whole process; undefined undoes it.
 *
 * @throws `BL_UNSUPPORTED` if this machine does not have the level
 */
export function setIsa(isa: Isa | undefined): void {
  if (isa !== undefined && !Object.hasOwn(isas, isa)) {
    throw argumentError(
      'BL_INVALID_ARGUMENT',
      `setIsa: isa is ${described(isa)}, expected one of ${names.join(', ')}`,
    );
  }
  native.setIsa(isa === undefined ? -1 : isas[isa]);
}

/**
 * Sets how many threads operators use; undefined: the default. Results do not depend on it.
 *
 * @throws `BL_INVALID_ARGUMENT` unless 1 to 256
 */
export function setThreads(threads: number | undefined): void {
  if (threads !== undefined && !(Number.isInteger(threads) && threads >= 1 && threads <= 256)) {
    throw argumentError(
      'BL_INVALID_ARGUMENT',
      `setThreads: threads is ${threads}, expected 1 to 256`,
    );
  }
  native.setThreads(threads ?? 0);
}
