import { argumentError } from '../errors.js';

/** How a byte-level BPE model cuts text into words before merging inside each. */
export interface PreTokenizer {
  /**
   * Applied one after the other: each cuts the pieces that the ones before it left into its matches and what lies
   * between them.
   */
  readonly patterns: readonly RegExp[];
  /** A word that is a token as a whole becomes that token, whatever the merges say. */
  readonly ignoreMerges: boolean;
  /** Whether texts begin with BOS if the file does not say. */
  readonly addBos: boolean;
}

// The patterns are facts about the published models: each stands in the `tokenizer.json` of its model. Here \s is
// Unicode's White_Space as in the original engines: JavaScript's own \s has U+FEFF and lacks U+0085.
const S = '\\p{White_Space}';
const WORDS = ' ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)';
const CONTRACTIONS = "'s|'t|'re|'ve|'m|'ll|'d";
const ANY_CASE = "'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]";
const SPACES = '\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+';
const GPT2 = `${CONTRACTIONS}|${WORDS}`;
const UPPER = '\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}';
const LOWER = '\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}';
const ASCII_PUNCTUATION = '[!"#$%&\'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~]';

/** The family of Llama 3 and Qwen 2: they differ in how many digits stay together, and in marks. */
function lettersAndDigits(
  digits: string,
  letters = '\\p{L}',
  others = '[^\\s\\p{L}\\p{N}]',
): string {
  return (
    `(?:${ANY_CASE})|[^\\r\\n\\p{L}\\p{N}]?${letters === '\\p{L}' ? letters : `[${letters}]`}+|${digits}|` +
    ` ?${others}+[\\r\\n]*|${SPACES}`
  );
}

/** The family of GPT-4o: words also end where the case changes. */
function cased(digits: string, suffix: string): string {
  const lead = '[^\\r\\n\\p{L}\\p{N}]?';
  return (
    `${lead}[${UPPER}]*[${LOWER}]+${suffix}|${lead}[${UPPER}]+[${LOWER}]*${suffix}|${digits}|` +
    ` ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|${SPACES}`
  );
}

interface Row {
  /** Values of `tokenizer.ggml.pre`. */
  readonly names: string;
  readonly patterns: readonly string[];
  readonly ignoreMerges?: boolean;
  readonly addBos?: boolean;
}

const ROWS: readonly Row[] = [
  {
    names: 'default',
    patterns: ['[\\p{P}$+<=>^~|]+', GPT2, '\\p{N}+', '[0-9][0-9][0-9]'],
  },
  {
    names:
      'gpt-2 phi-2 mpt olmo jais jina-es jina-de jina-v2-es jina-v2-de gigachat a.x-4.0 mellum modern-bert exaone4 trillion granite-docling',
    patterns: [GPT2],
  },
  {
    names: 'starcoder refact command-r smollm codeshell exaone minerva-7b mellum2',
    patterns: ['\\p{N}', GPT2],
  },
  {
    names: 'falcon',
    patterns: ['[\\p{P}$+<=>^~|`]+', GPT2, '[0-9][0-9][0-9]'],
  },
  {
    names: 'llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano',
    patterns: [lettersAndDigits('\\p{N}{1,3}')],
    ignoreMerges: true,
    addBos: true,
  },
  {
    names: 'dbrx smaug-bpe chatglm-bpe glm4',
    patterns: [lettersAndDigits('\\p{N}{1,3}')],
  },
  {
    names: 'qwen2 deepseek-r1-qwen kormo f2llmv2 stablelm2 megrez hunyuan solar-open grok-2',
    patterns: [lettersAndDigits('\\p{N}')],
  },
  {
    names: 'qwen35',
    patterns: [lettersAndDigits('\\p{N}', '\\p{L}\\p{M}', '[^\\s\\p{L}\\p{M}\\p{N}]')],
  },
  {
    names: 'deepseek-coder',
    patterns: ['[\\r\\n]', '\\s?\\p{L}+', '\\s?\\p{P}+', '[一-龥ࠀ-一가-퟿]+', '\\p{N}'],
  },
  {
    names: 'deepseek-v3 hunyuan-dense joyai-llm',
    patterns: [
      '\\p{N}{1,3}',
      '[一-龥぀-ゟ゠-ヿ]+',
      `${ASCII_PUNCTUATION}[A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+|` +
        ` ?[\\p{P}\\p{S}]+[\\r\\n]*|${SPACES}`,
    ],
  },
  {
    names: 'tekken',
    patterns: [cased('\\p{N}', '')],
    ignoreMerges: true,
    addBos: true,
  },
  {
    names: 'gpt-4o llama4 kanana2 minimax-m2',
    patterns: [cased('\\p{N}{1,3}', `(?:${ANY_CASE})?`)],
  },
  {
    names: 'bloom poro-chat gpt3-finnish',
    patterns: [' ?[^(\\s|.,!?…。，、।۔،)]+'],
  },
  {
    names: 'viking',
    patterns: [' ?[^(\\s|.,!?…。，、।۔،)]+', '\\p{N}'],
  },
];

const BY_NAME: ReadonlyMap<string, Row> = new Map(
  ROWS.flatMap((row) => row.names.split(' ').map((name): [string, Row] => [name, row])),
);

/** Names that `tokenizer.ggml.pre` may have. */
export const PRE_TOKENIZERS: readonly string[] = [...BY_NAME.keys()];

/** The pre-tokenizer with a name (`llama-bpe`), if it is known. */
export function preTokenizer(name: string): PreTokenizer | undefined {
  const row = BY_NAME.get(name);
  return (
    row && {
      patterns: row.patterns.map(compile),
      ignoreMerges: row.ignoreMerges ?? false,
      addBos: row.addBos ?? false,
    }
  );
}

function compile(pattern: string): RegExp {
  return new RegExp(pattern.replaceAll('\\S', `\\P{White_Space}`).replaceAll('\\s', S), 'gu');
}

/**
 * Cuts text into words; joined again they are the text.
 *
 * @throws RangeError `BL_OUT_OF_RANGE` for a word of millions of characters, which the stack of V8's regular
 * expressions (64 MB) cannot hold.
 */
export function splitWords(text: string, patterns: readonly RegExp[]): string[] {
  let pieces = [text];
  try {
    for (const pattern of patterns) pieces = pieces.flatMap((piece) => splitOnce(piece, pattern));
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    throw argumentError(
      'BL_OUT_OF_RANGE',
      `encode: text has ${text.length} code units with a word too long to find its end, expected words below 2^20`,
    );
  }
  return pieces;
}

function splitOnce(text: string, pattern: RegExp): string[] {
  const pieces: string[] = [];
  let at = 0;
  for (const match of text.matchAll(pattern)) {
    if (match.index > at) pieces.push(text.slice(at, match.index));
    pieces.push(match[0]);
    at = match.index + match[0].length;
  }
  if (at < text.length) pieces.push(text.slice(at));
  return pieces;
}
