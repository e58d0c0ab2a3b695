// The code behind the table of bench/caches.mjs, on a small part of it.
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import * as nn from '../../lib/nn/index.js';
import { hasStories260k, stories260kGGUF } from '../models/stories260k.js';
import { tinyModel } from '../nn/models.js';
import { policies } from '../nn/policies/all.js';

interface Found {
  found: number;
  of: number;
}
interface Row {
  cache: string;
  bytes?: number;
  perplexity: number;
  needles: Found;
}
/** bench/cache_table.mjs and bench/needle.mjs, which have no types. */
interface Bench {
  formats: string[];
  policiesOf(lib: typeof nn, decoder: nn.Decoder, budget: number): Record<string, unknown>;
  cacheRows(lib: typeof nn, options: object): AsyncIterable<Row>;
  fittedRows(lib: typeof nn, options: object): AsyncIterable<Row>;
  lineOf(row: Row): string;
  needles(lengths?: number[]): { name: string; text: string }[];
  findNeedles(decoder: nn.Decoder, options: object): Promise<Found>;
}

let decoder: nn.Decoder;
let bench: Bench;
beforeAll(async () => {
  const files = ['cache_table', 'needle'].map((name) => `../../bench/${name}.mjs`);
  const modules = await Promise.all(files.map((file) => import(file)));
  bench = Object.assign({}, ...modules) as Bench;
  decoder = await nn.load(tinyModel, { activations: 'f32' });
});
afterAll(() => decoder.dispose());

describe('bench/caches.mjs', () => {
  it('knows every policy', () => {
    const known = Object.keys(bench.policiesOf(nn, decoder, 32)).sort();
    expect(known).toEqual(
      Object.keys(policies)
        .filter((name) => !name.includes(' '))
        .sort(),
    );
    expect(bench.formats.length).toBe(9);
  });

  it('makes a row for each format and policy asked for', async () => {
    const options = {
      decoder,
      needleDecoder: decoder,
      text: 'Once upon a time there was a little dog who lived in a house by the sea.',
      budget: 24,
      bytesPerToken: () => 100,
      lengths: [0],
      formats: ['i8'],
      policies: ['citrus', 'd2o'],
    };
    const rows: Row[] = [];
    for await (const row of bench.cacheRows(nn, options)) rows.push(row);
    expect(rows.map(({ cache }) => cache)).toEqual(['i8', 'citrus, 24 keys', 'd2o, 24 keys']);
    for (const { perplexity, needles: found } of rows) {
      expect(perplexity).toBeGreaterThan(1);
      expect(found.of).toBe(24);
      expect(found.found).toBeLessThanOrEqual(24);
    }
    expect(bench.lineOf(rows[0] as Row)).toMatch(/^\| i8 \| 100 \| \d+\.\d{4} \| \d+ of 24 \|$/);
  });

  it('makes a row for each thing that is fitted to a text', async () => {
    const loaded: nn.Decoder[] = [];
    const options = {
      decoder,
      needleDecoder: decoder,
      text: 'Once upon a time there was a little dog who lived in a house by the sea. '.repeat(4),
      calibration: 'A little girl went to the market with a red cup, and came home with a hen.',
      reload: async (of: nn.Decoder, more: object) => {
        expect(of).toBe(decoder);
        loaded.push(await nn.load(tinyModel, { activations: 'f32', ...more }));
        return loaded.at(-1);
      },
      bytesOfRank: (format: string, rank: number) => (format === 'i4' ? rank / 2 : rank * 2),
      lengths: [0],
      fittedFormats: ['bfp8'],
      parts: [2],
    };
    const rows: Row[] = [];
    for await (const row of bench.fittedRows(nn, options)) rows.push(row);
    expect(rows.map(({ cache }) => cache)).toEqual([
      'bfp8, all tokens',
      'bfp8, channels in order',
      'bfp8, keys less their mean',
      '1/2 of the channels, f16',
      '1/2 of the channels, i4',
    ]);
    const { numKvHeads, headDim } = decoder.config;
    const rank = (numKvHeads * headDim) / 2;
    expect(rows.map(({ bytes }) => bytes)).toEqual([
      ...Array(3).fill(undefined),
      2 * rank,
      rank / 2,
    ]);
    for (const { perplexity, needles: found } of rows) {
      expect(perplexity).toBeGreaterThan(1);
      expect(found.of).toBe(24);
    }
    // Half of the channels lose something, quantized a little more; so they are what was asked for.
    expect(new Set(rows.map(({ perplexity }) => perplexity)).size).toBe(5);
    expect(loaded.map(({ disposed }) => disposed)).toEqual([true, true]);
  });

  it('needles stand at the beginning, and nowhere else', () => {
    for (const { name, text } of bench.needles([12])) {
      expect(text.startsWith(`Once upon a time, there was a little kid named ${name}.`)).toBe(true);
      expect(text.split(name).length).toBe(3);
      expect(text.endsWith('said')).toBe(true);
    }
  });

  it.skipIf(!hasStories260k)(
    'stories260K (needs ../shared/models) finds them in a whole cache, and not without the beginning',
    async () => {
      const stories = await nn.load(stories260kGGUF(), { activations: 'f32' });
      const whole = await bench.findNeedles(stories, { cache: { format: 'i8' }, lengths: [8] });
      expect(whole.found).toBeGreaterThanOrEqual(23);
      const cache = () => ({ policy: nn.streamingLLM({ budget: 32, sinks: 1 }) });
      const newest = await bench.findNeedles(stories, { cache, lengths: [8] });
      expect(newest.found).toBeLessThan(8);
      stories.dispose();
    },
  );
});
