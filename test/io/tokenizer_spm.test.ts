import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { BitloomError } from '../../lib/errors.js';
import { type GGUFValue, memorySource, readGGUF, tokenizerFromGGUF } from '../../lib/io/index.js';
import { hasStories260k, stories260kGGUF } from '../models/stories260k.js';
import { thrown, timed } from './raw.js';

type Token = [text: string, score: number, kind: number];

/** A vocabulary of `<unk>`, `<s>`, `</s>`, all bytes but those left out, and these tokens. */
function smallMetadata(more: Token[], { bytes = true } = {}): Map<string, GGUFValue> {
  const tokens: Token[] = [
    ['<unk>', 0, 2],
    ['<s>', 0, 3],
    ['</s>', 0, 3],
  ];
  for (let i = 0; bytes && i < 256; i++) {
    tokens.push([`<0x${i.toString(16).toUpperCase().padStart(2, '0')}>`, 0, 6]);
  }
  tokens.push(...more);
  return new Map<string, GGUFValue>([
    ['tokenizer.ggml.model', 'llama'],
    ['tokenizer.ggml.tokens', tokens.map(([text]) => text)],
    ['tokenizer.ggml.scores', tokens.map(([, score]) => score)],
    ['tokenizer.ggml.token_type', tokens.map(([, , kind]) => kind)],
  ]);
}
const small = (more: Token[], changes: [string, GGUFValue][] = [], options = {}) =>
  tokenizerFromGGUF({ metadata: new Map([...smallMetadata(more, options), ...changes]) });
const NORMAL = (texts: string): Token[] => texts.split(' ').map((text, i) => [text, -i, 1]);

describe.skipIf(!hasStories260k)('stories260K (needs ../shared/models)', () => {
  const load = () => tokenizerFromGGUF(readGGUF(memorySource(stories260kGGUF())));

  it('has the special tokens of the file', () => {
    const tokenizer = load();
    expect(tokenizer).toMatchObject({
      vocabSize: 512,
      bosId: 1,
      eosId: 2,
      eotIds: [2],
      addBos: true,
    });
    expect(tokenizer.tokenText(403)).toBe('▁Once');
    expect(tokenizer.tokenId('<0x0A>')).toBe(13);
  });

  // The ids that llama.cpp gives (node-llama-cpp 3.22.1), with the file of stories260kGGUF().
  it.each<[string, boolean, number[]]>([
    ['Once upon a time', false, [403, 407, 261, 378]],
    ['Lily said, "Hello!"\n', false, [317, 336, 432, 313, 440, 411, 306, 414, 443, 436, 13]],
    ['  two  spaces ', false, [410, 410, 259, 424, 414, 410, 262, 427, 412, 331, 419, 410]],
    [
      'grüße 🦙 漢',
      false,
      [298, 420, 198, 191, 198, 162, 411, 410, 243, 162, 169, 156, 410, 233, 191, 165],
    ],
    ['<s>a</s>', false, [410, 504, 419, 505, 412, 504, 492, 419, 505]],
    ['<s>a</s> b', true, [1, 261, 2, 410, 268]],
  ])('encodes %j as llama.cpp does', (text, special, ids) => {
    const tokenizer = load();
    expect(tokenizer.encode(text, { addBos: false, special })).toEqual(ids);
    expect(tokenizer.encode(text, { special })).toEqual([1, ...ids]);
    if (!special) expect(tokenizer.decode(ids)).toBe(text);
  });

  it('decodes what it encodes, whole and token by token', () => {
    const tokenizer = load();
    const text = fc.string({
      unit: fc.oneof(fc.string({ unit: 'grapheme' }), fc.constantFrom(' ', '\n', 'the ', 'and')),
    });
    fc.assert(
      fc.property(text, fc.boolean(), (text, addBos) => {
        fc.pre(!text.includes('▁')); // stands for a space, so it comes back as one
        fc.pre(!text.includes('\ufffd')); // what a decoder shows for a character cut in two
        const ids = tokenizer.encode(text, { addBos });
        expect(tokenizer.decode(ids)).toBe(text);
        const decoder = tokenizer.createDecoder();
        let pieces = '';
        for (const id of ids) {
          const piece = decoder.push(id);
          expect(piece).not.toContain('\ufffd');
          pieces += piece;
        }
        expect(pieces + decoder.end()).toBe(text);
      }),
      { numRuns: 300 },
    );
  });

  it('takes 200 KB of anything in less than two seconds', { timeout: 60_000 }, () => {
    const tokenizer = load();
    const story = 'Once upon a time, there was a little girl named Lily. ';
    for (const part of [story, 'a', ' ', '\n', '🦙', '"', '<s>', '</']) {
      const text = part.repeat(200_000 / part.length);
      const { value: ids, seconds } = timed(() =>
        tokenizer.encode(text, { special: part !== '<s>' }),
      );
      expect(seconds).toBeLessThan(2);
      expect(tokenizer.decode(ids) === text).toBe(true);
    }
  });
});

