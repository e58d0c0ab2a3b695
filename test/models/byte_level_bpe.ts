import type { GGUFValue } from '../../lib/io/index.js';

const SAMPLE = `Once upon a time there was a little girl. She couldn't wait; they'LL see, I'm sure we've won.
Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich. Съешь же ещё этих мягких французских булок.
def merge(left, right):  # 1234567890 == 10 ** 9
\treturn [left[0]] + right[1:] if right else None;   \r\n\n  if (x != y) { print("100%"); }
敏捷的棕色狐狸跳过了懒狗。안녕하세요 세계. 🦙🦙 HTTPServer camelCase snake_case https://example.org/a?b=c&d=e
`;

/** The characters of byte-level vocabularies, by byte; written here again so that a test does not check itself. */
export function byteChars(): string[] {
  const chars: string[] = [];
  let other = 256;
  for (let byte = 0; byte < 256; byte++) {
    const printable =
      (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || (byte >= 174 && byte <= 255);
    chars.push(String.fromCodePoint(printable ? byte : other++));
  }
  return chars;
}

/** A small vocabulary trained on a sample text: 256 bytes, the merges, then the special tokens. */
export interface SmallBPE {
  readonly tokens: string[];
  readonly merges: string[];
  readonly types: number[];
}

/** Trains `count` merges, the most frequent pair first, earlier pairs first among equals. */
export function trainSmallBPE(count: number, specials: readonly [string, number][]): SmallBPE {
  const chars = byteChars();
  const words = (SAMPLE.repeat(2).match(/\s?\S+|\s+/g) ?? []).map((word) =>
    [...new TextEncoder().encode(word)].map((byte) => chars[byte] ?? ''),
  );
  const merges: string[] = [];
  while (merges.length < count) {
    const pairs = new Map<string, number>();
    for (const word of words) {
      for (let i = 1; i < word.length; i++) {
        const pair = `${word[i - 1]} ${word[i]}`;
        pairs.set(pair, (pairs.get(pair) ?? 0) + 1);
      }
    }
    const [best] = [...pairs].reduce((a, b) => (b[1] > a[1] ? b : a));
    const [left = '', right = ''] = best.split(' ');
    merges.push(best);
    for (const word of words) {
      for (let i = word.length - 1; i > 0; i--) {
        if (word[i - 1] === left && word[i] === right) word.splice(i - 1, 2, left + right);
      }
    }
  }
  const joined = merges.map((merge) => merge.replace(' ', ''));
  const tokens = [...chars, ...new Set(joined), ...specials.map(([text]) => text)];
  const types = tokens.map((_, id) => specials[id - tokens.length + specials.length]?.[1] ?? 1);
  return { tokens, merges, types };
}

/** Special tokens of {@link smallBPEMetadata}. */
export const SMALL_BPE_SPECIALS: readonly [string, number][] = [
  ['<|begin|>', 3],
  ['<|im_end|>', 3],
  ['<think>', 4],
  ['<think>!', 4],
];

/** Tokenizer metadata of a GGUF file with a byte-level vocabulary of 512 tokens. */
export function smallBPEMetadata(pre?: string): Map<string, GGUFValue> {
  const { tokens, merges, types } = trainSmallBPE(252, SMALL_BPE_SPECIALS);
  return new Map<string, GGUFValue>([
    ['tokenizer.ggml.model', 'gpt2'],
    ...(pre === undefined ? [] : [['tokenizer.ggml.pre', pre] as [string, GGUFValue]]),
    ['tokenizer.ggml.tokens', tokens],
    ['tokenizer.ggml.token_type', types],
    ['tokenizer.ggml.merges', merges],
    ['tokenizer.ggml.bos_token_id', tokens.indexOf('<|begin|>')],
    ['tokenizer.ggml.eos_token_id', tokens.indexOf('<|im_end|>')],
  ]);
}
