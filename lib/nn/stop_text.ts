/**
 * Passes text through until one of some texts appears in it. What could be the beginning of one is held back until it
 * is known not to be.
 */
export class StopText {
  #held = '';
  #found = false;

  constructor(private readonly stops: readonly string[]) {}

  /** Whether a stop text came; nothing is passed after it. */
  get found(): boolean {
    return this.#found;
  }

  push(text: string): string {
    if (this.#found || text === '') return '';
    const all = this.#held + text;
    const at = this.stops
      .map((stop) => all.indexOf(stop))
      .reduce((first, found) => (found >= 0 && found < first ? found : first), all.length);
    if (at < all.length) {
      this.#found = true;
      this.#held = '';
      return all.slice(0, at);
    }
    const keep = Math.max(0, ...this.stops.map((stop) => partialMatch(all, stop)));
    this.#held = all.slice(all.length - keep);
    return all.slice(0, all.length - keep);
  }

  /** What is still held back, at the end of the text. */
  end(): string {
    const rest = this.#held;
    this.#held = '';
    return this.#found ? '' : rest;
  }
}

/** Length of the longest proper beginning of `stop` that `text` ends with. */
function partialMatch(text: string, stop: string): number {
  for (let length = Math.min(stop.length - 1, text.length); length > 0; length--) {
    if (text.endsWith(stop.slice(0, length))) return length;
  }
  return 0;
}
