// What must not change a bit: threads, sequences beside each other, async; what joins exactly: parts of the keys. And an
// error that does not grow with the number of keys.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  attention,
  attentionAsync,
  type FloatDType,
  mergeStates,
  Tensor,
} from '../../lib/index.js';
import { attentionReference } from '../reference/attention.js';
import {
  attend,
  type Inputs,
  inputsOf,
  type Options,
  optionsOf,
  type Plan,
  plans,
  type Results,
  workOf,
} from '../reference/attention_cases.js';
import { epsilon, isas, worst } from '../reference/op_checks.js';
import { firstDifference, gaussian, randomSource } from '../reference/random.js';

// The scalar kernel is in double and slow: it gets small calls.
const planFor = (isa: string): fc.Arbitrary<Plan> =>
  plans.filter((plan) => workOf(plan) < (isa === 'scalar' ? 3e5 : 3e6));

function expectSame(actual: Results, expected: Results): void {
  for (const name of ['output', 'lse', 'probabilities'] as const) {
    expect([name, firstDifference(actual[name].bytes, expected[name].bytes)]).toEqual([name, -1]);
  }
}

/** Rows [begin, end) of an axis. */
function cut<D extends FloatDType | 'u8'>(x: Tensor<D>, axis: number, begin: number, end: number) {
  const shape = [...x.shape];
  const size = shape[axis] as number;
  const inner = shape.slice(axis + 1).reduce((a, b) => a * b, 1);
  shape[axis] = end - begin;
  const kept = x.toArray().filter((_, i) => {
    const at = Math.floor(i / inner) % size;
    return at >= begin && at < end;
  });
  return new Tensor<FloatDType | 'u8'>(x.dtype, kept, shape) as Tensor as Tensor<D>;
}