describe('SentencePiece', () => {
  it('joins the best pair first, the leftmost of equals', () => {
    const tokenizer = small([
      ['a', 0, 1],
      ['b', 0, 1],
      ['▁', 0, 1],
      ['aa', 5, 1],
      ['ab', 5, 1],
      ['aab', 1, 1],
    ]);
    const texts = (text: string) =>
      tokenizer.encode(text, { addBos: false }).map((id) => tokenizer.tokenText(id));
    expect(texts('aab')).toEqual(['▁', 'aab']);
    expect(texts('aaab')).toEqual(['▁', 'aa', 'ab']);
    expect(texts('abaa')).toEqual(['▁', 'ab', 'aa']);
  });

  it('puts a space in front as the file says', () => {
    const tokens = NORMAL('▁ a ▁a');
    expect(small(tokens).encode('a a')).toEqual([1, 261, 261]);
    const key = 'tokenizer.ggml.add_space_prefix';
    const without = small(tokens, [[key, false]]);
    expect(without.encode('a a')).toEqual([1, 260, 261]);
    expect(without.decode([261])).toBe(' a');
    expect(small(tokens).decode([1, 261, 261])).toBe('a a');
    expect(small(tokens).encode('')).toEqual([1]);
  });

  it('decodes on after a prompt without losing a space', () => {
    const tokenizer = small(NORMAL('▁ a ▁a'));
    const decoder = tokenizer.createDecoder({ after: [1, 261] });
    expect(decoder.push(261)).toBe(' a');
    expect(tokenizer.createDecoder({ after: [1] }).push(261)).toBe('a');
  });

  it('holds back unfinished characters and marks broken ones', () => {
    const tokenizer = small([]);
    const decoder = tokenizer.createDecoder();
    const byte = (value: number) => 3 + value;
    const llama = [0xf0, 0x9f, 0xa6, 0x99].map(byte);
    expect(llama.map((id) => decoder.push(id))).toEqual(['', '', '', '🦙']);
    expect(decoder.push(byte(0xf0))).toBe('');
    expect(decoder.push(byte(0x41))).toBe('\ufffdA');
    expect(decoder.push(byte(0xe6))).toBe('');
    expect(decoder.end()).toBe('\ufffd');
    expect(decoder.end()).toBe('');
    expect(tokenizer.decode([byte(0xef), byte(0xbb), byte(0xbf)])).toBe('\ufeff');
  });

  it('never makes control or byte tokens of text', () => {
    const tokenizer = small(NORMAL('▁ < s > / <s <0 x 4 1 <0x <0x4 <0x41 </s'));
    const ids = tokenizer.encode('<s><0x41></s>', { addBos: false });
    expect(ids.every((id) => id >= 259)).toBe(true);
    expect(tokenizer.decode(ids)).toBe('<s><0x41></s>');
    expect(tokenizer.encode('<s></s>', { addBos: false, special: true })).toEqual([1, 2]);
  });

  it('finds user-defined tokens in any text, longer ones first', () => {
    const tokenizer = small([...NORMAL('▁ a b'), ['ab', 0, 4], ['bab', 0, 4], ['  ', 0, 4]]);
    const texts = (text: string) =>
      tokenizer.encode(text, { addBos: false }).map((id) => tokenizer.tokenText(id));
    expect(texts('abab')).toEqual(['▁', 'a', 'bab']);
    expect(texts('a  a')).toEqual(['▁', 'a', '  ', '▁', 'a']);
    expect(tokenizer.decode(tokenizer.encode('ab'))).toBe('ab');
  });

  it('shows control tokens on request', () => {
    const tokenizer = small(NORMAL('▁ a ▁a'));
    expect(tokenizer.decode([1, 261, 2, 0])).toBe('a');
    expect(tokenizer.decode([1, 261, 2, 0], { special: true })).toBe('<s>a</s><unk>');
  });

  it('gives the unknown token where bytes are missing', () => {
    const tokenizer = small(NORMAL('▁ a'), [], { bytes: false });
    expect(tokenizer.encode('aéa')).toEqual([1, 3, 4, 0, 4]);
    const none = small(NORMAL('▁ a'), [['tokenizer.ggml.unknown_token_id', -1]], { bytes: false });
    expect(thrown(() => none.encode('é'))).toMatchObject({ code: 'BL_UNSUPPORTED' });
  });

  it('knows the tokens that end a turn', () => {
    const tokenizer = small(
      [
        ['<|im_end|>', 0, 1],
        ['x', 0, 1],
      ],
      [['tokenizer.ggml.eot_token_id', 260]],
    );
    expect(tokenizer.eotIds).toEqual([2, 259, 260]);
    expect(tokenizer.decode([259])).toBe('');
  });

  it.each<[string, unknown, string, string]>([
    [
      'a lone surrogate',
      'ab\ud800c',
      'BL_INVALID_ARGUMENT',
      'encode: text has a lone surrogate U+d800 at 2',
    ],
    ['half a pair at the end', '🦙'.slice(0, 1), 'BL_INVALID_ARGUMENT', 'U+d83e at 0'],
    ['no text', 7, 'BL_INVALID_ARGUMENT', 'encode: text is number, expected a string'],
    [
      'too much text',
      'a'.repeat(2 ** 24 + 1),
      'BL_OUT_OF_RANGE',
      'encode: text has 16777217 code units',
    ],
  ])('refuses %s', (_, text, code, message) => {
    const error = thrown(() => small([]).encode(text as string));
    expect(error).toMatchObject({ code });
    expect(error).not.toBeInstanceOf(BitloomError);
    expect((error as Error).message).toContain(message);
  });

  it.each<unknown>([-1, 259, 0.5, Number.NaN, '1', 2n, undefined])('refuses id %s', (id) => {
    const tokenizer = small([]);
    for (const run of [
      () => tokenizer.decode([id as number]),
      () => tokenizer.createDecoder().push(id as number),
      () => tokenizer.tokenText(id as number),
    ]) {
      const error = thrown(run);
      expect(error).toBeInstanceOf(RangeError);
      expect(error).toMatchObject({ code: 'BL_OUT_OF_RANGE' });
    }
  });
});

