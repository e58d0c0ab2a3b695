import { checkWeights } from '../../arguments.js';
import { argumentError } from '../../errors.js';
import type { QuantizedTensor } from '../../quantized_tensor.js';
import { type AsyncOptions, sequence } from '../../run.js';
import type { FloatDType, Tensor } from '../../tensor.js';
import type { SumOptions } from './accumulate.js';
import { matmul } from './matmul.js';

/** What a fine-tuned matrix has over its base: `scale * signs`. */
export interface SignDelta {
  /** [N, K], e.g. of format u1_row with scales of 1, or with the deltas' own. */
  signs: QuantizedTensor;
  /** Not 0. Default: 1. */
  scale?: number;
}

/**
 * Several models that share a base, each `base + scale_d * S_d` (1bit-Merging, Liu et al. 2025; BitDelta, Liu et al.
 * 2024): `y_d = activation(base x + scale_d * S_d x + bias) + residual`. The base's product is made once for all.
 *
 * @param x [..., M, K], f32, f16 or bf16
 * @param base [N, K] in any format
 * @param options of every result; not `out` and what belongs to it
 * @returns a new f32 tensor [..., M, N] for each delta
 * @throws `BL_INVALID_SHAPE` if a delta has not the shape of base; else as `matmul`
 *
 * @example
 * ```ts
 * const base = quantize(new Tensor('f32', [4, 2], [1, 2]), 'u8_row');
 * const signs = quantize(new Tensor('f32', [1, -1], [1, 2]), 'u1_row');
 * const [y] = signDelta(new Tensor('f32', [1, 1], [1, 2]), base, [{ signs, scale: 0.5 }]); // about [6]
 * ```
 */
export function signDelta(
  x: Tensor<FloatDType>,
  base: QuantizedTensor,
  deltas: readonly SignDelta[],
  options: Omit<SumOptions, 'out' | 'cScales' | 'cScale' | 'addend'> = {},
): Tensor<'f32'>[] {
  checkWeights('signDelta', 'base', base);
  deltas.forEach(({ signs }, i) => {
    checkWeights('signDelta', `deltas[${i}].signs`, signs);
    if (signs.rows !== base.rows || signs.cols !== base.cols) {
      throw argumentError(
        'BL_INVALID_SHAPE',
        `signDelta: deltas[${i}].signs has shape [${signs.shape}], expected [${base.shape}] (= base.shape)`,
      );
    }
  });
  if (deltas.length === 0) return [];
  const { bias, activation, residual, lowRank, adapters, outliers, ...same } = options;
  const addend = matmul(x, base, same);
  return deltas.map(({ signs, scale }) =>
    matmul(x, signs, { ...options, addend, ...(scale === undefined ? {} : { scale }) }),
  );
}

/** {@link signDelta} on a worker thread. */
export function signDeltaAsync(
  x: Tensor<FloatDType>,
  base: QuantizedTensor,
  deltas: readonly SignDelta[],
  options: Omit<SumOptions, 'out' | 'cScales' | 'cScale' | 'addend'> & AsyncOptions = {},
): Promise<Tensor<'f32'>[]> {
  const { signal, ...rest } = options;
  return sequence(() => signDelta(x, base, deltas, rest), signal === undefined ? {} : { signal });
}
