import { describe, expect, it } from 'vitest';
import {
  decodeAttention,
  KVPages,
  kvAppend,
  mergeStates,
  Tensor,
  unsmoothedLse,
} from '../../lib/index.js';
import { randomNumbers } from '../nn/random_model.js';
import { expectRefusal } from '../nn/refusals.js';
import { isas } from '../reference/op_checks.js';

const [numHeads, numKvHeads, dim, keys, queries] = [6, 2, 20, 48, 3];
const random = randomNumbers(11);
const tensor = (shape: number[], of: (i: number) => number): Tensor<'f32'> =>
  new Tensor(
    'f32',
    Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, i) => of(i)),
    shape,
  );
// Keys around a mean that is larger than they are.
const mean = tensor([numKvHeads, dim], (i) => 3 * Math.sin(i));
const k = tensor([keys, numKvHeads, dim], (i) => (mean.data[i % mean.size] as number) + random());
const v = tensor([keys, numKvHeads, dim], () => random());
const q = tensor([queries, numHeads, dim], () => random());

/** lse over keys [begin, end) in float64, for queries that see all of them. */
function reference(begin: number, end: number, scale: number): number[] {
  return Array.from({ length: queries * numHeads }, (_, row) => {
    const g = Math.floor((row % numHeads) / (numHeads / numKvHeads));
    let sum = 0;
    for (let s = begin; s < end; s++) {
      let score = 0;
      for (let c = 0; c < dim; c++) {
        score +=
          (q.data[row * dim + c] as number) * (k.data[(s * numKvHeads + g) * dim + c] as number);
      }
      sum += Math.exp(scale * score);
    }
    return Math.log(sum);
  });
}

function attend(begin: number, end: number, options: object, keyMean?: Tensor<'f32'>) {
  const count = end - begin;
  const pages = new KVPages({ keyFormat: 'f32', numKvHeads, keyDim: dim, numPages: 3 });
  const slots = tensor([count], (i) => i);
  kvAppend(
    k.slice(begin, end),
    v.slice(begin, end),
    new Tensor('i32', Int32Array.from(slots.data), [count]),
    pages,
    keyMean === undefined ? {} : { keyMean },
  );
  const lse = Tensor.empty('f32', [queries, numHeads]);
  const segment = {
    pages,
    blockTable: new Tensor('i32', [0, 1, 2], [1, 3]),
    lengths: new Tensor('i32', [count], [1]),
  };
  const out = decodeAttention(q, [segment], { causal: false, lse, ...options });
  return { out, lse };
}

describe('unsmoothedLse', () => {
  it.each(isas)('%s: is the log-sum-exp over the keys with their mean', (isa) => {
    for (const scale of [undefined, 0.7]) {
      const options = { isa, ...(scale === undefined ? {} : { scale }) };
      const { lse, out } = attend(0, keys, options, mean);
      const { out: plain } = attend(0, keys, options);
      const fixed = unsmoothedLse(lse, q, mean, scale === undefined ? {} : { scale });
      const expected = reference(0, keys, scale ?? 1 / Math.sqrt(dim));
      for (const [i, x] of expected.entries()) {
        expect(Math.abs((fixed.data[i] as number) - x)).toBeLessThan(
          1e-5 * Math.max(1, Math.abs(x)),
        );
      }
      // What softmax does not see.
      for (const [i, x] of plain.data.entries()) expect(out.data[i]).toBeCloseTo(x as number, 5);
      expect([...lse.data].some((x, i) => Math.abs(x - (expected[i] as number)) > 0.1)).toBe(true);
    }
  });

  it('joins smoothed keys with others', () => {
    const a = attend(0, 20, {}, mean);
    const b = attend(20, keys, {});
    const outputs = tensor([2, queries, numHeads, dim], (i) =>
      i < a.out.size ? (a.out.data[i] as number) : (b.out.data[i - a.out.size] as number),
    );
    const corrected = unsmoothedLse(a.lse, q, mean);
    const lses = tensor([2, queries, numHeads], (i) =>
      i < a.lse.size ? (corrected.data[i] as number) : (b.lse.data[i - a.lse.size] as number),
    );
    const whole = attend(0, keys, {});
    const merged = mergeStates(outputs, lses).output;
    for (const [i, x] of whole.out.data.entries()) {
      expect(merged.data[i]).toBeCloseTo(x as number, 5);
    }
  });

  it('leaves rows without keys', () => {
    const none = tensor([queries, numHeads], () => Number.NEGATIVE_INFINITY);
    expect([...unsmoothedLse(none, q, mean).data]).toEqual([...none.data]);
    const empty = unsmoothedLse(
      Tensor.zeros('f32', [0, numHeads]),
      Tensor.zeros('f32', [0, numHeads, dim]),
      mean,
    );
    expect(empty.shape).toEqual([0, numHeads]);
  });

  it('refuses shapes, types and scales', async () => {
    const lse = Tensor.zeros('f32', [queries, numHeads]);
    const refuse = (args: unknown[], code: string, part: string): Promise<void> =>
      expectRefusal(() => unsmoothedLse(...(args as [never, never, never])), code, part);
    await refuse([1, q, mean], 'BL_INVALID_ARGUMENT', 'lse is 1');
    await refuse([lse, undefined, mean], 'BL_INVALID_ARGUMENT', 'q is undefined');
    await refuse([lse, q, {}], 'BL_INVALID_ARGUMENT', 'keyMean');
    await refuse([Tensor.zeros('f16', [3, 6]), q, mean], 'BL_INVALID_DTYPE', 'lse.dtype is f16');
    await refuse([q, q, mean], 'BL_INVALID_SHAPE', 'lse has shape');
    await refuse([Tensor.zeros('f32', [2, 6]), q, mean], 'BL_INVALID_SHAPE', 'expected [3,6]');
    await refuse([lse, q, Tensor.zeros('f32', [4, dim])], 'BL_INVALID_SHAPE', 'a divisor of 6');
    await refuse([lse, q, Tensor.zeros('f32', [2, 3])], 'BL_INVALID_SHAPE', 'keyMean has shape');
    await refuse([lse, q, mean, { scale: Number.NaN }], 'BL_INVALID_ARGUMENT', 'scale is NaN');
    await refuse([lse, q, mean, null], 'BL_INVALID_ARGUMENT', 'options is null');
    await refuse([lse, q, mean, { scal: 1 }], 'BL_INVALID_ARGUMENT', 'option "scal" is not known');
  });

  it('takes a scale of 0 for the default, as attention does', () => {
    const lse = Tensor.zeros('f32', [queries, numHeads]);
    expect(unsmoothedLse(lse, q, mean, { scale: 0 }).data).toEqual(
      unsmoothedLse(lse, q, mean).data,
    );
  });
});
