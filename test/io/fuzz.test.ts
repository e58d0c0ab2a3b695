import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { BitloomError } from '../../lib/errors.js';
import {
  GGML_TYPES,
  type GGUFValue,
  ggufBytes,
  memorySource,
  readGGUF,
  readSafetensors,
  safetensorsBytes,
  tokenizerFromGGUF,
} from '../../lib/io/index.js';
import { smallBPEMetadata } from '../models/byte_level_bpe.js';

// Hostile bytes may be refused with a BitloomError or read; nothing else may happen, soon and in little memory.

const EXTREMES = [
  0n,
  1n,
  2n ** 7n,
  2n ** 16n,
  2n ** 31n - 1n,
  2n ** 31n,
  2n ** 32n - 1n,
  2n ** 32n,
  2n ** 53n - 1n,
  2n ** 53n,
  2n ** 63n - 1n,
  2n ** 63n,
  2n ** 64n - 1n,
];

type Mutation = (bytes: Uint8Array) => Uint8Array;

/** Places where mutations matter most: the header, which these files begin with. */
const place = fc.oneof(fc.nat(300), fc.nat());

const mutation: fc.Arbitrary<Mutation> = fc.oneof(
  fc.tuple(place, fc.nat(255)).map(
    ([at, value]): Mutation =>
      (bytes) => {
        const changed = bytes.slice();
        if (bytes.length > 0) changed[at % bytes.length] = value;
        return changed;
      },
  ),
  fc.tuple(place, fc.constantFrom(...EXTREMES), fc.constantFrom(4, 8)).map(
    ([at, value, width]): Mutation =>
      (bytes) => {
        if (bytes.length < 8) return bytes;
        const changed = bytes.slice();
        const view = new DataView(changed.buffer);
        const start = at % (bytes.length - 7);
        if (width === 8) view.setBigUint64(start, value, true);
        else view.setUint32(start, Number(BigInt.asUintN(32, value)), true);
        return changed;
      },
  ),
  place.map(
    (at): Mutation =>
      (bytes) =>
        bytes.slice(0, at % (bytes.length + 1)),
  ),
  fc.tuple(place, place, fc.nat(64)).map(
    ([from, to, length]): Mutation =>
      (bytes) => {
        const start = from % (bytes.length + 1);
        const piece = bytes.slice(start, start + length);
        const at = to % (bytes.length + 1);
        return new Uint8Array(Buffer.concat([bytes.slice(0, at), piece, bytes.slice(at)]));
      },
  ),
  fc.tuple(place, fc.nat(64)).map(
    ([at, length]): Mutation =>
      (bytes) => {
        const start = at % (bytes.length + 1);
        return new Uint8Array(Buffer.concat([bytes.slice(0, start), bytes.slice(start + length)]));
      },
  ),
);

/** Files made of `seeds` by one to four mutations, and a few that are random throughout. */
function files(seeds: Uint8Array[]): fc.Arbitrary<Uint8Array> {
  const mutated = fc
    .tuple(fc.constantFrom(...seeds), fc.array(mutation, { minLength: 1, maxLength: 4 }))
    .map(([seed, mutations]) => mutations.reduce((bytes, mutate) => mutate(bytes), seed));
  return fc.oneof({ weight: 20, arbitrary: mutated }, { weight: 1, arbitrary: fc.uint8Array() });
}

/** Checks that `read` reads or throws a BitloomError, and gives how often it did each. */
function attack<T>(inputs: fc.Arbitrary<T>, read: (input: T) => void, runs: number) {
  const before = process.memoryUsage().rss;
  let accepted = 0;
  let refused = 0;
  fc.assert(
    fc.property(inputs, (input) => {
      try {
        read(input);
        accepted++;
      } catch (error) {
        if (!(error instanceof BitloomError)) throw error;
        if (!/^BL_(INVALID_FILE|UNSUPPORTED|NOT_FOUND)$/.test(error.code)) throw error;
        if (error.message.length > 2000) throw new Error(`a message of ${error.message.length}`);
        refused++;
      }
    }),
    { numRuns: runs, interruptAfterTimeLimit: 5000, markInterruptAsFailure: false },
  );
  expect(process.memoryUsage().rss - before).toBeLessThan(300e6);
  // Both outcomes must have been met, or the mutations are too weak or too strong to find anything.
  expect(accepted).toBeGreaterThan(0);
  expect(refused).toBeGreaterThan(0);
}

const options = { timeout: 60_000 };

