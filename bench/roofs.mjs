// The machine's limits, measured in the same run as the cases, and the floor they give for a case.
import { existsSync, readFileSync } from 'node:fs';
import { addon, isas } from './native.mjs';
import { summary } from './statistics.mjs';

const isaNames = Object.keys(isas);

/** Bytes of the caches that the first processor sees: { L1, L2, L3 }. */
export function cacheSizes() {
  const sizes = { L1: 32 * 2 ** 10, L2: 2 ** 20, L3: 32 * 2 ** 20 }; // where the system does not tell
  for (let i = 0; i < 8; i++) {
    const folder = `/sys/devices/system/cpu/cpu0/cache/index${i}`;
    if (!existsSync(folder)) break;
    const read = (name) => readFileSync(`${folder}/${name}`, 'utf8').trim();
    if (read('type') === 'Instruction') continue;
    const kilobytes = Number.parseInt(read('size'), 10);
    if (kilobytes > 0) sizes[`L${read('level')}`] = kilobytes * 2 ** 10;
  }
  return sizes;
}

/** Rounds of 2 ms: short enough that some fall between the interruptions of a busy machine. */
const roundSeconds = 0.002;

export class Roofs {
  #caches = cacheSizes();
  #read = new Map();
  #multiply = new Map();
  #brackets = [];
  #isa;

  /** @param isa best level of the machine; @param quick fewer rounds; @param tiny a small memory buffer too */
  constructor(isa, { quick = false, tiny = false } = {}) {
    this.#isa = isas[isa];
    this.rounds = tiny ? 8 : quick ? 20 : 40;
    this.memoryBytes = tiny ? 64 * 2 ** 20 : Math.max(400 * 2 ** 20, 4 * this.#caches.L3);
  }

  /** Where a working set of `bytes` lies when `threads` read it again and again. */
  level(bytes, threads) {
    const { L1, L2, L3 } = this.#caches;
    // The nearest level that could hold it, so that the floor is one; of L3, which others share, half.
    if (bytes <= threads * L1) return 'L1';
    if (bytes <= threads * L2) return 'L2';
    return bytes <= L3 * 0.5 ? 'L3' : 'memory';
  }

  /** Bytes per second that `threads` read from `level`: the best round. */
  read(level, threads) {
    const key = `${level} ${threads}`;
    if (!this.#read.has(key)) {
      const { L1, L2, L3 } = this.#caches;
      const bytes = {
        L1: threads * L1 * 0.67,
        L2: threads * L2 * 0.5,
        L3: L3 * 0.2,
        memory: this.memoryBytes,
      }[level];
      const speeds = addon.readRoof(
        this.#isa,
        threads,
        Math.floor(bytes),
        roundSeconds,
        this.rounds,
      );
      if (speeds.length === 0)
        throw new Error(`bench: no memory for the read roof of ${bytes} bytes`);
      const { best, median } = rate(speeds, threads === 1 ? 0 : this.read(level, 1));
      this.#read.set(key, {
        level,
        threads,
        bytes: Math.floor(bytes),
        bytes_per_second: best,
        median,
      });
    }
    return this.#read.get(key).bytes_per_second;
  }

  /** Operations per second of the fastest instructions up to `isa` on operands of `type`. */
  multiply(type, isa, threads) {
    const roof = bestRoof(type, isa);
    const key = `${roof.name} ${threads}`;
    if (!this.#multiply.has(key)) {
      const speeds = addon.multiplyRoof(roof.index, threads, roundSeconds, this.rounds);
      const { best, median } = rate(speeds, threads === 1 ? 0 : this.multiply(type, isa, 1));
      this.#multiply.set(key, {
        name: roof.name,
        type,
        isa: isaNames[roof.isa],
        threads,
        operations_per_second: best,
        median,
      });
    }
    return this.#multiply.get(key).operations_per_second;
  }

  /**
   * Runs `body` with the AMX roof of `type` measured just before and after it, and gives [result, roof]:
   * the better of the two. AMX changes its speed by up to 4 times within seconds on shared machines.
   */
  bracket(label, type, isa, threads, body) {
    const roof = bestRoof(type, isa);
    if (isaNames[roof.isa] !== 'amx') return [body(), this.multiply(type, isa, threads)];
    this.multiply(type, isa, threads);
    const measure = () =>
      Math.max(...addon.multiplyRoof(roof.index, threads, roundSeconds, Math.min(this.rounds, 10)));
    const before = measure();
    const result = body();
    const after = measure();
    this.#brackets.push({ ...label, name: roof.name, threads, before, after });
    return [result, Math.max(before, after)];
  }

  toJSON() {
    return {
      read: [...this.#read.values()],
      multiply: [...this.#multiply.values()],
      brackets: this.#brackets,
    };
  }
}

/** More threads can do what one can: where they measure less, other programs had the processors. */
function rate(speeds, ofOneThread) {
  return { best: Math.max(ofOneThread, ...speeds), median: summary(speeds).median };
}

/** Levels without instructions for bf16 widen it and multiply in f32. */
function bestRoof(type, isa) {
  const allowed = addon.multiplyRoofs().filter((roof) => roof.isa <= isas[isa]);
  const own = allowed.filter((roof) => roof.type === type);
  const fitting = own.length > 0 ? own : allowed.filter((roof) => roof.type === 'f32');
  return fitting.reduce((best, roof) => (roof.isa > best.isa ? roof : best));
}
