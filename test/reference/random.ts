/** Deterministic test data: a small counter-based generator (SplitMix64's finalizer on 32 bits). */
export function randomSource(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x9e3779b9) >>> 0;
    let z = state;
    z = Math.imul(z ^ (z >>> 16), 0x85ebca6b);
    z = Math.imul(z ^ (z >>> 13), 0xc2b2ae35);
    return ((z ^ (z >>> 16)) >>> 0) / 2 ** 32;
  };
}

/** Standard normal values (Box and Muller 1958), as f32. */
export function gaussian(count: number, seed = 1, scale = 1): Float32Array {
  const random = randomSource(seed);
  return Float32Array.from({ length: count }, () => {
    const radius = Math.sqrt(-2 * Math.log(1 - random()));
    return scale * radius * Math.cos(2 * Math.PI * random());
  });
}

export function randomBytes(count: number, seed = 1): Uint8Array {
  const random = randomSource(seed);
  return Uint8Array.from({ length: count }, () => Math.floor(random() * 256));
}

/** Sum of squared differences. */
export function squaredError(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += ((a[i] as number) - (b[i] as number)) ** 2;
  return sum;
}

/** Byte at which two arrays first differ, -1 if they are the same: quicker than comparing deeply. */
export function firstDifference(a: ArrayBufferView, b: ArrayBufferView): number {
  const left = Buffer.from(a.buffer, a.byteOffset, a.byteLength);
  const right = Buffer.from(b.buffer, b.byteOffset, b.byteLength);
  if (left.equals(right)) return -1;
  const at = left.findIndex((byte, i) => byte !== right[i]);
  return at < 0 ? left.length : at;
}