describe('fuzz', () => {
  it('GGUF', options, () => {
    const metadata = {
      'general.architecture': 'llama',
      'general.alignment': 32,
      list: ['a', 'bc', ''],
      numbers: [1, 2, 3],
      nested: [[1], [2, 3]],
      flag: true,
      large: 2n ** 63n,
    };
    const tensors = ['f32', 'q4_0', 'i8'].map((type, i) => {
      const { blockSize = 1, blockBytes = 1 } = GGML_TYPES.find(({ name }) => name === type) ?? {};
      return { name: `t${i}`, type, shape: [2, blockSize], data: new Uint8Array(2 * blockBytes) };
    });
    const seeds = [
      ggufBytes({ tensors: [] }),
      ggufBytes({ metadata, tensors: [] }),
      ggufBytes({ tensors }),
      ggufBytes({ metadata, tensors }),
    ];
    const read = (bytes: Uint8Array) => {
      const file = readGGUF(memorySource(bytes));
      for (const tensor of file.tensors.values()) {
        if (tensor.data().length !== tensor.bytes) throw new Error('data of another length');
      }
    };
    attack(files(seeds), read, 6000);
  });

  it('safetensors', options, () => {
    const tensors = ['f32', 'bf16', 'u8'].map((type, i) => ({
      name: `t${i}`,
      type,
      shape: [2, i],
      data: new Uint8Array([0, 4, 4][i] ?? 0),
    }));
    const seeds = [
      safetensorsBytes({ tensors: [] }),
      safetensorsBytes({ metadata: { a: '\\"é' }, tensors }),
    ];
    const read = (bytes: Uint8Array) => {
      for (const tensor of readSafetensors(memorySource(bytes)).tensors.values()) {
        if (tensor.data().length !== tensor.bytes) throw new Error('data of another length');
      }
    };
    attack(files(seeds), read, 6000);
  });

  const spm = new Map<string, GGUFValue>([
    ['tokenizer.ggml.model', 'llama'],
    ['tokenizer.ggml.tokens', ['<unk>', '<s>', '</s>', '<0x61>', '▁', 'a', '▁a', 'b', '<x>']],
    ['tokenizer.ggml.scores', [0, 0, 0, 0, -1, -2, 0.5, -3, 0]],
    ['tokenizer.ggml.token_type', [2, 3, 3, 6, 1, 1, 1, 1, 4]],
    ['tokenizer.ggml.bos_token_id', 1],
    ['tokenizer.ggml.add_bos_token', true],
    ['tokenizer.ggml.add_space_prefix', true],
  ]);
  const use = (metadata: ReadonlyMap<string, GGUFValue>) => {
    const tokenizer = tokenizerFromGGUF({ metadata: new Map(metadata) });
    const ids = tokenizer.encode('ab <x></s> é\n12', { special: true });
    for (const id of ids) tokenizer.tokenText(id);
    tokenizer.decode(ids, { special: true });
  };

  it('tokenizers in GGUF bytes', options, () => {
    const seeds = [spm, smallBPEMetadata('llama-bpe')].map((metadata) =>
      ggufBytes({ metadata, tensors: [] }),
    );
    attack(files(seeds), (bytes) => use(readGGUF(memorySource(bytes)).metadata), 1500);
  });

  it('tokenizers in metadata', options, () => {
    const text = fc.oneof(
      fc.constantFrom(
        '',
        ' ',
        'a',
        'ab',
        '▁',
        '<0x41>',
        '<0xZZ>',
        'a b',
        '</s>',
        'llama',
        'gpt2',
        'gpt-2',
        '\ud800',
        '__proto__',
      ),
      fc.string({ unit: 'binary', maxLength: 5 }),
    );
    const number = fc.oneof(
      fc.integer({ min: -2, max: 12 }),
      fc.double(),
      fc.constantFrom(2 ** 32 - 1, 2 ** 53),
    );
    const value: fc.Arbitrary<GGUFValue> = fc.oneof(
      text,
      number,
      fc.boolean(),
      fc.bigInt({ min: 2n ** 53n, max: 2n ** 64n }),
      fc.array(text, { maxLength: 12 }),
      fc.array(number, { minLength: 5, maxLength: 12 }),
      fc.array(fc.oneof(text, number), { maxLength: 3 }),
    );
    const bpe = new Map<string, GGUFValue>([
      ...spm,
      ['tokenizer.ggml.model', 'gpt2'],
      ['tokenizer.ggml.pre', 'gpt-2'],
      ['tokenizer.ggml.merges', ['a b', 'Ġ a']],
      ['tokenizer.ggml.unknown_token_id', 0],
    ]);
    const changed = fc
      .tuple(
        fc.constantFrom(spm, bpe),
        fc.array(fc.tuple(fc.constantFrom(...bpe.keys()), fc.option(value)), { maxLength: 3 }),
      )
      .map(([base, changes]) => {
        const metadata = new Map(base);
        for (const [key, to] of changes) {
          if (to === null) metadata.delete(key);
          else metadata.set(key, to);
        }
        return metadata;
      });
    attack(changed, use, 6000);
  });
});
