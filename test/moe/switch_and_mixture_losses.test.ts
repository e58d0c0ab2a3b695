// SAM's losses against their formulas, and their gradient against central differences, all in float64.
import { describe, expect, it } from 'vitest';
import { switchAndMixture, switchAndMixtureLosses, Tensor } from '../../lib/index.js';
import { expectError } from '../reference/op_checks.js';
import { gaussian } from '../reference/random.js';

const f32 = (values: ArrayLike<number>, shape: number[]) =>
  new Tensor('f32', Float32Array.from(values), shape);
const draw = (rows: number, cols: number, seed: number) =>
  f32(gaussian(rows * cols, seed, 2), [rows, cols]);
const sum = (values: readonly number[]) => values.reduce((a, b) => a + b, 0);
const softmax = (z: readonly number[]) => {
  const total = sum(z.map(Math.exp));
  return z.map((x) => Math.exp(x) / total);
};
const rows = ({ data, shape }: Tensor<'f32'>) =>
  Array.from({ length: shape[0] as number }, (_, t) =>
    Array.from(data.slice(t * (shape[1] as number), (t + 1) * (shape[1] as number))),
  );
const mean = (matrix: number[][], column: number) =>
  sum(matrix.map((row) => row[column] as number)) / matrix.length;

/** From the formulas, with the choices of `switchAndMixture`. */
function reference(
  switchLogits: Tensor<'f32'> | undefined,
  logits: Tensor<'f32'>,
  topK: number,
  groups: number,
) {
  const experts = logits.shape[1] as number;
  const size = experts / groups;
  const all = Array.from({ length: experts }, (_, e) => e);
  const options = switchLogits === undefined ? { topK, groups } : { topK };
  const { indices } = switchAndMixture(switchLogits, logits, options);
  const chosen = Array.from({ length: logits.shape[0] as number }, (_, t) =>
    Array.from(indices.data.slice(t * topK, (t + 1) * topK)),
  );
  const group = (e: number) => Math.floor(e / size);
  const p = rows(logits).map((z, t) => {
    if (switchLogits === undefined) return softmax(z);
    const g = softmax(rows(switchLogits)[t] as number[]);
    const parts = g.map((_, i) => softmax(z.slice(i * size, (i + 1) * size)));
    return all.map((e) => (g[group(e)] as number) * (parts[group(e)]?.[e % size] as number));
  });
  let balance = 0;
  for (let k = 0; k < topK; k++) {
    for (const e of all) {
      const part = chosen.filter((own) => own[k] === e).length / chosen.length;
      balance += experts * part * mean(p, e);
    }
  }
  let groupBalance = 0;
  for (let g = 0; g < groups; g++) {
    const part = chosen.filter((own) => group(own[0] as number) === g).length / chosen.length;
    groupBalance += groups * part * sum(all.filter((e) => group(e) === g).map((e) => mean(p, e)));
  }
  const missed = p.map((own, t) => {
    const last = chosen[t]?.[topK - 1] as number;
    const others = all.filter((e) => group(e) !== group(last));
    return sum(others.map((e) => Math.max(0, (own[e] as number) - (own[last] as number))));
  });
  return { balance, groupBalance, alignment: sum(missed) / missed.length };
}

const cases = [
  { tokens: 7, groups: 3, size: 4, topK: 2, two: false },
  { tokens: 7, groups: 3, size: 4, topK: 2, two: true },
  { tokens: 5, groups: 2, size: 2, topK: 2, two: true },
  { tokens: 4, groups: 1, size: 5, topK: 3, two: false },
  { tokens: 6, groups: 5, size: 1, topK: 1, two: true },
];