describe('attention', () => {
  it.each(isas)('gives the same bits on any number of threads, %s', (isa) => {
    fc.assert(
      fc.property(planFor(isa), (plan) => {
        const inputs = inputsOf(plan);
        const options = { ...optionsOf(plan), isa };
        const expected = attend(inputs, { ...options, threads: 1 });
        for (const threads of [2, 3, 7]) {
          expectSame(attend(inputs, { ...options, threads }), expected);
        }
      }),
      { numRuns: 12 },
    );
  });

  it('gives the same bits where keys are cut into chunks for threads', () => {
    for (const isa of isas.filter((level) => level !== 'scalar')) {
      for (const [keys, options] of [
        [1500, {}],
        [2048, { causal: true, window: 700, sinkTokens: 5 }],
        [1025, { causal: true }],
      ] as [number, Options][]) {
        const inputs = inputsOf({
          dtype: 'f16',
          lengths: [[3, keys]],
          kvHeads: 1,
          group: 4,
          headDim: 64,
          valueDim: 48,
          gaps: [],
          seed: keys,
        });
        const expected = attend(inputs, { ...options, isa, threads: 1 });
        for (const threads of [2, 3, 7]) {
          expectSame(attend(inputs, { ...options, isa, threads }), expected);
        }
      }
    }
  });

  it.each(isas)('gives a sequence among others the bits it has alone, %s', (isa) => {
    const several = planFor(isa).filter(({ lengths }) => lengths.length > 1);
    fc.assert(
      fc.property(several, (plan) => {
        // Without gaps, which cut() would close, and so change the kernel.
        const { q, k, v } = inputsOf({ ...plan, gaps: [] });
        const { cuQueries, cuKeys, ...rest } = optionsOf(plan);
        if (cuQueries === undefined || cuKeys === undefined) throw new Error('not ragged');
        const all = attend({ q, k, v }, { ...rest, cuQueries, cuKeys, isa, threads: 1 });
        const [queries, keys] = [cuQueries.toArray(), cuKeys.toArray()];
        plan.lengths.forEach(([n, m], i) => {
          const [t, s] = [queries[i] as number, keys[i] as number];
          const own: Inputs = {
            q: cut(q, 0, t, t + n),
            k: cut(k, 0, s, s + m),
            v: cut(v, 0, s, s + m),
          };
          const mask = rest.mask as Tensor<'u8'> | undefined;
          const options: Options = {
            ...rest,
            ...(mask === undefined ? {} : { mask: cut(mask, 1, t, t + n) }),
          };
          const alone = attend(own, { ...options, isa, threads: 1 });
          expect(cut(all.output, 0, t, t + n).toArray()).toEqual(alone.output.toArray());
          expect(cut(all.lse, 0, t, t + n).toArray()).toEqual(alone.lse.toArray());
          const weights = cut(cut(all.probabilities, 1, t, t + n), 2, 0, m);
          expect(weights.toArray()).toEqual(alone.probabilities.toArray());
        });
      }),
      { numRuns: 12 },
    );
  });

  it.each(isas)('leaves keys beyond the last sequence alone, %s', (isa) => {
    for (const [queries, keys] of [
      [1, 40],
      [3, 700],
      [40, 90],
      [2, 0],
    ] as const) {
      const tensor = (count: number, seed: number, rest = 0) =>
        new Tensor(
          'f32',
          [...gaussian(count * 2 * 16, seed), ...new Array(rest * 2 * 16).fill(Number.NaN)],
          [count + rest, 2, 16],
        );
      const q = tensor(queries, 1);
      const [k, v] = [tensor(keys, 2), tensor(keys, 3)];
      const options = { causal: true, compute: 'f32' as const, isa };
      const expected = attention(q, k, v, options);
      const actual = attention(q, tensor(keys, 2, 9), tensor(keys, 3, 9), {
        ...options,
        cuQueries: new Tensor('i32', [0, queries], [2]),
        cuKeys: new Tensor('i32', [0, keys], [2]),
      });
      expect(actual.toArray()).toEqual(expected.toArray());
    }
  });

  it('gives the same bits on a worker thread', async () => {
    await fc.assert(
      fc.asyncProperty(planFor('scalar'), fc.constantFrom(...isas), async (plan, isa) => {
        const { q, k, v } = inputsOf(plan);
        const options = { ...optionsOf(plan), isa };
        const expected = attention(q, k, v, options);
        const actual = await attentionAsync(q, k, v, options);
        expect(firstDifference(actual.bytes, expected.bytes)).toBe(-1);
      }),
      { numRuns: 12 },
    );
  });

  it.each(isas)('over parts of the keys, joined, is attention over all, %s', (isa) => {
    fc.assert(
      fc.property(
        plans.filter((plan) => plan.lengths.length === 1 && workOf(plan) < 3e5),
        fc.integer({ min: 1, max: 5 }),
        fc.constantFrom<FloatDType>('f32', 'f16'),
        (plan, parts, partType) => {
          const { q, k, v } = inputsOf({ ...plan, gaps: [] });
          const { scale, softCap = 0, sinks, mask } = optionsOf({ ...plan, maskColumns: 2000 });
          const whole: Options = {
            softCap,
            ...(scale === undefined ? {} : { scale }),
            ...(sinks === undefined ? {} : { sinks }),
            ...(mask === undefined ? {} : { mask }),
          };
          // Any keys to any part; a part may have none. The sink goes with the last one.
          const random = randomSource(plan.seed + 1);
          const [queries, heads, dim] = [q.shape[0], q.shape[1], v.shape[2]] as [
            number,
            number,
            number,
          ];
          const keys = k.shape[0] as number;
          const partOf = Array.from({ length: keys }, () => Math.floor(random() * parts));
          const own = (x: Tensor<FloatDType | 'u8'>, axis: number, part: number): Tensor => {
            const inner = x.shape.slice(axis + 1).reduce((a, b) => a * b, 1);
            const shape = [...x.shape];
            shape[axis] = partOf.filter((p) => p === part).length;
            const kept = x
              .toArray()
              .filter((_, i) => partOf[Math.floor(i / inner) % keys] === part);
            return new Tensor(x.dtype, kept, shape) as Tensor;
          };
          const outputs = Tensor.zeros(partType, [parts, queries, heads, dim]);
          const lses = Tensor.zeros('f32', [parts, queries, heads]);
          for (let part = 0; part < parts; part++) {
            const { sinks: sink, ...others } = whole;
            attention(
              q,
              own(k, 0, part) as Tensor<FloatDType>,
              own(v, 0, part) as Tensor<FloatDType>,
              {
                ...others,
                ...(part === parts - 1 && sink !== undefined ? { sinks: sink } : {}),
                ...(mask === undefined ? {} : { mask: own(mask, 2, part) as Tensor<'u8'> }),
                isa,
                threads: 1,
                out: outputs.slice(part, part + 1).reshape([queries, heads, dim]),
                lse: lses.slice(part, part + 1).reshape([queries, heads]),
              },
            );
          }
          const joined = mergeStates(outputs, lses);
          const expected = attentionReference(q, k, v, whole);
          const largest = v.toArray().reduce((most, x) => Math.max(most, Math.abs(x)), 0);
          const wobble = expected.wobble.reduce((most, x) => Math.max(most, x), 0);
          // A part is off as attention is; a weight by lse's error, and by the rounding of lse itself.
          const size = lses.data.reduce(
            (most, x) => (Number.isFinite(x) ? Math.max(most, Math.abs(x)) : most),
            0,
          );
          const lseSteps = 16 + wobble + size;
          const steps = (16 + 2 * wobble + 2 * lseSteps) * epsilon.f32 + epsilon[partType] / 2;
          expect(
            worst(joined.output.data, expected.output, largest * steps + 1e-37, 0),
          ).toBeLessThanOrEqual(1);
          expect(
            worst(joined.lse.data, expected.lse, lseSteps * epsilon.f32, epsilon.f32),
          ).toBeLessThanOrEqual(1);
        },
      ),
      { numRuns: 12 },
    );
  });

  it.each(isas)('has an error that does not grow with the number of keys, %s', (isa) => {
    // Diffuse: all keys have about the same weight, so that every sum is long.
    const errors = [1024, 8192, 32768].map((keys) => {
      const q = new Tensor('f32', gaussian(16, 1, 0.5), [1, 1, 16]);
      const k = new Tensor('f32', gaussian(keys * 16, 2, 0.5), [keys, 1, 16]);
      // Not centred, so that sums grow with every key.
      const values = gaussian(keys * 16, 3).map((x) => 1 + x);
      const v = new Tensor('f32', values, [keys, 1, 16]);
      const lse = Tensor.zeros('f32', [1, 1]);
      const expected = attentionReference(q, k, v);
      const output = attention(q, k, v, { isa, lse, threads: 1 });
      return [
        worst(output.data, expected.output, epsilon.f32, 0),
        worst(lse.data, expected.lse, epsilon.f32, epsilon.f32),
      ];
    });
    // In steps of f32 at 1.
    for (const [output, lse] of errors as [number, number][]) {
      expect(output).toBeLessThanOrEqual(8);
      expect(lse).toBeLessThanOrEqual(8);
    }
  });
});
