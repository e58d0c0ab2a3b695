// The training of examples/train-moe: gradients of the whole model and of its parts against central differences.
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { Tensor } from '../../../lib/index.js';
import { gaussian } from '../../reference/random.js';
import { examples } from '../models.js';

type Floats = Tensor<'f32'>;
type Back = (g: Floats) => Record<string, Floats>;
interface Operators {
  Adam: new () => {
    update(p: Record<string, Floats>, g: Record<string, Floats>, rate: number): number;
  };
  attention(q: Floats, k: Floats, v: Floats, shape: object): { y: Floats; back: Back };
  linear(x: Floats, w: Floats): { y: Floats; back: Back };
  rmsNorm(x: Floats, w: Floats, epsilon: number): { y: Floats; back: Back };
}
interface Model {
  randomSource(seed: number): { uniform: () => number };
  makeParameters(seed: number, own: object): Record<string, Floats>;
  loss(
    p: Record<string, Floats>,
    ids: number[],
    targets: number[],
    batch: number,
    own: object,
    uniform?: () => number,
  ): { loss: number; back: () => { gradients: Record<string, Floats> } };
}
const folder = join(examples, 'train-moe');
const operators = (await import(join(folder, 'operators.mjs'))) as Operators;
const model = (await import(join(folder, 'model.mjs'))) as Model;

const draw = (seed: number, ...shape: number[]): Floats =>
  new Tensor(
    'f32',
    gaussian(
      shape.reduce((a, b) => a * b, 1),
      seed,
    ),
    shape,
  );
const dot = (a: Floats, b: Floats) =>
  a.data.reduce((sum, x, i) => sum + x * (b.data[i] as number), 0);

/** Largest difference between a gradient and central differences of `value` by some of the numbers, relative. */
function worst(value: () => number, data: Float32Array, gradient: Floats, step: number): number {
  const scale = Math.max(1e-3, ...gradient.data.map(Math.abs));
  let largest = 0;
  for (let i = 0; i < data.length; i += Math.ceil(data.length / 11)) {
    const before = data[i] as number;
    data[i] = before + step;
    const above = value();
    data[i] = before - step;
    const below = value();
    data[i] = before;
    const slope = (above - below) / (2 * step);
    largest = Math.max(largest, Math.abs(slope - (gradient.data[i] as number)) / scale);
  }
  return largest;
}

describe('operators of examples/train-moe', () => {
  it('rmsNorm, linear, attention go back as central differences say', () => {
    const [x, w, g] = [draw(1, 5, 12), draw(2, 12), draw(3, 5, 12)];
    const norm = operators.rmsNorm(x, w, 1e-5).back(g);
    const ofNorm = () => dot(operators.rmsNorm(x, w, 1e-5).y, g);
    expect(worst(ofNorm, x.data, norm.x as Floats, 2 ** -8)).toBeLessThan(2e-3);
    expect(worst(ofNorm, w.data, norm.w as Floats, 2 ** -8)).toBeLessThan(2e-3);
    const [m, gm] = [draw(4, 7, 12), draw(5, 5, 7)];
    const product = operators.linear(x, m).back(gm);
    const ofProduct = () => dot(operators.linear(x, m).y, gm);
    expect(worst(ofProduct, x.data, product.x as Floats, 2 ** -6)).toBeLessThan(2e-3);
    expect(worst(ofProduct, m.data, product.w as Floats, 2 ** -6)).toBeLessThan(2e-3);
    const shape = { batch: 2, length: 5, heads: 3, dim: 4, base: 100 };
    const [q, k, v, ga] = [6, 7, 8, 9].map((seed) => draw(seed, 10, 12)) as [
      Floats,
      Floats,
      Floats,
      Floats,
    ];
    const mixed = operators.attention(q, k, v, shape).back(ga);
    const ofMixed = () => dot(operators.attention(q, k, v, shape).y, ga);
    for (const [name, tensor] of Object.entries({ q, k, v })) {
      expect(worst(ofMixed, tensor.data, mixed[name] as Floats, 2 ** -8)).toBeLessThan(5e-3);
    }
  });

  it('the whole model goes back likewise, and learns a text by heart', () => {
    const own = {
      ...{ vocabulary: 11, hidden: 16, layers: 2, heads: 2, dim: 8, experts: 4, topK: 4, ffn: 8 },
      ...{ base: 100, epsilon: 1e-5, balanceWeight: 0, zWeight: 0 },
    };
    const p = model.makeParameters(3, own);
    // Larger than at the beginning of training, so that everything counts.
    for (const { data, shape } of Object.values(p)) {
      if (shape.length > 1) for (let i = 0; i < data.length; i++) data[i] = (data[i] as number) * 8;
    }
    const ids = Array.from({ length: 12 }, (_, i) => (i * 5) % 11);
    const targets = Array.from({ length: 12 }, (_, i) => (i * 7 + 1) % 11);
    const value = () => model.loss(p, ids, targets, 2, own).loss;
    const { gradients } = model.loss(p, ids, targets, 2, own).back();
    expect(Object.keys(gradients).sort()).toEqual(Object.keys(p).sort());
    for (const [name, tensor] of Object.entries(p)) {
      const gradient = gradients[name] as Floats;
      expect(gradient.shape).toEqual(tensor.shape);
      expect(worst(value, tensor.data, gradient, 2 ** -8)).toBeLessThan(2e-2);
    }
    // With dropout: the same numbers, and with them the same zeros, each time.
    const some = { ...own, dropout: 0.3 };
    const thinned = () => model.loss(p, ids, targets, 2, some, model.randomSource(1).uniform);
    expect(thinned().loss).not.toBe(value());
    const thin = thinned().back().gradients;
    for (const [name, tensor] of Object.entries(p)) {
      const gradient = thin[name] as Floats;
      expect(worst(() => thinned().loss, tensor.data, gradient, 2 ** -8)).toBeLessThan(2e-2);
    }
    const fresh = model.makeParameters(4, own);
    const adam = new operators.Adam();
    for (let step = 0; step < 40; step++) {
      const pass = model.loss(fresh, ids, targets, 2, own);
      adam.update(fresh, pass.back().gradients, 2e-2);
    }
    expect(model.loss(fresh, ids, targets, 2, own).loss).toBeLessThan(0.5);
  });
});