describe('switchAndMixtureLosses', () => {
  it.each(cases)(
    'follows the formulas: $tokens tokens, $groups groups, two routers $two',
    (own) => {
      const { tokens, groups, size, topK, two } = own;
      for (let seed = 1; seed < 20; seed++) {
        const outer = two ? draw(tokens, groups, seed) : undefined;
        const logits = draw(tokens, groups * size, seed + 100);
        const found = switchAndMixtureLosses(outer, logits, two ? { topK } : { topK, groups });
        const expected = reference(outer, logits, topK, groups);
        for (const [name, value] of Object.entries(expected)) {
          expect(found[name as keyof typeof expected]).toBeCloseTo(value, 12);
        }
        const routes = switchAndMixture(outer, logits, two ? { topK } : { topK, groups });
        expect(found.routes.indices.toArray()).toEqual(routes.indices.toArray());
        expect(found.routes.weights.toArray()).toEqual(routes.weights.toArray());
      }
    },
  );

  it.each(cases)('goes back as central differences say: two routers $two', (own) => {
    const { tokens, groups, size, topK, two } = own;
    const outer = two ? draw(tokens, groups, 3) : undefined;
    const logits = draw(tokens, groups * size, 4);
    const options = {
      ...(two ? { topK } : { topK, groups }),
      ...{ balanceWeight: 0.5, groupBalanceWeight: -0.7, alignmentWeight: 2 },
    };
    const { gradient, routes } = switchAndMixtureLosses(outer, logits, options);
    const chosen = routes.indices.toArray();
    const value = () => {
      // f, F and choices are constants: values by the choices made before.
      const found = switchAndMixtureLosses(outer, logits, options);
      expect(found.routes.indices.toArray()).toEqual(chosen);
      return 0.5 * found.balance - 0.7 * found.groupBalance + 2 * found.alignment;
    };
    const step = 2 ** -10;
    for (const [tensor, slopes] of [
      [logits, gradient.logits],
      [outer, gradient.switchLogits],
    ] as const) {
      expect(slopes?.shape).toEqual(tensor?.shape);
      tensor?.data.forEach((before, i) => {
        tensor.data[i] = before + step;
        const above = value();
        tensor.data[i] = before - step;
        const below = value();
        tensor.data[i] = before;
        expect(slopes?.data[i]).toBeCloseTo((above - below) / (2 * step), 5);
      });
    }
  });

  it('is 0 where nothing is to be aligned, topK and 1 where all is even', () => {
    const aligned = f32([5, 5, 0, 0, 0, 0, 5, 5], [2, 4]);
    const found = switchAndMixtureLosses(undefined, aligned, { topK: 2, groups: 2 });
    expect(found.alignment).toBe(0);
    expect(found.balance).toBeCloseTo(2, 12);
    expect(found.groupBalance).toBeCloseTo(1, 12);
    // Group 1 has the larger sum, group 0 the likeliest expert.
    const torn = f32([Math.log(4), 0, Math.log(3), Math.log(3)], [1, 4]);
    const { alignment, routes } = switchAndMixtureLosses(undefined, torn, { topK: 2, groups: 2 });
    expect(routes.indices.toArray()).toEqual([2, 3]);
    expect(alignment).toBeCloseTo(1 / 11, 7);
    const none = switchAndMixtureLosses(undefined, f32([], [0, 4]), { topK: 1, groups: 2 });
    expect([none.balance, none.groupBalance, none.alignment]).toEqual([0, 0, 0]);
  });

  it('takes -infinity, and refuses in its own name', () => {
    const closed = f32([1, Number.NEGATIVE_INFINITY, 0, 2], [1, 4]);
    const { gradient, balance } = switchAndMixtureLosses(undefined, closed, { topK: 1, groups: 2 });
    expect(Number.isFinite(balance)).toBe(true);
    expect(Math.abs(gradient.logits.data[1] as number)).toBe(0);
    const shut = f32([1, 0, Number.NEGATIVE_INFINITY, Number.NEGATIVE_INFINITY], [1, 4]);
    const two = switchAndMixtureLosses(f32([1, 0], [1, 2]), shut, { topK: 1 });
    expect([...two.gradient.logits.data].every(Number.isFinite)).toBe(true);
    expectError(
      () => switchAndMixtureLosses(undefined, f32([1, Number.NaN], [1, 2]), { topK: 1, groups: 2 }),
      'BL_NON_FINITE',
      'switchAndMixtureLosses: logits[0, 1] is NaN, expected a number',
    );
    expectError(
      () =>
        switchAndMixtureLosses(undefined, closed, {
          ...{ topK: 1, groups: 2, alignmentWeight: Number.NaN },
        }),
      'BL_INVALID_ARGUMENT',
      'switchAndMixtureLosses: alignmentWeight is NaN, expected a finite number',
    );
  });
});
