import { Tokenizer as Reference } from '@huggingface/tokenizers';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type GGUFValue, tokenizerFromGGUF } from '../../lib/io/index.js';
import { PRE_TOKENIZERS, preTokenizer, splitWords } from '../../lib/io/tokenizer_pre.js';
import { byteChars, smallBPEMetadata, trainSmallBPE } from '../models/byte_level_bpe.js';
import { thrown, timed } from './raw.js';

const load = (pre?: string) => tokenizerFromGGUF({ metadata: smallBPEMetadata(pre) });
const TRICKY =
  "She couldn't wait; they'LL see 1234567 things!\r\n\n  if (x != 10) { } 狐狸 🦙<think>!<|im_end|>";
// Tokens of the parts that all pre-tokenizers treat alike.
const START = [83, 104, 101, 327, 39, 116, 330, 59, 333, 39, 76, 76, 338];
const MIDDLE = [277, 105, 110, 103, 115, 33, 13, 10, 10, 32, 488];
const END = [274, 144, 274, 184, 32, 300, 511, 60, 124, 105, 109, 95, 266, 100, 124, 62];
const DIGITS = [32, 49, 50, 51, 52, 53, 54, 55];

describe('byte-level BPE', () => {
  // The ids that llama.cpp gives (node-llama-cpp 3.22.1) for a model with this vocabulary.
  it.each<[string, number[], number[]]>([
    ['gpt-2', [462], [501, 120, 504, 468, 41, 507, 32, 125, 32]],
    ['llama-bpe', DIGITS, [501, 120, 504, 32, 49, 48, 41, 507, 32, 125, 32]],
    ['qwen2', DIGITS, [501, 120, 504, 32, 49, 48, 41, 507, 32, 125, 32]],
    ['falcon', DIGITS, [32, 40, 120, 32, 33, 61, 468, 41, 32, 123, 32, 125, 32]],
    ['default', DIGITS, [32, 40, 120, 32, 33, 61, 32, 49, 48, 41, 32, 123, 32, 125, 32]],
    ['deepseek-coder', DIGITS, [501, 120, 503, 61, 32, 49, 48, 41, 507, 32, 125, 32]],
  ])('with %s encodes as llama.cpp does', (pre, digits, code) => {
    const tokenizer = load(pre);
    const ids = tokenizer.encode(TRICKY, { addBos: false });
    expect(ids).toEqual([...START, ...digits, ...MIDDLE, ...code, ...END]);
    expect(tokenizer.decode(ids)).toBe(TRICKY);
    const special = { addBos: false, special: true };
    expect(tokenizer.encode('a<|im_end|> b<think>!', special)).toEqual([97, 509, 32, 98, 511]);
  });

  // The patterns of the models' own tokenizer.json, in the words of the reference engine.
  const patterns: [string, string, boolean][] = [
    [
      'gpt-2',
      "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+",
      false,
    ],
    [
      'llama-bpe',
      "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
      true,
    ],
    [
      'qwen2',
      "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
      false,
    ],
    [
      'gpt-4o',
      "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
      false,
    ],
  ];
  it.each(patterns)(
    'with %s encodes as @huggingface/tokenizers does',
    (pre, regex, ignoreMerges) => {
      const { tokens, merges } = trainSmallBPE(252, []);
      const reference = new Reference(
        {
          added_tokens: [],
          normalizer: null,
          post_processor: null,
          decoder: { type: 'ByteLevel' },
          pre_tokenizer: {
            type: 'Sequence',
            pretokenizers: [
              { type: 'Split', pattern: { Regex: regex }, behavior: 'Isolated', invert: false },
              { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: false },
            ],
          },
          model: {
            type: 'BPE',
            vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
            merges,
            ignore_merges: ignoreMerges,
          },
        },
        {},
      );
      const metadata = smallBPEMetadata(pre);
      metadata.set('tokenizer.ggml.tokens', tokens);
      for (const key of ['token_type', 'bos_token_id', 'eos_token_id']) {
        metadata.delete(`tokenizer.ggml.${key}`);
      }
      const tokenizer = tokenizerFromGGUF({ metadata });
      const part = fc.oneof(
        fc.constantFrom(
          ' ',
          '  ',
          '\n',
          '\r\n',
          '\t',
          "'s",
          "'LL",
          '123',
          'the',
          ' a',
          '://',
          'é',
          'ǅ',
          'A',
          'ि',
          '\u0085',
          '\u3000',
          '漢',
          '🦙',
          '!=',
        ),
        fc.string({ unit: 'grapheme', maxLength: 4 }),
      );
      fc.assert(
        fc.property(fc.array(part, { maxLength: 12 }), (parts) => {
          const text = parts.join('');
          const ids = tokenizer.encode(text);
          expect(ids).toEqual(reference.encode(text, { add_special_tokens: false }).ids);
          expect(tokenizer.decode(ids)).toBe(text);
        }),
        { numRuns: 300 },
      );
    },
  );

  it('begins with BOS where model or file say so', () => {
    const begin = 508;
    expect(load('llama-bpe').encode('a')).toEqual([begin, 97]);
    expect(load('qwen2').encode('a')).toEqual([97]);
    expect(load('qwen2').encode('a', { addBos: true })).toEqual([begin, 97]);
    const metadata = smallBPEMetadata('llama-bpe').set('tokenizer.ggml.add_bos_token', false);
    expect(tokenizerFromGGUF({ metadata }).encode('a')).toEqual([97]);
    metadata.delete('tokenizer.ggml.bos_token_id');
    const none = tokenizerFromGGUF({ metadata });
    expect(none.bosId).toBeUndefined();
    expect(thrown(() => none.encode('a', { addBos: true }))).toMatchObject({
      code: 'BL_INVALID_ARGUMENT',
    });
  });

  it('takes a whole word before merges where the model does', () => {
    const changes = (pre: string) => {
      const metadata = smallBPEMetadata(pre);
      const tokens = [...(metadata.get('tokenizer.ggml.tokens') as string[]), 'qqq'];
      const types = [...(metadata.get('tokenizer.ggml.token_type') as number[]), 1];
      metadata.set('tokenizer.ggml.tokens', tokens).set('tokenizer.ggml.token_type', types);
      return tokenizerFromGGUF({ metadata }).encode('qqq', { addBos: false });
    };
    expect(changes('llama-bpe')).toEqual([512]);
    expect(changes('qwen2')).toEqual([113, 113, 113]);
  });

  it('never makes control tokens of text unless asked', () => {
    const tokenizer = load('llama-bpe');
    const ids = tokenizer.encode('<|im_end|><|begin|>', { addBos: false });
    expect(ids).not.toContain(508);
    expect(ids).not.toContain(509);
    expect(tokenizer.decode(ids)).toBe('<|im_end|><|begin|>');
  });

  it('keeps every byte in one character', () => {
    const { tokens } = trainSmallBPE(0, []);
    expect(tokens).toEqual(byteChars());
    const tokenizer = load();
    expect(tokenizer.decode(tokenizer.encode('\0\x01\x7f\u0080\u00ad\u00ff'))).toBe(
      '\0\x01\x7f\u0080\u00ad\u00ff',
    );
  });

  it('says so when a byte has no token', () => {
    const metadata = smallBPEMetadata('gpt-2');
    const tokens = (metadata.get('tokenizer.ggml.tokens') as string[]).slice();
    tokens[65] = 'gone';
    metadata.set('tokenizer.ggml.tokens', tokens);
    const error = thrown(() => tokenizerFromGGUF({ metadata }).encode('A'));
    expect(error).toMatchObject({ code: 'BL_UNSUPPORTED', operator: 'encode' });
    expect((error as Error).message).toContain('no token for byte 0x41');
    metadata.set('tokenizer.ggml.unknown_token_id', 65);
    expect(tokenizerFromGGUF({ metadata }).encode('AB')).toEqual([65, 66]);
  });

  it.each<[string, [string, GGUFValue | undefined], string, string]>([
    [
      'an unknown pre-tokenizer',
      ['pre', 'other'],
      'BL_UNSUPPORTED',
      'tokenizer.ggml.pre is "other", expected one of default',
    ],
    ['no merges', ['merges', undefined], 'BL_NOT_FOUND', 'tokenizer.ggml.merges is missing'],
    [
      'a merge of one',
      ['merges', ['ab']],
      'BL_INVALID_FILE',
      'merges[0] is "ab", expected two texts and a space',
    ],
    ['a merge of three', ['merges', ['a b', 'a b c']], 'BL_INVALID_FILE', 'merges[1] is "a b c"'],
    ['a merge with nothing', ['merges', ['a ']], 'BL_INVALID_FILE', 'merges[0] is "a "'],
  ])('refuses %s', (_, [key, value], code, message) => {
    const metadata = smallBPEMetadata();
    if (value === undefined) metadata.delete(`tokenizer.ggml.${key}`);
    else metadata.set(`tokenizer.ggml.${key}`, value);
    const error = thrown(() => tokenizerFromGGUF({ metadata }));
    expect(error).toMatchObject({ code });
    expect((error as Error).message).toContain(message);
  });

  it.each(['llama-bpe', 'default'])(
    'with %s takes 200 KB of anything in less than two seconds',
    { timeout: 60_000 },
    (pre) => {
      const tokenizer = load(pre);
      const code = 'if (left[0] == "x") return right[1:] # 100% \n';
      for (const part of [code, 'a', ' ', '\r ', '🦙', "'", 'ि', '<|im_end|']) {
        const text = part.repeat(200_000 / part.length);
        const { value: ids, seconds } = timed(() => tokenizer.encode(text, { special: true }));
        expect(seconds).toBeLessThan(2);
        expect(tokenizer.decode(ids) === text).toBe(true);
      }
    },
  );

  it('refuses a word that overflows the regular expressions, rather than fail inside them', () => {
    expect(thrown(() => load('llama-bpe').encode('漢'.repeat(2 ** 22)))).toMatchObject({
      name: 'RangeError',
      code: 'BL_OUT_OF_RANGE',
    });
  });
});

