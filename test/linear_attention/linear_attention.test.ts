import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { linearAttention, linearAttentionAsync, Tensor } from '../../lib/index.js';
import { floatTypes, isas, strided } from '../reference/op_checks.js';
import { firstDifference } from '../reference/random.js';
import {
  type CaseOptions,
  compute,
  expectedOf,
  type Inputs,
  inputs,
  kinds,
  roundings,
  rules,
  worstOf,
} from './cases.js';

const simd = isas.filter((isa) => isa !== 'scalar');

/** All rules with all kinds of decay. */
const models = rules.flatMap((rule) => kinds.map((kind) => ({ rule, kind })));

/** The tokens [begin, end) of the inputs. */
function part(input: Inputs, begin: number, end: number, state: Tensor<'f32'>): Inputs {
  const { decay, beta } = input;
  return {
    ...input,
    shape: { ...input.shape, tokens: end - begin },
    q: input.q.slice(begin, end),
    k: input.k.slice(begin, end),
    v: input.v.slice(begin, end),
    decay: decay === undefined || decay.rank === 1 ? decay : decay.slice(begin, end),
    beta: beta?.slice(begin, end),
    state,
  };
}

describe('linearAttention', () => {
  it.each(floatTypes)('matches the recurrence for all shapes in %s', (dtype) => {
    fc.assert(
      fc.property(
        fc.record({
          tokens: fc.integer({ min: 0, max: 70 }),
          group: fc.integer({ min: 0, max: 3 }),
          kvHeads: fc.integer({ min: 1, max: 3 }),
          keyDim: fc.integer({ min: 1, max: 40 }),
          valueDim: fc.integer({ min: 0, max: 40 }),
          kind: fc.constantFrom(...kinds),
          rule: fc.constantFrom(...rules),
          strength: fc.constantFrom(0.01, 0.3, 5, 150),
          resets: fc.constantFrom(0, 0, 0.05),
          chunk: fc.constantFrom(0, 0, 1, 2, 5, 8, 16, 31, 512),
          scale: fc.constantFrom(undefined, 0.05, -1),
          gaps: fc.constantFrom<number[]>([], [2, 3, 0], [5, 0, 1]),
          withState: fc.boolean(),
          isa: fc.constantFrom(...isas),
          seed: fc.integer(),
        }),
        ({ tokens, group, kvHeads, keyDim, valueDim, isa, chunk, scale, ...rest }) => {
          const shape = { tokens, heads: kvHeads * group, kvHeads, keyDim, valueDim };
          const input = inputs(shape, { ...rest, dtype });
          const expected = expectedOf(input, scale);
          const sizes = [tokens, shape.heads, valueDim];
          const zeros = new Float32Array(tokens * shape.heads * valueDim);
          const out = strided(dtype, zeros, sizes, [1, 2, 1]);
          const scaled = scale === undefined ? {} : { scale };
          const { output, state } = compute(input, { isa, chunk, out, ...scaled });
          const count = roundings(isa, shape);
          const error = worstOf(
            output.toArray(),
            expected.output,
            expected.outputSize,
            count,
            dtype,
          );
          expect(error).toBeLessThanOrEqual(1);
          expect(
            worstOf(state.toArray(), expected.state, expected.stateSize, count),
          ).toBeLessThanOrEqual(1);
        },
      ),
      { numRuns: 60 },
    );
  });

  it.each(models)('stays within its bound over many tokens: $rule, decay $kind', (model) => {
    const shape = { tokens: 200, heads: 2, kvHeads: 1, keyDim: 128, valueDim: 43 };
    for (const strength of [0.05, 2]) {
      const input = inputs(shape, { ...model, strength, withState: true });
      const expected = expectedOf(input);
      for (const isa of simd) {
        for (const chunk of [0, 1]) {
          const { output, state } = compute(input, { isa, chunk });
          const count = roundings(isa, shape);
          expect(
            worstOf(output.toArray(), expected.output, expected.outputSize, count),
          ).toBeLessThanOrEqual(1);
          expect(
            worstOf(state.toArray(), expected.state, expected.stateSize, count),
          ).toBeLessThanOrEqual(1);
        }
      }
    }
  });

  it.each(models)('goes on from a state: $rule, decay $kind', (model) => {
    const shape = { tokens: 90, heads: 4, kvHeads: 2, keyDim: 20, valueDim: 33 };
    const input = inputs(shape, { ...model, withState: true });
    const whole = expectedOf(input);
    for (const isa of isas) {
      // As prompt and prompt, as prompt and single tokens.
      for (const cuts of [
        [0, 50, 90],
        [0, 80, ...Array.from({ length: 10 }, (_, i) => 81 + i)],
      ]) {
        let state = new Tensor('f32', input.state.data.slice(), input.state.shape);
        const rows: number[] = [];
        for (let i = 0; i + 1 < cuts.length; i++) {
          const result = compute(part(input, cuts[i] as number, cuts[i + 1] as number, state), {
            isa,
          });
          rows.push(...result.output.toArray());
          state = result.state;
        }
        // Of scalar too the state is rounded to f32 between calls.
        const count = roundings(isa, shape) + cuts.length;
        expect(worstOf(rows, whole.output, whole.outputSize, count)).toBeLessThanOrEqual(1);
        expect(worstOf(state.toArray(), whole.state, whole.stateSize, count)).toBeLessThanOrEqual(
          1,
        );
      }
    }
  });

  it.each(models)('computes ragged batches as single sequences: $rule, decay $kind', (model) => {
    const shape = { tokens: 75, heads: 3, kvHeads: 3, keyDim: 17, valueDim: 20 };
    const input = inputs(shape, model);
    const cu = [0, 0, 1, 60, 60, 64, 75];
    const cuTokens = new Tensor('i32', cu, [cu.length]);
    for (const isa of isas) {
      const state = Tensor.zeros('f32', [6, 3, 17, 20]);
      const { output } = compute(input, { isa, cuTokens, state });
      for (let i = 0; i < 6; i++) {
        const [begin, end] = [cu[i] as number, cu[i + 1] as number];
        const alone = compute(part(input, begin, end, input.state), { isa });
        expect(output.slice(begin, end).toArray()).toEqual(alone.output.toArray());
        expect(state.slice(i, i + 1).toArray()).toEqual(alone.state.toArray());
      }
    }
  });

  it.each(models)(
    'gives equal bits on any thread count and async: $rule, decay $kind',
    async (model) => {
      const shape = { tokens: 70, heads: 4, kvHeads: 2, keyDim: 48, valueDim: 150 };
      const input = inputs(shape, { ...model, withState: true });
      for (const isa of isas) {
        const expected = compute(input, { isa, threads: 1 });
        for (const threads of [2, 3, 7]) {
          const actual = compute(input, { isa, threads });
          expect(firstDifference(actual.output.bytes, expected.output.bytes)).toBe(-1);
          expect(firstDifference(actual.state.bytes, expected.state.bytes)).toBe(-1);
        }
        const { q, k, v, decay, beta, rule } = input;
        const state = new Tensor('f32', input.state.data.slice(), input.state.shape);
        const given = { ...(decay && { decay }), ...(beta && { beta }) };
        const later = await linearAttentionAsync(q, k, v, { ...given, state, rule, isa });
        expect(later.state).toBe(state);
        expect(firstDifference(later.output.bytes, expected.output.bytes)).toBe(-1);
        expect(firstDifference(state.bytes, expected.state.bytes)).toBe(-1);
      }
    },
  );

  it('takes inputs and outputs of different dtypes, with gates that repeat by stride 0', () => {
    const shape = { tokens: 40, heads: 4, kvHeads: 2, keyDim: 16, valueDim: 24 };
    const input = inputs(shape, { rule: 'delta', kind: 'token', seed: 5 });
    const mixed: Inputs = {
      ...input,
      q: inputs(shape, { dtype: 'bf16', seed: 5 }).q,
      v: inputs(shape, { dtype: 'f16', seed: 5 }).v,
      beta: new Tensor('f32', Float32Array.of(0.5), [40, 2], { strides: [0, 0] }),
      decay: new Tensor('f32', Float32Array.of(-0.1, -0.3), [40, 2], { strides: [0, 1] }),
    };
    const expected = expectedOf(mixed);
    for (const isa of isas) {
      const out = Tensor.zeros('bf16', [40, 4, 24]);
      expect(compute(mixed, { isa, out }).output).toBe(out);
      const error = worstOf(
        out.toArray(),
        expected.output,
        expected.outputSize,
        roundings(isa, shape),
        'bf16',
      );
      expect(error).toBeLessThanOrEqual(1);
    }
  });

  it.each(models)(
    'never lets a later token touch an earlier one, even NaN: $rule, decay $kind',
    (model) => {
      const shape = { tokens: 50, heads: 2, kvHeads: 1, keyDim: 19, valueDim: 21 };
      const input = inputs(shape, model);
      for (const isa of isas) {
        const clean = compute(input, { isa }).output.data;
        for (const name of ['q', 'k', 'v'] as const) {
          for (const at of [13, 49]) {
            const dirty = new Tensor(
              'f32',
              input[name].data.slice() as Float32Array,
              input[name].shape,
            );
            const row = (dirty.shape[1] as number) * (dirty.shape[2] as number);
            dirty.data.fill(Number.NaN, at * row, (at + 1) * row);
            const { data } = compute({ ...input, [name]: dirty }, { isa }).output;
            expect(firstDifference(data.subarray(0, at * 42), clean.subarray(0, at * 42))).toBe(-1);
            expect(data.subarray(at * 42, (at + 1) * 42).every(Number.isNaN)).toBe(true);
            // A query is of its own token only; a key or a value stays in the state.
            expect(data.subarray((at + 1) * 42).every(Number.isNaN)).toBe(
              at === 49 || name !== 'q',
            );
          }
        }
      }
    },
  );

  it.each(kinds.slice(1))(
    'a decay of -Infinity forgets what was, NaN and all: decay %s',
    (kind) => {
      const shape = { tokens: 30, heads: 2, kvHeads: 2, keyDim: 9, valueDim: 18 };
      for (const rule of rules) {
        for (const minus of [Number.NEGATIVE_INFINITY, -200]) {
          const input = inputs(shape, { kind, rule });
          // Of the constant decay of a head: every token forgets. Else token 20 does.
          const decay = input.decay as Tensor<'f32'>;
          const from = kind === 'head' ? 29 : 20;
          if (kind === 'head') decay.data.fill(minus);
          else decay.slice(20, 21).data.fill(minus, 0, decay.size / 30);
          const dirty = new Tensor('f32', input.v.data.slice() as Float32Array, input.v.shape);
          dirty.data.fill(Number.NaN, 0, from * 36);
          const state = new Tensor('f32', Array(2 * 9 * 18).fill(Number.NaN), [1, 2, 9, 18]);
          for (const isa of isas) {
            const result = compute({ ...input, v: dirty, state }, { isa });
            const alone = compute(part(input, from, 30, Tensor.zeros('f32', [1, 2, 9, 18])), {
              isa,
            });
            expect(
              worstOf(result.state.toArray(), alone.state.toArray(), Array(324).fill(1), 40),
            ).toBeLessThan(1);
            const rows = result.output.slice(from, 30).toArray();
            expect(
              worstOf(
                rows,
                alone.output.toArray(),
                rows.map(() => 1),
                40,
              ),
            ).toBeLessThan(1);
          }
        }
      }
    },
  );

  it('follows the recurrence for infinities, NaN, denormals and growth', () => {
    const { POSITIVE_INFINITY: inf, NaN: nan } = Number;
    const tiny = 2 ** -149;
    const run = (
      v: number[],
      logs: number[],
      kind: 'token' | 'channel',
      isa: (typeof isas)[number],
    ) => {
      const one = new Tensor(
        'f32',
        v.map(() => 1),
        [v.length, 1, 1],
      );
      const decay = new Tensor('f32', logs, kind === 'token' ? [v.length, 1] : [v.length, 1, 1]);
      const values = new Tensor('f32', v, [v.length, 1, 1]);
      return linearAttention(one, one, values, { decay, isa, scale: 1 }).output.toArray();
    };
    for (const isa of isas) {
      for (const kind of ['token', 'channel'] as const) {
        const zeros = Array<number>(6).fill(0);
        expect(run([1, 2, inf, 1, 1, 1], zeros, kind, isa)).toEqual([1, 3, inf, inf, inf, inf]);
        expect(run([1, 2, 3, 4, nan, 1], zeros, kind, isa)).toEqual([1, 3, 6, 10, nan, nan]);
        expect(run([inf, 1, -inf, 1, 1, 1], zeros, kind, isa)).toEqual([
          inf,
          inf,
          nan,
          nan,
          nan,
          nan,
        ]);
        expect(run([1, 1, 1, 1, 1, 1], [0, 0, 0, nan, 0, 0], kind, isa)).toEqual([
          1,
          2,
          3,
          nan,
          nan,
          nan,
        ]);
        const few = [3, 1, 0, 0, 0, 0].map((x) => x * tiny);
        expect(run(few, zeros, kind, isa)).toEqual([3, 4, 4, 4, 4, 4].map((x) => x * tiny));
        // What a decay pushes below the denormals is gone.
        expect(run([1, 0, 0, 0, 0, 0], [0, -80, -80, 0, 0, 0], kind, isa).slice(2)).toEqual([
          0, 0, 0, 0,
        ]);
        // Decays above 0 grow the state: e^30 each, until f32 ends.
        const grown = run([1, 0, 0, 0, 0, 0], [0, 30, 30, 30, 0, 0], kind, isa);
        grown.slice(0, 3).forEach((value, t) => {
          expect(Math.abs(value / Math.exp(30 * t) - 1)).toBeLessThan(1e-5);
        });
        expect(grown.slice(3)).toEqual([inf, inf, inf]);
      }
    }
  });

  it('does not lose weak decays among strong ones', () => {
    // Sums of logs reach -4500, where f32 has steps of 2^-11; the decays between the last tokens are e^-0.1.
    const tokens = 40;
    const options: CaseOptions = { kind: 'token' };
    const shape = { tokens, heads: 1, kvHeads: 1, keyDim: 8, valueDim: 8 };
    const input = inputs(shape, options);
    const logs = Float32Array.from({ length: tokens }, (_, t) => (t < 30 ? -150 : -0.1));
    const strong = { ...input, decay: new Tensor('f32', logs, [tokens, 1]) };
    const expected = expectedOf(strong);
    for (const isa of isas) {
      const { output } = compute(strong, { isa });
      const count = roundings(isa, shape);
      expect(
        worstOf(output.toArray(), expected.output, expected.outputSize, count),
      ).toBeLessThanOrEqual(1);
    }
  });

  it('makes a state where none is given', () => {
    const x = new Tensor('f32', [1, 2, 3], [3, 1, 1]);
    const decay = new Tensor('f32', [Math.log(0.5)], [1]);
    const { output, state } = linearAttention(x, x, x, { decay });
    expect(state.shape).toEqual([1, 1, 1, 1]);
    expect(output.toArray()).toEqual([1, 9, 33.75]);
    expect(state.toArray()).toEqual([11.25]);
  });
});
