// The text: stories that the grammar of ../train-tiny writes, as tokens of its tokenizer.
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { memorySource, readGGUF, tokenizerFromGGUF } from 'bitloom/io';

const folder = new URL('../train-tiny/', import.meta.url);

/** Metadata and tokenizer of ../tiny.gguf. */
export function readTokenizer() {
  const { metadata } = readGGUF(
    memorySource(readFileSync(new URL('../tiny.gguf', import.meta.url))),
  );
  return { metadata, tokenizer: tokenizerFromGGUF({ metadata }) };
}

/** `count` stories of a seed, each behind a BOS. */
export function storyTokens(tokenizer, seed, count) {
  const script = fileURLToPath(new URL('text.py', folder));
  const text = execFileSync('python3', [script, String(seed), String(count)], {
    encoding: 'utf8',
    maxBuffer: 2 ** 30,
  });
  return text
    .trimEnd()
    .split('\n\n')
    .map((story) => tokenizer.encode(story, { addBos: true }));
}
