// The text: Alice's Adventures in Wonderland, whose last chapter is held out.
import { readFileSync } from 'node:fs';

/** A chapter of alice.txt on each side: all but the last one, and that. */
export function readBook() {
  const chapters = readFileSync(new URL('alice.txt', import.meta.url), 'utf8').split('\n\n');
  const heldOut = chapters.pop();
  return { text: chapters.join('\n\n'), heldOut };
}
