// Seeded data of the cases: the same numbers in every run.
import { bitloom, detach } from './native.mjs';

/** Uniform numbers in [0, 1): the mulberry32 generator. */
export function uniform(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let x = Math.imul(state ^ (state >>> 15), state | 1);
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61);
    return ((x ^ (x >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** `count` normal numbers (Box and Muller 1958). */
export function gaussian(count, seed = 1, scale = 1) {
  const next = uniform(seed);
  const values = new Float32Array(count);
  for (let i = 0; i < count; i += 2) {
    const radius = scale * Math.sqrt(-2 * Math.log(1 - next()));
    const angle = 2 * Math.PI * next();
    values[i] = radius * Math.cos(angle);
    if (i + 1 < count) values[i + 1] = radius * Math.sin(angle);
  }
  return values;
}

/** Gaussian f32 tensor. */
export function gaussianTensor(shape, seed = 1) {
  const count = shape.reduce((product, size) => product * size, 1);
  return new bitloom.Tensor('f32', gaussian(count, seed), shape);
}

/**
 * Bytes of Gaussian weights [rows, cols] in `format`. At most 128 rows are made and quantized; further
 * rows repeat them, since no kernel's time depends on the values.
 */
export function weightBytes(format, rows, cols, seed = 2) {
  const made = Math.min(rows, 128);
  const source = new bitloom.Tensor('f32', gaussian(made * cols, seed, 0.02), [made, cols]);
  const block = bitloom.quantize(source, format).bytes;
  const bytes = new Uint8Array((block.length / made) * rows);
  for (let at = 0; at < bytes.length; at += block.length) {
    bytes.set(block.subarray(0, Math.min(block.length, bytes.length - at)), at);
  }
  return bytes;
}

/** More than any cache of this kind of machine: what `cold` cases walk through. */
export const coldBytes = 320 * 2 ** 20;

let pool = new Uint8Array(0);

/** `count` copies of `bytes` in one piece of memory that the next call reuses. */
export function copies(bytes, count) {
  const step = Math.ceil(bytes.length / 64) * 64;
  if (pool.length < step * count) {
    if (pool.length > 0) detach(pool.buffer);
    pool = bitloom.Tensor.zeros('u8', [step * count]).bytes; // aligned as caches and weights are
  }
  return Array.from({ length: count }, (_, i) => {
    const copy = pool.subarray(i * step, i * step + bytes.length);
    copy.set(bytes);
    return copy;
  });
}
