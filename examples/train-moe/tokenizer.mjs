// A tokenizer of a text's own: byte-level BPE (Sennrich et al. 2016) with the alphabet and the splitting of GPT-2.
import { tokenizerFromGGUF } from 'bitloom/io';

const end = '<|endoftext|>';
const splitting = /'(?:s|t|re|ve|m|ll|d)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+/gu;

/** Byte -> printable character: itself where it is one, else from U+0100 up. */
function byteSymbols() {
  const isPrintable = (byte) =>
    (byte > 32 && byte < 127) || (byte > 160 && byte < 256 && byte !== 173);
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) =>
    String.fromCharCode(isPrintable(byte) ? byte : next++),
  );
}

/** `symbols` with each adjacent pair of `left` and `right` as one. */
function joined(symbols, left, right) {
  const out = [];
  for (let i = 0; i < symbols.length; i++) {
    const isPair = symbols[i] === left && symbols[i + 1] === right;
    out.push(isPair ? left + right : symbols[i]);
    if (isPair) i++;
  }
  return out;
}

/** The pairs to merge, most frequent first; of equals the one that is first in the alphabet. */
function findMerges(book, count) {
  const symbolOf = byteSymbols();
  const pieces = new Map();
  for (const [piece] of book.matchAll(splitting)) {
    const known = pieces.get(piece);
    if (known !== undefined) known.count++;
    else pieces.set(piece, { symbols: [...Buffer.from(piece)].map((b) => symbolOf[b]), count: 1 });
  }
  const merges = [];
  while (merges.length < count) {
    const counts = new Map();
    for (const { symbols, count: times } of pieces.values()) {
      for (let i = 0; i + 1 < symbols.length; i++) {
        const pair = `${symbols[i]} ${symbols[i + 1]}`;
        counts.set(pair, (counts.get(pair) ?? 0) + times);
      }
    }
    const [best] = [...counts].reduce((a, b) =>
      b[1] > a[1] || (b[1] === a[1] && b[0] < a[0]) ? b : a,
    );
    merges.push(best);
    const [left, right] = best.split(' ');
    for (const [text, piece] of pieces) {
      piece.symbols = joined(piece.symbols, left, right);
      if (piece.symbols.length === 1) pieces.delete(text); // nothing to merge any more
    }
  }
  return merges;
}

/**
 * A tokenizer of `size` tokens: 256 bytes, merges, and one that begins and ends texts.
 *
 * @returns the tokenizer, and its metadata in a GGUF file
 */
export function trainTokenizer(text, size) {
  const merges = findMerges(text, size - 257);
  const tokens = [...byteSymbols(), ...merges.map((pair) => pair.replace(' ', '')), end];
  const metadata = {
    'tokenizer.ggml.model': 'gpt2',
    'tokenizer.ggml.pre': 'gpt-2',
    'tokenizer.ggml.tokens': tokens,
    'tokenizer.ggml.token_type': tokens.map((token) => (token === end ? 3 : 1)), // control, normal
    'tokenizer.ggml.merges': merges,
    'tokenizer.ggml.bos_token_id': size - 1,
    'tokenizer.ggml.eos_token_id': size - 1,
    'tokenizer.ggml.add_bos_token': true,
    'tokenizer.ggml.add_eos_token': false,
  };
  return {
    metadata,
    tokenizer: tokenizerFromGGUF({ metadata: new Map(Object.entries(metadata)) }),
  };
}
