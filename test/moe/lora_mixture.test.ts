import { describe, expect, it } from 'vitest';
import {
  loraMixture,
  loraMixtureAsync,
  type MoERoutes,
  matmul,
  moeRoute,
  quantize,
  sequence,
  Tensor,
} from '../../lib/index.js';
import { expectError } from '../reference/op_checks.js';
import { gaussian } from '../reference/random.js';
import { f32, lists, routesOf } from './cases.js';

const sizes = { tokens: 9, hidden: 24, width: 32, count: 5, topK: 2, seed: 6 };
const [K, N] = [24, 18];

/** From the formula, in float64. */
function reference(
  x: Tensor<'f32'>,
  routes: MoERoutes,
  down: Tensor<'f32'>,
  up: Tensor<'f32'>,
  scale: number,
  base: ArrayLike<number>,
): number[] {
  const rank = down.shape[1] as number;
  const result = Array.from(base);
  lists(routes).forEach((of, t) => {
    for (const [e, weight] of of) {
      for (let r = 0; r < rank; r++) {
        let inner = 0;
        for (let k = 0; k < K; k++) {
          inner += (down.data[(e * rank + r) * K + k] as number) * (x.data[t * K + k] as number);
        }
        for (let n = 0; n < N; n++) {
          const value = scale * weight * (up.data[(e * N + n) * rank + r] as number) * inner;
          result[t * N + n] = (result[t * N + n] as number) + value;
        }
      }
    }
  });
  return result;
}

const worst = (a: ArrayLike<number>, b: number[]) =>
  b.reduce((most, x, i) => Math.max(most, Math.abs(x - (a[i] as number))), 0);

