import { BitloomError } from '../errors.js';
import { quote } from './cursor.js';
import { isWellFormed } from './text.js';

/** What the header says about one tensor, unchecked but for its types. */
export interface SafetensorsEntry {
  readonly name: string;
  readonly dtype: string;
  readonly shape: number[];
  /** Offsets into the data, from its first byte. */
  readonly begin: number;
  readonly end: number;
}

export interface SafetensorsHeader {
  readonly metadata: Map<string, string>;
  readonly entries: SafetensorsEntry[];
}

// Far above any model; with MAX_DIMENSIONS it bounds the memory that a header can make us use.
const MAX_TENSORS = 2 ** 18;
const MAX_DIMENSIONS = 16;

const BACKSLASH = 0x5c;

/**
 * Parses the JSON header. A parser of its own, because JSON.parse keeps the last of two equal keys and says nothing,
 * and because a header of 100 MB of something else should be refused at its first wrong byte. Without regular
 * expressions, whose stack such a header can overflow.
 */
export function parseHeader(text: string): SafetensorsHeader {
  return new HeaderParser(text).parse();
}

class HeaderParser {
  #at = 0;

  constructor(readonly text: string) {}

  parse(): SafetensorsHeader {
    const metadata = new Map<string, string>();
    const entries: SafetensorsEntry[] = [];
    if (!this.text.startsWith('{')) this.#fail('expected {');
    this.#object('header', (key) => {
      if (key === '__metadata__') {
        this.#object('__metadata__', (name) => {
          metadata.set(name, this.#string(`metadata ${quote(name)}`));
        });
      } else {
        entries.push(this.#tensor(key));
        if (entries.length > MAX_TENSORS) this.#fail(`expected at most ${MAX_TENSORS} tensors`);
      }
    });
    this.#skipSpace();
    if (this.#at !== this.text.length) this.#fail('expected nothing after the header but spaces');
    return { metadata, entries };
  }

  #tensor(name: string): SafetensorsEntry {
    const what = `tensor ${quote(name)}`;
    let dtype: string | undefined;
    let shape: number[] | undefined;
    let offsets: number[] | undefined;
    this.#object(what, (key) => {
      if (key === 'dtype') dtype = this.#string(`dtype of ${what}`);
      else if (key === 'shape') shape = this.#numbers(`shape of ${what}`, MAX_DIMENSIONS);
      else if (key === 'data_offsets') offsets = this.#numbers(`data_offsets of ${what}`, 2);
      else this.#fail(`${what} has ${quote(key)}, expected dtype, shape and data_offsets`);
    });
    const [begin, end] = offsets ?? [];
    if (dtype === undefined || shape === undefined || begin === undefined || end === undefined) {
      return this.#fail(`${what} is incomplete, expected dtype, shape and two data_offsets`);
    }
    return { name, dtype, shape, begin, end };
  }

  /** An object whose keys are unique; `member` reads the value of each. */
  #object(what: string, member: (key: string) => void): void {
    this.#expect('{', what);
    if (this.#take('}')) return;
    const keys = new Set<string>();
    do {
      const key = this.#string(`key in ${what}`);
      if (keys.has(key)) this.#fail(`${what} has ${quote(key)} twice, expected unique keys`);
      keys.add(key);
      this.#expect(':', what);
      member(key);
    } while (this.#take(','));
    this.#expect('}', what);
  }

  #numbers(what: string, most: number): number[] {
    const numbers: number[] = [];
    this.#expect('[', what);
    if (this.#take(']')) return numbers;
    do {
      const number = this.#number(what);
      numbers.push(number);
      if (numbers.length > most) this.#fail(`${what} has more than ${most} numbers`);
    } while (this.#take(','));
    this.#expect(']', what);
    return numbers;
  }

  #number(what: string): number {
    this.#skipSpace();
    const start = this.#at;
    // 17 digits are enough to be above 2^53.
    while (this.#at - start < 17 && isDigit(this.text.charCodeAt(this.#at))) this.#at++;
    const digits = this.text.slice(start, this.#at);
    if (digits === '') return this.#fail(`${what}: expected a whole number`);
    const number = Number(digits);
    if (!Number.isSafeInteger(number)) {
      this.#fail(`${what} has ${digits}, expected at most 2^53 - 1`);
    }
    if (digits.length > 1 && digits.startsWith('0')) {
      this.#fail(`${what} has ${digits}, expected no leading zero`);
    }
    return number;
  }

  #string(what: string): string {
    this.#skipSpace();
    const { text } = this;
    const start = this.#at;
    if (text[start] !== '"') return this.#fail(`${what}: expected a string`);
    let end = text.indexOf('"', start + 1);
    while (end >= 0 && isEscaped(text, start, end)) end = text.indexOf('"', end + 1);
    if (end < 0) return this.#fail(`${what}: expected a string with an end`);
    let value: string;
    try {
      value = JSON.parse(text.slice(start, end + 1)) as string; // escapes, and no control characters
    } catch {
      return this.#fail(`${what}: expected a JSON string`);
    }
    if (!isWellFormed(value)) this.#fail(`${what} has a lone surrogate, expected valid Unicode`);
    this.#at = end + 1;
    return value;
  }

  #take(character: string): boolean {
    this.#skipSpace();
    if (this.text[this.#at] !== character) return false;
    this.#at++;
    return true;
  }

  #expect(character: string, what: string): void {
    if (!this.#take(character)) this.#fail(`${what}: expected ${character}`);
  }

  #skipSpace(): void {
    while (' \t\n\r'.includes(this.text[this.#at] ?? '-')) this.#at++;
  }

  #fail(message: string): never {
    const next =
      this.#at < this.text.length ? quote(this.text.slice(this.#at, this.#at + 16)) : 'the end';
    throw new BitloomError(
      'BL_INVALID_FILE',
      `readSafetensors: ${message}; at character ${this.#at} of the header stands ${next}`,
    );
  }
}

function isDigit(code: number): boolean {
  return code >= 0x30 && code <= 0x39;
}

/** Whether an odd number of backslashes stands before the quote at `at`. */
function isEscaped(text: string, start: number, at: number): boolean {
  let first = at;
  while (first - 1 > start && text.charCodeAt(first - 1) === BACKSLASH) first--;
  return (at - first) % 2 === 1;
}
