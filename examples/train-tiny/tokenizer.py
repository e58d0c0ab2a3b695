"""Byte-level BPE with GPT-2's pre-tokenization: training, encoding, decoding.

    python3 tokenizer.py        train on the first training stories, write tokenizer.json

Ids: 256 byte symbols, then one per merge in rank order, then `<|endoftext|>` (BOS and EOS).
Source: Sennrich et al. 2016 (BPE); the byte-to-character table and the split pattern are GPT-2's.
"""

import collections
import functools
import json
import pathlib
import re

END = "<|endoftext|>"
VOCAB_SIZE = 1024
TABLE = pathlib.Path(__file__).with_name("tokenizer.json")

# GPT-2's pattern is 's|'t|... | ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+. Python's `re`
# has no \p classes: [^\W\d_] is \p{L}; \d differs from \p{N} only for signs such as fractions.
SPLIT = re.compile(
    r"'(?:s|t|re|ve|m|ll|d)| ?[^\W\d_]+| ?\d+| ?(?:_|[^\s\w])+|\s+(?!\S)|\s+")


def byte_symbols():
    """Byte -> printable character, 256 in all: itself where printable, else from U+0100 up."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [b for b in range(256) if b not in printable]
    return {**{b: chr(b) for b in printable}, **{b: chr(256 + i) for i, b in enumerate(hidden)}}


BYTE_SYMBOLS = byte_symbols()
SYMBOL_BYTES = {symbol: byte for byte, symbol in BYTE_SYMBOLS.items()}


def join_pair(symbols, pair):
    """Replaces each adjacent `pair` in the tuple `symbols` by its concatenation, left to right."""
    out, i = [], 0
    while i < len(symbols):
        if symbols[i:i + 2] == pair:
            out.append(pair[0] + pair[1])
            i += 2
        else:
            out.append(symbols[i])
            i += 1
    return tuple(out)


def train(texts, vocab_size=VOCAB_SIZE):
    """Merges, most frequent pair first; ties go to the lexicographically smaller pair."""
    counts = collections.Counter(piece for text in texts for piece in SPLIT.findall(text))
    pieces = {tuple(BYTE_SYMBOLS[b] for b in piece.encode()): n for piece, n in counts.items()}
    merges = []
    while len(merges) < vocab_size - 256 - 1:
        pairs = collections.Counter()
        for symbols, n in pieces.items():
            for pair in zip(symbols, symbols[1:]):
                pairs[pair] += n
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        pieces = {join_pair(symbols, best): n for symbols, n in pieces.items()}
    return merges


class Tokenizer:
    """Encodes and decodes with the merges in `tokenizer.json`."""

    def __init__(self, merges):
        self.merges = [tuple(pair) for pair in merges]
        self.tokens = [BYTE_SYMBOLS[b] for b in range(256)] + ["".join(m) for m in self.merges]
        self.tokens.append(END)
        assert len(set(self.tokens)) == len(self.tokens), "two merges give the same token"
        self.ids = {token: i for i, token in enumerate(self.tokens)}
        self.end = self.ids[END]
        self.rank = {pair: i for i, pair in enumerate(self.merges)}
        self.encode_piece = functools.lru_cache(maxsize=100_000)(self._encode_piece)

    @classmethod
    def load(cls):
        return cls(json.loads(TABLE.read_text())["merges"])

    def _encode_piece(self, piece):
        symbols = tuple(BYTE_SYMBOLS[b] for b in piece.encode())
        while len(symbols) > 1:
            best = min(zip(symbols, symbols[1:]), key=lambda p: self.rank.get(p, len(self.rank)))
            if best not in self.rank:
                break
            symbols = join_pair(symbols, best)
        return [self.ids[symbol] for symbol in symbols]

    def encode(self, text):
        """Text -> ids, without `<|endoftext|>`."""
        return [i for piece in SPLIT.findall(text) for i in self.encode_piece(piece)]

    def decode(self, ids):
        """Ids -> text; `<|endoftext|>` gives nothing."""
        symbols = "".join(self.tokens[i] for i in ids if i != self.end)
        return bytes(SYMBOL_BYTES[s] for s in symbols).decode(errors="replace")


if __name__ == "__main__":
    import text
    merges = train(text.stories(0, 6000))
    rows = ",\n  ".join(json.dumps(list(pair)) for pair in merges)
    TABLE.write_text('{"merges": [\n  ' + rows + "\n]}\n")
    tokenizer = Tokenizer(merges)
    sample = text.stories(1, 300)
    ids = [tokenizer.encode(s) for s in sample]
    assert [tokenizer.decode(i) for i in ids] == sample
    count = sum(map(len, ids))
    print(f"{len(tokenizer.tokens)} tokens; {count / 300:.0f} per story, "
          f"{sum(map(len, sample)) / count:.2f} characters per token")