describe('loraMixture', () => {
  const x = f32(gaussian(9 * K, 1), [9, K]);
  const w = quantize(f32(gaussian(N * K, 2, 0.2), [N, K]), 'u4_g32');
  const base = matmul(x, w);

  it.each([
    { what: 'experts of rank 4 (MoLA)', count: 5, rank: 4, topK: 2 },
    { what: 'every rank an expert (SMoRA)', count: 16, rank: 1, topK: 6 },
  ])('adds $what to a product of low bits', ({ count, rank, topK }) => {
    const down = f32(gaussian(count * rank * K, 3, 0.3), [count, rank, K]);
    const up = f32(gaussian(count * N * rank, 4, 0.3), [count, N, rank]);
    const routes = routesOf({ ...sizes, count, topK });
    const y = loraMixture(x, routes, { down, up, scale: 2 }, { base });
    expect(worst(y.data, reference(x, routes, down, up, 2, base.data))).toBeLessThan(1e-5);
    const alone = loraMixture(x, routes, { down, up });
    const zeros = new Float32Array(9 * N);
    expect(worst(alone.data, reference(x, routes, down, up, 1, zeros))).toBeLessThan(1e-5);
    const inPlace = f32(base.data, [9, N]);
    loraMixture(x, routes, { down, up, scale: 2 }, { base: inPlace, out: inPlace, threads: 3 });
    expect(inPlace.toArray()).toEqual(y.toArray());
  });

  it('takes the routes of moeRoute, and gives base where tokens go nowhere', () => {
    const down = f32(gaussian(3 * 2 * K, 3), [3, 2, K]);
    const up = f32(gaussian(3 * N * 2, 4), [3, N, 2]);
    const routes = moeRoute(f32(gaussian(27, 8), [9, 3]), { topK: 1, normalize: true });
    const y = loraMixture(x, routes, { down, up }, { base });
    expect(worst(y.data, reference(x, routes, down, up, 1, base.data))).toBeLessThan(1e-4);
    routes.indices.data.fill(-1);
    expect(loraMixture(x, routes, { down, up }, { base }).toArray()).toEqual(base.toArray());
  });

  it('refuses what does not fit', () => {
    const down = f32(gaussian(3 * 2 * K, 3), [3, 2, K]);
    const up = f32(gaussian(3 * N * 2, 4), [3, N, 2]);
    const routes = routesOf({ ...sizes, count: 3 });
    const call = (change: object, options: object = {}) =>
      loraMixture(x, routes, { down, up, ...change }, options);
    const code = 'BL_INVALID_SHAPE';
    const narrow = f32(gaussian(60, 3), [3, 2, 10]);
    expectError(
      () => call({ down: narrow }),
      code,
      'loraMixture: x.shape[1] is 24, expected 10 (= experts.down.shape[2])',
    );
    const other = f32(gaussian(2 * N * 2, 4), [2, N, 2]);
    expectError(
      () => call({ up: other }),
      code,
      'loraMixture: experts.up.shape[0] is 2, expected 3 (= experts.down.shape[0])',
    );
    expectError(
      () => call({ scale: Number.NaN }),
      'BL_INVALID_ARGUMENT',
      'loraMixture: experts.scale is NaN, expected a finite number',
    );
    expectError(
      () => loraMixture(x, { indices: routes.indices } as never, { down, up }),
      'BL_INVALID_ARGUMENT',
      'loraMixture: routes.weights is undefined, expected a Tensor',
    );
    expectError(
      () => call({}, { base: f32(new Float32Array(N), [1, N]) }),
      code,
      `loraMixture: base.shape is [1,${N}], expected [9,${N}] (= [tokens, N])`,
    );
    expectError(
      () => call({}, { out: f32(new Float32Array(9), [9, 1]) }),
      code,
      `loraMixture: out.shape is [9,1], expected [9,${N}] (= [tokens, N])`,
    );
    expectError(
      () => call({ down: new Tensor('f16', down.toArray(), [3, 2, K]) }),
      'BL_INVALID_DTYPE',
      'loraMixture: experts.down.dtype is f16, expected f32',
    );
    expectError(
      () => loraMixture(x, { ...routes, indices: routes.weights as never }, { down, up }),
      'BL_INVALID_DTYPE',
      'loraMixture: routes.indices.dtype is f32, expected i32',
    );
    expectError(
      () => call({ scale: 'much' }),
      'BL_INVALID_ARGUMENT',
      'loraMixture: experts.scale is "much", expected a finite number',
    );
    const out = f32(new Float32Array(9 * N).fill(7), [9, N]);
    for (const odd of [3, -2]) {
      routes.indices.data[5] = odd;
      expectError(
        () => call({}, { out }),
        'BL_OUT_OF_RANGE',
        `loraMixture: routes.indices[2, 1] is ${odd}, expected -1 to 2`,
      );
    }
    expect(out.data.every((value) => value === 7)).toBe(true);
  });

  it('runs on a worker thread, alone and in a sequence, with the same bits', async () => {
    const down = f32(gaussian(3 * 2 * K, 3), [3, 2, K]);
    const up = f32(gaussian(3 * N * 2, 4), [3, N, 2]);
    const routes = routesOf({ ...sizes, count: 3 });
    const expected = loraMixture(x, routes, { down, up, scale: 3 }, { base });
    const options = { base, threads: 2 };
    const own = await loraMixtureAsync(x, routes, { down, up, scale: 3 }, options);
    expect(own.toArray()).toEqual(expected.toArray());
    const logits = f32(gaussian(27, 8), [9, 3]);
    const inSequence = await sequence(() =>
      loraMixture(x, moeRoute(logits, { topK: 2 }), { down, up }, { base }),
    );
    const outside = loraMixture(x, moeRoute(logits, { topK: 2 }), { down, up }, { base });
    expect(inSequence.toArray()).toEqual(outside.toArray());
    const reason = new Error('enough');
    await expect(
      loraMixtureAsync(x, routes, { down, up }, { signal: AbortSignal.abort(reason) }),
    ).rejects.toBe(reason);
    routes.indices.data[0] = 3;
    await expect(loraMixtureAsync(x, routes, { down, up })).rejects.toMatchObject({
      code: 'BL_OUT_OF_RANGE',
      message: 'loraMixture: routes.indices[0, 0] is 3, expected -1 to 2',
    });
  });
});
