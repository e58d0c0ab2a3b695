// Random experts and routes.
import { type Format, type MoEExpert, packWeights, quantize, Tensor } from '../../lib/index.js';
import { gaussian, randomSource } from '../reference/random.js';

export interface Sizes {
  tokens: number;
  hidden: number;
  width: number;
  count: number;
  topK: number;
  seed: number;
}

export function weights(rows: number, cols: number, format: Format, seed: number, packed: boolean) {
  const values = new Tensor('f32', gaussian(rows * cols, seed, 1 / Math.sqrt(cols)), [rows, cols]);
  const it = quantize(values, format);
  return packed ? packWeights(it) : it;
}

export const f32 = (values: ArrayLike<number>, shape: number[]) =>
  new Tensor('f32', Float32Array.from(values), shape);

/** Experts with widths and formats of their own. */
export function expertsOf(
  { hidden, width, count, seed }: Sizes,
  format: (e: number) => Format,
  { gated = true, biased = false, packed = true } = {},
): MoEExpert[] {
  return Array.from({ length: count }, (_, e) => {
    const own = width + 32 * (e % 2);
    const name = format(e);
    const at = seed + 10 * e;
    return {
      ...(gated ? { gate: weights(own, hidden, name, at, packed) } : {}),
      up: weights(own, hidden, name, at + 1, packed),
      down: weights(hidden, own, name, at + 2, packed),
      ...(biased && gated ? { gateBias: f32(gaussian(own, at + 3), [own]) } : {}),
      ...(biased ? { upBias: f32(gaussian(own, at + 4), [own]) } : {}),
      ...(biased ? { downBias: f32(gaussian(hidden, at + 5), [hidden]) } : {}),
    };
  });
}

/** Random routes; some go nowhere. */
export function routesOf({ tokens, count, topK, seed }: Sizes, nowhere = 0.1) {
  const random = randomSource(seed + 99);
  const indices = Int32Array.from({ length: tokens * topK }, () =>
    random() < nowhere ? -1 : Math.floor(random() * count),
  );
  return {
    indices: new Tensor('i32', indices, [tokens, topK]),
    weights: f32(gaussian(tokens * topK, seed + 98), [tokens, topK]),
  };
}
