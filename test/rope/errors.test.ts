import { describe, expect, it } from 'vitest';
import { type FloatDType, rope, ropeAsync, Tensor } from '../../lib/index.js';
import { expectError, onDevice } from '../reference/op_checks.js';

const x = Tensor.zeros('f32', [2, 3, 8]);
const positions = new Tensor('i32', [0, 1], [2]);
const yarn = { type: 'yarn', factor: 2, originalContext: 64 } as const;
const llama3 = { type: 'llama3', factor: 2, originalContext: 64 } as const;

describe('rope errors', () => {
  it.each([
    [-1, 'rope: factor is -1, expected a finite number of at least 1'],
    [0.5, 'rope: factor is 0.5, expected a finite number of at least 1'],
    [Number.NaN, 'rope: factor is nan, expected a finite number of at least 1'],
  ])('factor %d', (factor, message) => {
    for (const scaling of [
      { type: 'linear', factor } as const,
      { ...llama3, factor },
      { ...yarn, factor },
    ]) {
      expectError(() => rope(x, positions, { scaling }), 'BL_OUT_OF_RANGE', message);
    }
  });

  it.each([
    [{ ...llama3, originalContext: 0 }, 'original_context is 0, expected a finite number above 0'],
    [{ ...yarn, originalContext: -5 }, 'original_context is -5, expected a finite number above 0'],
    [{ ...llama3, lowFreqFactor: 0 }, 'low_freq_factor is 0, expected a finite number above 0'],
    [
      { ...llama3, highFreqFactor: 1 },
      'high_freq_factor is 1, expected a finite number above 1 (= low_freq_factor)',
    ],
    [
      { ...yarn, attentionFactor: -1 },
      'attention_factor is -1, expected a finite number of at least 0',
    ],
    [{ ...yarn, betaSlow: -1 }, 'beta_slow is -1, expected a finite number of at least 0'],
    [
      { ...yarn, betaFast: 1, betaSlow: 2 },
      'beta_fast is 1, expected a finite number of at least 2 (= beta_slow)',
    ],
  ])('scaling %o', (scaling, message) => {
    expectError(() => rope(x, positions, { scaling }), 'BL_OUT_OF_RANGE', `rope: ${message}`);
  });

  it('theta', () => {
    for (const theta of [0, -1]) {
      expectError(
        () => rope(x, positions, { theta }),
        'BL_OUT_OF_RANGE',
        `rope: theta is ${theta}, expected a finite number above 0`,
      );
    }
    expectError(
      () => rope(x, positions, { theta: 1, scaling: yarn }),
      'BL_OUT_OF_RANGE',
      'rope: theta is 1, expected a number above 1 with yarn',
    );
  });

  // Values of indices cannot be looked at before a device runs.
  it.skipIf(onDevice)('positions', () => {
    expectError(
      () => rope(x, new Tensor('i32', [0, -3], [2])),
      'BL_OUT_OF_RANGE',
      'rope: positions[1] is -3, expected at least 0',
    );
    expectError(
      () => rope(x, new Tensor('i32', [0, 1, 2], [3])),
      'BL_INVALID_SHAPE',
      'rope: positions.shape[0] is 3, expected 2 (= x.shape[0])',
    );
    expectError(
      () => rope(x, new Tensor('f32', [0, 1], [2]) as never),
      'BL_INVALID_DTYPE',
      'rope: positions.dtype is f32, expected i32',
    );
    expectError(
      () => rope(x, new Tensor('i32', [0, 1], [1, 2])),
      'BL_INVALID_SHAPE',
      'rope: positions.rank is 2, expected 1',
    );
  });

  it('x and rotaryDim', () => {
    expectError(
      () => rope(Tensor.zeros('f32', [2, 8]), positions),
      'BL_INVALID_SHAPE',
      'rope: x.rank is 2, expected 3 to 6',
    );
    expectError(
      () => rope(Tensor.zeros('i32', [2, 3, 8]) as Tensor as Tensor<FloatDType>, positions),
      'BL_INVALID_DTYPE',
      'rope: x.dtype is i32, expected f32 or f16 or bf16',
    );
    expectError(
      () => rope(Tensor.zeros('f32', [2, 3, 7]), positions),
      'BL_INVALID_SHAPE',
      'rope: rotary_dim is 7, expected an even number',
    );
    expectError(
      () => rope(x, positions, { rotaryDim: 5 }),
      'BL_INVALID_SHAPE',
      'rope: rotary_dim is 5, expected an even number',
    );
    for (const rotaryDim of [10, -2]) {
      expectError(
        () => rope(x, positions, { rotaryDim }),
        'BL_OUT_OF_RANGE',
        `rope: rotary_dim is ${rotaryDim}, expected 0 to 8 (= head_dim)`,
      );
    }
  });

  it.skipIf(onDevice)('freqFactors', () => {
    expectError(
      () => rope(x, positions, { freqFactors: new Tensor('f32', [1, 1, 1], [3]) }),
      'BL_INVALID_SHAPE',
      'rope: freq_factors.shape[0] is 3, expected 4 (= rotary_dim / 2)',
    );
    expectError(
      () => rope(x, positions, { freqFactors: new Tensor('f32', [1, 0, 1, 1], [4]) }),
      'BL_OUT_OF_RANGE',
      'rope: freq_factors[1] is 0, expected a finite number above 0',
    );
  });

  it('output', () => {
    expectError(
      () => rope(x, positions, { out: Tensor.zeros('f32', [2, 3, 6]) }),
      'BL_INVALID_SHAPE',
      'rope: output.shape[2] is 6, expected 8 (= x.shape[2])',
    );
    const memory = new Float32Array(100);
    const here = new Tensor('f32', memory.subarray(0, 48), [2, 3, 8]);
    const shifted = new Tensor('f32', memory.subarray(1, 49), [2, 3, 8]);
    expectError(
      () => rope(here, positions, { out: shifted }),
      'BL_INVALID_ARGUMENT',
      'rope: output overlaps x in part, expected the same view or separate memory',
    );
    const both = new Float32Array(4);
    expectError(
      () =>
        rope(
          Tensor.zeros('f32', [2, 1, 2]),
          new Tensor('i32', new Int32Array(both.buffer, 0, 2), [2]),
          {
            out: new Tensor('f32', both, [2, 1, 2]),
          },
        ),
      'BL_INVALID_ARGUMENT',
      'rope: output overlaps positions, expected separate memory',
    );
    expectError(
      () =>
        rope(Tensor.zeros('f32', [2, 1, 2]), positions, {
          freqFactors: new Tensor('f32', both.fill(1).subarray(3), [1]),
          out: new Tensor('f32', both, [2, 1, 2]),
        }),
      'BL_INVALID_ARGUMENT',
      'rope: output overlaps freq_factors, expected separate memory',
    );
  });

  it('mode and scaling type', async () => {
    expectError(
      () => rope(x, positions, { mode: 'neox' as never }),
      'BL_INVALID_ARGUMENT',
      'rope: mode is "neox", expected interleaved or half',
    );
    expectError(
      () => rope(x, positions, { scaling: { type: 'dynamic', factor: 2 } as never }),
      'BL_INVALID_ARGUMENT',
      'rope: scaling.type is "dynamic", expected linear, llama3 or yarn',
    );
    await expect(ropeAsync(x, positions, { rotaryDim: 3 })).rejects.toMatchObject({
      code: 'BL_INVALID_SHAPE',
    });
  });

  it.skipIf(onDevice)('writes nothing when it fails', () => {
    const out = Tensor.zeros('f32', [2, 3, 8]);
    expect(() =>
      rope(Tensor.zeros('f32', [2, 3, 8]), new Tensor('i32', [5, -1], [2]), { out }),
    ).toThrow();
    expect(out.data.every((value) => value === 0)).toBe(true);
  });
});
