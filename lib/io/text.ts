/** Whether every surrogate in `text` has its partner, so that UTF-8 can hold it. */
export function isWellFormed(text: string): boolean {
  // In a `u` pattern a pair is one code point, so Cs (surrogate) matches lone halves only.
  return !/\p{Cs}/u.test(text);
}
