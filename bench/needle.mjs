// A needle in a haystack for models of children's stories: a name stated once at the beginning has to be said at the end, after
// sentences that have none. A model that does not recall guesses among the names.

const names = [
  'Lily',
  'Tim',
  'Tom',
  'Max',
  'Ben',
  'Mia',
  'Sue',
  'Sam',
  'Lucy',
  'Anna',
  'Jack',
  'Amy',
];
const hay = [
  'The sun was shining.',
  'There were many flowers in the park.',
  'The birds were singing in the trees.',
  'It was a nice day.',
  'There was a big red ball.',
  'The ball was in the grass.',
  'A dog came and barked.',
  'The dog was happy.',
  'There was a lot of food.',
  'The food was good.',
  'Then it started to rain.',
  'The rain was cold.',
];
/** How a story ends before the name; what policies may be told that they will be asked. */
export const cues = [' "I am happy," said', ' "I want to play," said'];

/** One story for each name, cue and length of hay. */
export function needles(lengths = [4, 8, 12]) {
  return lengths.flatMap((length) =>
    cues.flatMap((cue) =>
      names.map((name) => {
        const needle = `Once upon a time, there was a little kid named ${name}. ${name} liked to play in the park.`;
        return { name, text: [needle, ...hay.slice(0, length)].join(' ') + cue };
      }),
    ),
  );
}

/**
 * How many names are found: the first token of the right one is the likeliest among the first tokens of all names.
 *
 * @param cache options of the cache for each story, or a function that makes them or the cache itself
 * @param step tokens computed at once: a policy acts between them
 */
export async function findNeedles(decoder, { cache, step = 16, lengths } = {}) {
  const { tokenizer } = decoder;
  let found = 0;
  let kinds = 1; // names that begin with the same token are one candidate
  const stories = needles(lengths);
  for (const { name, text } of stories) {
    const ids = tokenizer.encode(text);
    const firsts = new Map(
      names.map((other) => [other, tokenizer.encode(`${text} ${other}`)[ids.length]]),
    );
    kinds = new Set(firsts.values()).size;
    const made = typeof cache === 'function' ? cache() : cache;
    const pages =
      typeof made?.acquire === 'function'
        ? made
        : decoder.createPagedCache({ capacity: ids.length, ...made });
    try {
      let logits;
      for (let at = 0; at < ids.length; at += step) {
        logits = (await decoder.forwardAsync(ids.slice(at, at + step), { cache: pages })).data;
      }
      const right = logits[firsts.get(name)];
      if ([...firsts.values()].every((id) => logits[id] <= right)) found++;
    } finally {
      pages.dispose();
    }
  }
  return { found, of: stories.length, chance: 1 / kinds };
}
