import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { Tensor } from '../../../lib/index.js';
import { ggufBytes, memorySource, readGGUF } from '../../../lib/io/index.js';
import {
  compressModel,
  type Decoder,
  type DenseExpert,
  type ExpertLayer,
  expertCounts,
  expertLayers,
  load,
  lowRankExperts,
  MoELayer,
  mergeExperts,
  perplexity,
  pruneByUsage,
  quantizeModel,
  withExperts,
} from '../../../lib/nn/index.js';
import { expectError } from '../../reference/op_checks.js';
import { gaussian } from '../../reference/random.js';
import { aliceChapters, tinyMoEModel } from '../models.js';
import { randomModel } from '../random_model.js';

const folder = mkdtempSync(join(tmpdir(), 'bitloom-low-rank-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const out = (name: string) => join(folder, name);

const tokens = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 49, 0];
const f32 = (values: ArrayLike<number>, shape: number[]) =>
  new Tensor('f32', Float32Array.from(values), shape);
const [hidden, width] = [24, 16];
const layer: ExpertLayer = {
  router: f32(gaussian(3 * hidden, 9), [3, hidden]),
  experts: [1, 11, 21].map((seed) => ({
    gate: f32(gaussian(width * hidden, seed), [width, hidden]),
    up: f32(gaussian(width * hidden, seed + 1), [width, hidden]),
    down: f32(gaussian(width * hidden, seed + 2), [hidden, width]),
  })),
};

function product(w: Tensor<'f32'>, x: number[]): number[] {
  const [rows = 0, cols = 0] = w.shape;
  return Array.from({ length: rows }, (_, r) =>
    x.reduce((sum, value, c) => sum + value * (w.data[r * cols + c] as number), 0),
  );
}

/** What an expert makes of x, in float64, factor by factor. */
function expertOf({ gate, up, down, reduce, expand, kept }: DenseExpert, x: number[]): number[] {
  const input = reduce === undefined ? x : product(reduce, x);
  const inner = product(up, input);
  const h =
    gate === undefined
      ? inner
      : product(gate, input).map((z, i) => (z / (1 + Math.exp(-z))) * (inner[i] as number));
  const narrow = product(down, h);
  const y = expand === undefined ? narrow : product(expand, narrow);
  if (kept === undefined) return y;
  return expertOf(kept, x).map((value, i) => value + (y[i] as number));
}

/** Root mean square of the differences of all experts' outputs, for tokens of normal numbers. */
function error(now: ExpertLayer): number {
  let [sum, all] = [0, 0];
  for (let t = 0; t < 5; t++) {
    const x = [...gaussian(hidden, 50 + t)];
    layer.experts.forEach((expert, e) => {
      const before = expertOf(expert, x);
      expertOf(now.experts[e] as DenseExpert, x).forEach((value, i) => {
        sum += (value - (before[i] as number)) ** 2;
        all += (before[i] as number) ** 2;
      });
    });
  }
  return Math.sqrt(sum / all);
}

const mixtures = (decoder: Decoder): MoELayer[] =>
  decoder.parts.layers.flatMap(({ mlp }) => (mlp instanceof MoELayer ? [mlp] : []));
const worst = (a: Tensor<'f32'>, b: Tensor<'f32'>): number =>
  a.data.reduce((most, x, i) => Math.max(most, Math.abs(x - (b.data[i] as number))), 0);

describe('lowRankExperts', () => {
  it('loses less with every rank, and nothing at the full one', () => {
    const errors: number[] = [];
    const losses: number[] = [];
    for (const rank of [2, 4, 8, 12, 14, 24]) {
      const made = lowRankExperts(layer, { rank });
      expect(made.ranks[0]).toEqual({ reduce: rank, expand: Math.min(rank, width) });
      errors.push(error(made));
      losses.push(Math.max(...made.loss));
    }
    for (let i = 1; i < errors.length; i++) {
      expect(errors[i]).toBeLessThan(errors[i - 1] as number);
      expect(losses[i]).toBeLessThan(losses[i - 1] as number);
    }
    expect(errors.at(-1)).toBeLessThan(1e-5);
    expect(losses.at(-1)).toBeLessThan(1e-5);
  });

  it('keeps neurons whole: those that are far from low rank', () => {
    // Two directions of x, and one neuron that looks at others.
    const flat = (seed: number, rows: number, cols: number) => {
      const [u, v] = [gaussian(rows * 2, seed), gaussian(cols * 2, seed + 1)];
      return f32(
        Array.from({ length: rows * cols }, (_, i) => {
          const [r, c] = [Math.floor(i / cols), i % cols];
          return [0, 1].reduce(
            (sum, k) => sum + (u[2 * r + k] as number) * (v[2 * c + k] as number),
            0,
          );
        }),
        [rows, cols],
      );
    };
    const both = flat(5, 2 * width, hidden).data;
    const expert: DenseExpert = {
      gate: f32(both.subarray(0, width * hidden), [width, hidden]),
      up: f32(both.subarray(width * hidden), [width, hidden]),
      down: flat(8, hidden, width),
    };
    for (const matrix of [expert.gate, expert.up]) {
      matrix?.data.set(gaussian(hidden, 77, 0.5), 5 * hidden);
    }
    const one = { router: f32(gaussian(hidden, 9), [1, hidden]), experts: [expert] };
    const without = lowRankExperts(one, { rank: 2 });
    const made = lowRankExperts(one, { rank: 2, neurons: 1 });
    expect(without.loss[0]).toBeGreaterThan(1e-3);
    expect(made.loss[0]).toBeLessThan(1e-5);
    expect(made.experts[0]?.kept?.up.toArray()).toEqual([
      ...(expert.up.data.subarray(5 * hidden, 6 * hidden) as Float32Array),
    ]);
    const x = [...gaussian(hidden, 3)];
    const expected = expertOf(expert, x);
    const largest = Math.max(...expected.map(Math.abs));
    expertOf(made.experts[0] as DenseExpert, x).forEach((value, i) => {
      expect(Math.abs(value - (expected[i] as number))).toBeLessThan(1e-5 * largest);
    });
    expect(made.weights).toEqual({
      before: 3 * width * hidden,
      after: 2 * (3 * (width - 1) + 2 * hidden) + 3 * hidden,
    });
  });

  it('chooses ranks by what they keep, and by size', () => {
    for (const energy of [0.3, 0.6, 0.75]) {
      const made = lowRankExperts(layer, { energy, multiple: 1 });
      for (const loss of made.loss) expect(loss).toBeLessThanOrEqual(1 - energy + 1e-6);
      const { reduce = 0, expand = 0 } = made.ranks[0] as { reduce?: number; expand?: number };
      const less = lowRankExperts(layer, { rank: Math.min(reduce, expand) - 1 });
      expect(less.loss[0]).toBeGreaterThan(1 - energy);
    }
    // What would not be smaller in factors stays as it is.
    const whole = lowRankExperts(layer, { energy: 1 });
    expect(whole.experts[1]?.up).toBe(layer.experts[1]?.up);
    expect(whole.ranks[1]).toEqual({ reduce: undefined, expand: undefined });
    for (const size of [0.3, 0.5, 0.8]) {
      const made = lowRankExperts(layer, { size, multiple: 2, neurons: 1 });
      expect(made.weights.before).toBe(9 * width * hidden);
      expect(made.weights.after).toBeLessThanOrEqual(size * made.weights.before);
      expect(made.weights.after).toBeGreaterThan((size - 0.15) * made.weights.before);
    }
  });

  it('refuses what it cannot do', () => {
    expectError(
      () => lowRankExperts(layer, {}),
      'BL_INVALID_ARGUMENT',
      'lowRankExperts: rank is undefined, energy undefined, size undefined, expected one of them',
    );
    for (const [options, text] of [
      [{ rank: 0 }, 'rank is 0, expected a whole number of at least 1'],
      [{ energy: 1.5 }, 'energy is 1.5, expected above 0 to 1'],
      [{ size: 1 }, 'size is 1, expected between 0 and 1'],
      [{ rank: 2, multiple: 0 }, 'multiple is 0, expected at least 1'],
      [{ rank: 2, neurons: 16 }, 'neurons is 16, expected less than 16 (the width of an expert)'],
    ] as const) {
      expectError(
        () => lowRankExperts(layer, options),
        'BL_OUT_OF_RANGE',
        `lowRankExperts: ${text}`,
      );
    }
    const made = lowRankExperts(layer, { rank: 4 });
    expectError(
      () => mergeExperts(made, { usage: [1, 1, 1], groups: 2 }),
      'BL_INVALID_ARGUMENT',
      'mergeExperts: experts[0] has factors, expected whole matrices',
    );
    expect(pruneByUsage(made, [1, 2, 3], 2).experts[0]).toBe(made.experts[1]);
  });
});

describe('files of experts of low rank', () => {
  it('hold the factors: full rank gives the same model, the rest is smaller', async () => {
    const bytes = ggufBytes(randomModel({ experts: 4, expertSize: 32 }).content);
    const before = await load(bytes, { activations: 'f32' });
    const logits = before.forward(tokens, { logits: 'all' });
    const expertBytes = (path: string) => {
      const { tensors } = readGGUF(memorySource(readFileSync(path)));
      const own = [...tensors.values()].filter(({ name }) => /ffn_.*\.\d+\.weight/.test(name));
      return own.reduce((sum, tensor) => sum + tensor.bytes, 0);
    };
    await compressModel(bytes, out('full.gguf'), (own) =>
      lowRankExperts(own, { rank: 64, neurons: 3 }),
    );
    const full = await load(out('full.gguf'), { activations: 'f32' });
    expect(worst(full.forward(tokens, { logits: 'all' }), logits)).toBeLessThan(1e-4);
    const first = (mixtures(full)[0] as MoELayer).experts.experts[0];
    expect([first?.reduce?.rows, first?.expand?.cols, first?.up.rows]).toEqual([58, 29, 29]);
    let counted = 0;
    await compressModel(bytes, out('half.gguf'), (own) => {
      const made = lowRankExperts(own, { size: 0.5, multiple: 1, neurons: 3 });
      counted += made.weights.after;
      return made;
    });
    expect(expertBytes(out('half.gguf'))).toBe(4 * counted);
    expect(counted).toBeLessThanOrEqual((2 * 4 * 3 * 32 * 64) / 2);
    // A file gives what was tried; and its experts, which are read multiplied out, keep their bytes.
    const half = await load(out('half.gguf'), { activations: 'f32' });
    const tried = withExperts(
      before,
      (expertLayers(before) as ExpertLayer[]).map((own) =>
        lowRankExperts(own, { size: 0.5, multiple: 1, neurons: 3 }),
      ),
    );
    const made = half.forward(tokens, { logits: 'all' });
    expect(worst(tried.forward(tokens, { logits: 'all' }), made)).toBeLessThan(1e-5);
    expect(worst(logits, made)).toBeGreaterThan(1e-3);
    const whole = withExperts(half, expertLayers(half));
    expect(worst(whole.forward(tokens, { logits: 'all' }), made)).toBeLessThan(1e-4);
    await compressModel(out('half.gguf'), out('same.gguf'), (own) => own);
    const [one, two] = ['half.gguf', 'same.gguf'].map((name) =>
      readGGUF(memorySource(readFileSync(out(name)))),
    );
    for (const [name, tensor] of one?.tensors ?? []) {
      const other = two?.tensors.get(name)?.data() as Uint8Array;
      expect(Buffer.compare(tensor.data(), other)).toBe(0);
    }
    for (const decoder of [before, full, half]) decoder.dispose();
  });

  it('run in low-bit formats and from a cache of experts', async () => {
    const bytes = ggufBytes(randomModel({ experts: 4, hidden: 128, expertSize: 96 }).content);
    await compressModel(bytes, out('f32.gguf'), (own) =>
      lowRankExperts(own, { size: 0.8, neurons: 32 }),
    );
    await quantizeModel(out('f32.gguf'), out('q8.gguf'), 'q8_0');
    await quantizeModel(out('f32.gguf'), out('u4.gguf'), 'u4_g32');
    const decoder = await load(out('f32.gguf'), { activations: 'f32' });
    const logits = decoder.forward(tokens).toArray();
    const largest = Math.max(...logits.map(Math.abs));
    for (const [name, format, limit] of [
      ['q8.gguf', 'q8_0', 0.05],
      ['u4.gguf', 'u4_g32', 0.5],
    ] as const) {
      const low = await load(out(name), { activations: 'f32' });
      const [mixture] = mixtures(low);
      const first = mixture?.experts.experts[0];
      expect([first?.reduce?.format, first?.expand?.format]).toEqual([format, format]);
      expect(mixture?.options.kept?.experts[0]?.up.format).toBe(format);
      const own = low.forward(tokens);
      own.data.forEach((value, i) => {
        expect(Math.abs(value - (logits[i] as number))).toBeLessThan(limit * largest);
      });
      const cached = await load(out(name), { activations: 'f32', expertCache: { bytes: 60_000 } });
      for (let i = 0; i < 2; i++) expect(worst(cached.forward(tokens), own)).toBeLessThan(1e-5);
      for (const one of [low, cached]) one.dispose();
    }
    decoder.dispose();
  });
});

describe('the example model, merged and decomposed (MC-SMoE)', () => {
  const path = tinyMoEModel;
  const text = (aliceChapters()[6] as string).slice(0, 700);

  it('predicts the better the more is kept', async () => {
    const decoder = await load(path, { activations: 'f32' });
    const score = async (model: Decoder) => (await perplexity(model, text)).loss;
    const counts = expertCounts(decoder, decoder.tokenizer?.encode(text) ?? []);
    const merged = (expertLayers(decoder) as ExpertLayer[]).map((own, i) =>
      mergeExperts(own, { usage: counts[i] as number[], groups: 6 }),
    );
    const at = (size: number, neurons = 0) =>
      score(
        withExperts(
          decoder,
          merged.map((own) => lowRankExperts(own, { size, multiple: 1, neurons })),
        ),
      );
    const whole = await score(withExperts(decoder, merged));
    const [high, middle, low] = [await at(0.9), await at(0.6), await at(0.2)];
    expect(low).toBeGreaterThan(middle);
    expect(middle).toBeGreaterThan(high);
    expect(high).toBeLessThan(whole + 0.5);
    decoder.dispose();
  });
});
