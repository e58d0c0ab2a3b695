import { describe, expect, it } from 'vitest';
import { type SampleOptions, sample, sampleAsync, Tensor } from '../../lib/index.js';
import { expectError, onDevice } from '../reference/op_checks.js';

const logits = new Tensor('f32', [1, 2, 3], [3]);
const { POSITIVE_INFINITY: inf, NEGATIVE_INFINITY: minus, NaN: nan } = Number;

// A device tells which one is outside, and not what it is.
const outside: [SampleOptions, string][] = [
  [{ previous: new Tensor('i32', [0, 3], [2]) }, 'previous[1] is 3, expected 0 to 2'],
  [{ previous: new Tensor('i32', [-1], [1]) }, 'previous[0] is -1, expected 0 to 2'],
];

describe('sample errors', () => {
  it.each<[SampleOptions, string]>([
    [{ temperature: -1 }, 'temperature is -1, expected a finite number of at least 0'],
    [{ temperature: nan }, 'temperature is nan, expected a finite number of at least 0'],
    [{ temperature: inf }, 'temperature is inf, expected a finite number of at least 0'],
    [{ topK: -1 }, 'top_k is -1, expected at least 0'],
    [{ topK: 1.5 }, 'topK is not a 32-bit integer'],
    [{ topP: -0.5 }, 'top_p is -0.5, expected 0 to 1'],
    [{ topP: 1.5 }, 'top_p is 1.5, expected 0 to 1'],
    [{ topP: nan }, 'top_p is nan, expected 0 to 1'],
    [{ minP: 1 }, 'min_p is 1, expected at least 0 and below 1'],
    [{ minP: -1 }, 'min_p is -1, expected at least 0 and below 1'],
    [{ repetitionPenalty: -1 }, 'repetition_penalty is -1, expected a finite number of at least 0'],
    [
      { repetitionPenalty: inf },
      'repetition_penalty is inf, expected a finite number of at least 0',
    ],
    ...(onDevice ? [] : outside),
    [{ seed: -1 }, 'seed is not a safe integer of at least 0'],
    [{ seed: 2n ** 64n }, 'seed is not in [0, 2^64)'],
    [{ position: 0.5 }, 'position is not a safe integer of at least 0'],
  ])('%o', (options, message) => {
    expectError(() => sample(logits, options), 'BL_OUT_OF_RANGE', `sample: ${message}`);
  });

  it('logits', () => {
    expectError(
      () => sample(new Tensor('f32', [1, nan], [2])),
      'BL_NON_FINITE',
      'sample: logits[1] is NaN',
    );
    for (const temperature of [0, 1]) {
      expectError(
        () => sample(new Tensor('f32', [minus, minus], [2]), { temperature }),
        'BL_NON_FINITE',
        'sample: every logit is -infinity, expected at least one token that can be picked',
      );
    }
    expectError(
      () => sample(Tensor.zeros('f32', [0])),
      'BL_INVALID_SHAPE',
      'sample: logits.shape[0] is 0, expected 1 to 2^31 - 1',
    );
    expectError(
      () => sample(Tensor.zeros('f32', [1, 3])),
      'BL_INVALID_SHAPE',
      'sample: logits.rank is 2, expected 1',
    );
    expectError(
      () => sample(new Tensor('f32', new Float32Array(6), [3], { strides: [2] })),
      'BL_INVALID_SHAPE',
      'sample: logits.strides[0] is 2, expected 1',
    );
    expectError(
      () => sample(Tensor.zeros('f16', [3]) as never),
      'BL_INVALID_DTYPE',
      'sample: logits.dtype is f16, expected f32',
    );
  });

  it('previous', () => {
    expectError(
      () => sample(logits, { previous: new Tensor('f32', [1], [1]) as never }),
      'BL_INVALID_DTYPE',
      'sample: previous.dtype is f32, expected i32',
    );
    expectError(
      () => sample(logits, { previous: new Tensor('i32', [1], [1, 1]) }),
      'BL_INVALID_SHAPE',
      'sample: previous.rank is 2, expected 1',
    );
  });

  it('rejects the promise of the async form', async () => {
    await expect(sampleAsync(logits, { topP: 2 })).rejects.toMatchObject({
      code: 'BL_OUT_OF_RANGE',
    });
  });
});
