/** Little-endian pieces to put malformed files together by hand. */
export const raw = {
  u32: (value: number) => new Uint8Array(Uint32Array.of(value).buffer),
  u64: (value: number | bigint) =>
    new Uint8Array(BigUint64Array.of(BigInt.asUintN(64, BigInt(value))).buffer),
  bytes: (...values: number[]) => Uint8Array.from(values),
  zeros: (count: number) => new Uint8Array(count),
  text: (text: string) => new TextEncoder().encode(text),
  /** A GGUF string: length, then UTF-8. */
  string: (text: string) => join(raw.u64(Buffer.byteLength(text)), raw.text(text)),
};

/** Pieces in a row. */
export function join(...pieces: Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(pieces));
}

/** Calls `run` and gives what it throws. */
export function thrown(run: () => unknown): unknown {
  try {
    run();
  } catch (error) {
    return error;
  }
  return undefined;
}

/** What `run` gives and the processor time it took, which other programs on the machine do not lengthen. */
export function timed<T>(run: () => T): { value: T; seconds: number } {
  const start = process.cpuUsage();
  const value = run();
  const { user, system } = process.cpuUsage(start);
  return { value, seconds: (user + system) / 1e6 };
}