const KEY = 'tokenizer.ggml.';
const NOT_FOUND = 'BL_NOT_FOUND';
const INVALID = 'BL_INVALID_FILE';
describe('tokenizerFromGGUF refuses', () => {
  it.each<[string, [string, GGUFValue | undefined], string, string]>([
    ['no model', ['model', undefined], NOT_FOUND, 'tokenizer.ggml.model is missing'],
    ['another model', ['model', 'bert'], 'BL_UNSUPPORTED', 'is "bert", expected "llama" or "gpt2"'],
    [
      'a model that is no name',
      ['model', 3],
      INVALID,
      'tokenizer.ggml.model is a number, expected a string',
    ],
    ['no tokens', ['tokens', undefined], NOT_FOUND, 'tokenizer.ggml.tokens is missing or empty'],
    ['an empty vocabulary', ['tokens', []], NOT_FOUND, 'tokenizer.ggml.tokens is missing or empty'],
    [
      'tokens that are no list',
      ['tokens', 'abc'],
      INVALID,
      'tokens is a string, expected a list of type string',
    ],
    [
      'tokens that are no texts',
      ['tokens', ['a', 1]],
      INVALID,
      'tokens[1] is a number, expected a string',
    ],
    [
      'tokens that are equal',
      ['tokens', ['a', 'b', 'a']],
      INVALID,
      'token "a" has ids 0 and 2, expected unique tokens',
    ],
    [
      'few scores',
      ['scores', [1, 2]],
      INVALID,
      'scores has 2 entries, expected 259 (one for each token)',
    ],
    [
      'scores that are no numbers',
      ['scores', new Array(259).fill('a')],
      INVALID,
      'scores[0] is a string',
    ],
    [
      'a score that is NaN',
      ['scores', new Array(259).fill(Number.NaN)],
      INVALID,
      'scores[0] is NaN',
    ],
    ['few kinds', ['token_type', [1]], INVALID, 'token_type has 1 entries'],
    [
      'a bad byte token',
      ['token_type', new Array(259).fill(6)],
      INVALID,
      'byte token 0 is "<unk>", expected <0x00>',
    ],
    ['a bad BOS', ['bos_token_id', 259], INVALID, 'bos_token_id is 259, expected 0 to 258'],
    ['a BOS that is no number', ['eos_token_id', '2'], INVALID, 'eos_token_id is a string'],
    [
      'a prefix that is no switch',
      ['add_space_prefix', 1],
      INVALID,
      'add_space_prefix is a number, expected a boolean',
    ],
  ])('%s', (_, [key, value], code, message) => {
    const metadata = smallMetadata([]);
    if (value === undefined) metadata.delete(KEY + key);
    else metadata.set(KEY + key, value);
    const error = thrown(() => tokenizerFromGGUF({ metadata }));
    expect(error).toBeInstanceOf(BitloomError);
    expect(error).toMatchObject({ code, operator: 'tokenizerFromGGUF' });
    expect((error as Error).message).toContain(message);
  });
});
