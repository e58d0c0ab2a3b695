import type { KVSegment } from '../../ops/attention/options.js';
import { Tensor } from '../../tensor.js';
import type { Kind, KVStep } from './kv_step.js';

/** Block tables and lengths of one of the two kinds of pages. */
type Tables = Pick<KVSegment, 'blockTable' | 'lengths'>;

/**
 * What kernels read of a step of several sequences: all of it in one buffer, as a typed array with memory of its own costs more
 * than filling it.
 */
export class StepArrays {
  /** New tokens of all sequences. */
  readonly tokens: number;
  /** Shape `[tokens]`. */
  readonly positions: Tensor<'i32'>;
  /** Shape `[sequences + 1]`. */
  readonly cuQueries: Tensor<'i32'>;
  /** Shape `[tokens]`; undefined: no token goes there. */
  readonly recentSlots: Tensor<'i32'> | undefined;
  readonly sealedSlots: Tensor<'i32'> | undefined;
  /** Slots of recent tokens that are sealed, and where they go; undefined: there are none. */
  readonly leaving: { readonly from: Tensor<'i32'>; readonly to: Tensor<'i32'> } | undefined;
  readonly sealed: Tables;
  readonly recent: Tables | undefined;

  constructor(steps: readonly KVStep[], hasRecent: boolean) {
    let [tokens, atOnce, leaving, width, recentWidth] = [0, 0, 0, 1, 1];
    for (const step of steps) {
      tokens += step.count;
      atOnce += step.atOnce;
      leaving += step.leaving;
      width = Math.max(width, step.numPages('sealed'));
      if (hasRecent) recentWidth = Math.max(recentWidth, step.numPages('recent'));
    }
    this.tokens = tokens;
    const sealedSlots = atOnce > 0 ? tokens : 0;
    const recentSlots = tokens - atOnce > 0 ? tokens : 0;
    const sequences = steps.length;
    const rows = width + 1 + (hasRecent ? recentWidth + 1 : 0);
    const fixed = tokens + sequences + 1 + sealedSlots + recentSlots + 2 * leaving;
    const memory = new Int32Array(fixed + sequences * rows);
    let used = 0;
    const take = (count: number): Int32Array => {
      used += count;
      return memory.subarray(used - count, used);
    };

    const positions = take(tokens);
    const cu = take(sequences + 1);
    const toSealed = take(sealedSlots);
    const toRecent = take(recentSlots);
    const from = take(leaving);
    const to = take(leaving);
    let [token, moved] = [0, 0];
    for (let i = 0; i < sequences; i++) {
      const step = steps[i] as KVStep;
      if (sealedSlots > 0) step.writeSealedSlots(toSealed, token);
      if (recentSlots > 0) step.writeRecentSlots(toRecent, token);
      if (leaving > 0) step.writeLeaving(from, to, moved);
      moved += step.leaving;
      const start = step.sealedBefore + step.recentBefore - token;
      for (const end = token + step.count; token < end; token++) positions[token] = start + token;
      cu[i + 1] = token;
    }
    this.positions = vector(positions);
    this.cuQueries = vector(cu);
    this.sealedSlots = sealedSlots > 0 ? vector(toSealed) : undefined;
    this.recentSlots = recentSlots > 0 ? vector(toRecent) : undefined;
    this.leaving = leaving > 0 ? { from: vector(from), to: vector(to) } : undefined;

    const tables = (of: Kind, columns: number): Tables => {
      const table = take(sequences * columns);
      const lengths = take(sequences);
      for (let i = 0; i < sequences; i++) {
        const step = steps[i] as KVStep;
        step.writePages(of, table, i * columns);
        lengths[i] = step.length(of);
      }
      return {
        blockTable: new Tensor('i32', table, [sequences, columns]),
        lengths: vector(lengths),
      };
    };
    this.sealed = tables('sealed', width);
    this.recent = hasRecent ? tables('recent', recentWidth) : undefined;
  }
}

const vector = (data: Int32Array): Tensor<'i32'> => new Tensor('i32', data, [data.length]);
