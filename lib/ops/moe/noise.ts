/** A uniform number in (0, 1) of `seed` and `index`: a counter-based generator (SplitMix's mixing, on 32 bits twice). */
export function uniformAt(seed: number, index: number): number {
  const high = Math.floor(index / 2 ** 32);
  let z = mix((seed ^ 0x9e3779b9) >>> 0);
  z = mix((z ^ mix((index ^ 0x85ebca6b) >>> 0)) >>> 0);
  z = mix((z + high) >>> 0);
  const low = mix((z + 0x6d2b79f5) >>> 0);
  // 32 + 20 bits, in the middle of their interval: neither 0 nor 1.
  return (z * 2 ** 20 + (low >>> 12) + 0.5) / 2 ** 52;
}

function mix(value: number): number {
  let z = value;
  z = Math.imul(z ^ (z >>> 16), 0x85ebca6b);
  z = Math.imul(z ^ (z >>> 13), 0xc2b2ae35);
  return (z ^ (z >>> 16)) >>> 0;
}

/** A standard normal number of `seed` and `index` (Box and Muller 1958). */
export function normalAt(seed: number, index: number): number {
  const radius = Math.sqrt(-2 * Math.log(uniformAt(seed, 2 * index)));
  return radius * Math.cos(2 * Math.PI * uniformAt(seed, 2 * index + 1));
}
