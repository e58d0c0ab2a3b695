// A plain model of PagedKVCache: every sequence is an array of token ids, and keys and values are functions of the id.
import { expect } from 'vitest';
import { Tensor } from '../../../lib/index.js';
import {
  PagedKVCache,
  type PagedKVCacheOptions,
  type PagedKVSequence,
} from '../../../lib/nn/index.js';

export const shape = { numLayers: 2, numKvHeads: 2, headDim: 16, valueDim: 8, pageSize: 8 };

/** Numbers in [-1, 1] that f16 holds exactly. */
function noise(id: number, layer: number, channel: number): number {
  let t = Math.imul(id * 64 + layer * 7919 + channel * 104729 + 1, 0x9e3779b1);
  t = Math.imul(t ^ (t >>> 15), 0x85ebca6b);
  return (((t ^ (t >>> 13)) >>> 0) % 1025) / 512 - 1;
}

/** [ids, heads, dim] */
function tensor(ids: readonly number[], layer: number, dim: number): Tensor<'f32'> {
  const width = shape.numKvHeads * dim;
  const data = new Float32Array(ids.length * width);
  for (const [t, id] of ids.entries()) {
    for (let c = 0; c < width; c++) data[t * width + c] = noise(id, layer, c);
  }
  return new Tensor('f32', data, [ids.length, shape.numKvHeads, dim]);
}

export const keysOf = (ids: readonly number[], layer: number) => tensor(ids, layer, shape.headDim);
export const valuesOf = (ids: readonly number[], layer: number) =>
  tensor(ids, layer + 50, shape.valueDim);

/** The largest difference of two tensors of the same shape. */
export function difference(a: Tensor<'f32'> | undefined, b: Tensor<'f32'>): number {
  expect(a?.shape).toEqual(b.shape);
  const [x, y] = [(a as Tensor<'f32'>).data, b.data];
  let most = 0;
  for (let i = 0; i < y.length; i++) {
    const error = Math.abs((x[i] as number) - (y[i] as number));
    if (!(error <= most)) most = error; // NaN counts
  }
  return most;
}

/** Gives every layer the tokens. */
export function appendIds(sequence: PagedKVSequence, ids: readonly number[]): void {
  for (let layer = 0; layer < shape.numLayers; layer++) {
    sequence.append(layer, keysOf(ids, layer), valuesOf(ids, layer));
  }
}

export class KVModel {
  readonly cache: PagedKVCache;
  readonly entries = new Map<PagedKVSequence, number[]>();

  constructor(
    options: Partial<PagedKVCacheOptions>,
    /** Of a value that has been encoded some times. */
    readonly tolerance: number,
  ) {
    this.cache = new PagedKVCache({ ...shape, ...options });
  }

  create(): PagedKVSequence {
    return this.add(this.cache.create(), []);
  }

  add(sequence: PagedKVSequence, ids: number[]): PagedKVSequence {
    this.entries.set(sequence, ids);
    return sequence;
  }

  ids(sequence: PagedKVSequence): number[] {
    return this.entries.get(sequence) as number[];
  }

  append(sequence: PagedKVSequence, ids: readonly number[]): void {
    appendIds(sequence, ids);
    this.ids(sequence).push(...ids);
  }

  free(sequence: PagedKVSequence): void {
    sequence.free();
    this.entries.delete(sequence);
  }

  /** All sequences hold what was appended. */
  check(): void {
    const { recent, pageSize } = this.cache;
    for (const [sequence, ids] of this.entries) {
      expect(sequence.length).toBe(ids.length);
      if (sequence.swapped) continue;
      if (this.cache.hasRecent) {
        expect(sequence.sealedLength % pageSize).toBe(0);
        expect(ids.length - sequence.sealedLength).toBeLessThan(recent + pageSize);
      }
      for (let layer = 0; layer < shape.numLayers; layer++) {
        const { k, v } = sequence.gather(layer);
        expect(difference(k, keysOf(ids, layer))).toBeLessThanOrEqual(this.tolerance);
        expect(difference(v, valuesOf(ids, layer))).toBeLessThanOrEqual(this.tolerance);
        // Recent tokens have been rounded to f16 only, which their values are.
        const { sealedLength } = sequence;
        if (!this.cache.hasRecent || ids.length === sealedLength) continue;
        const newest = keysOf(ids.slice(sealedLength), layer);
        const { k: last } = sequence.gather(layer, sealedLength);
        if (!this.requantized.has(sequence)) expect(difference(last, newest)).toBe(0);
      }
    }
  }

  /** Sequences where sealed tokens have become recent ones again. */
  readonly requantized = new Set<PagedKVSequence>();

  /** Frees everything: nothing is left. */
  finish(): void {
    for (const sequence of [...this.entries.keys()]) this.free(sequence);
    this.cache.clearCached();
    const { sealed, recent, usedBytes, swappedBytes } = this.cache.stats;
    expect([sealed.used, sealed.sequences, sealed.free]).toEqual([0, 0, sealed.total]);
    expect([recent?.used ?? 0, recent?.sequences ?? 0]).toEqual([0, 0]);
    expect([usedBytes, swappedBytes]).toEqual([0, 0]);
    this.cache.dispose();
  }
}