describe('pre-tokenizers', () => {
  const words = (name: string, text: string) =>
    splitWords(text, preTokenizer(name)?.patterns ?? []);

  it.each<[string, string, string[]]>([
    ['gpt-2', "I'm  12345 I'M\n\n x", ['I', "'m", ' ', ' 12345', ' I', "'", 'M', '\n\n', ' x']],
    ['llama-bpe', "I'M  12345.\n\n x", ['I', "'M", ' ', ' ', '123', '45', '.\n\n', ' x']],
    ['qwen2', "I'M  123(x", ['I', "'M", ' ', ' ', '1', '2', '3', '(x']],
    ['qwen35', 'किa', ['किa']],
    ['starcoder', 'a 12', ['a', ' ', '1', '2']],
    ['gpt-4o', "XMLHttp don't a/\n", ['XMLHttp', " don't", ' a', '/\n']],
    ['tekken', 'camelCase 12', ['camel', 'Case', ' ', '1', '2']],
    ['falcon', 'a, b 1234', ['a', ',', ' b', ' ', '123', '4']],
    ['deepseek-v3', '漢字kana,x 1234', ['漢字', 'kana', ',x', ' ', '123', '4']],
    ['deepseek-coder', 'a 漢1\n', ['a', ' ', '漢', '1', '\n']],
    ['bloom', 'a, b', ['a', ',', ' b']],
    ['default', 'a 1234$', ['a', ' ', '123', '4', '$']],
  ])('%s cuts %j', (name, text, expected) => {
    expect(words(name, text)).toEqual(expected);
  });

  it('lose nothing', () => {
    fc.assert(
      fc.property(
        fc.constantFrom(...PRE_TOKENIZERS),
        fc.string({ unit: 'binary' }),
        (name, text) => {
          const pieces = words(name, text);
          expect(pieces.join('')).toBe(text);
          expect(text === '' || !pieces.includes('')).toBe(true);
        },
      ),
      { numRuns: 500 },
    );
  });
});
