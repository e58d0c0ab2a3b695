// Rotary position embedding in float64, written from the formulas.
import type { RopeScaling } from '../../lib/index.js';

export interface RopeReference {
  mode: 'interleaved' | 'half';
  rotaryDim: number;
  theta: number;
  scaling?: RopeScaling | undefined;
  freqFactors?: readonly number[];
}

/** Radians per position of each pair, and the magnitude of cos and sin. */
export function frequencies(options: RopeReference): { turns: number[]; magnitude: number } {
  const { rotaryDim, theta, scaling, freqFactors } = options;
  let turns = Array.from({ length: rotaryDim / 2 }, (_, j) => 1 / theta ** ((2 * j) / rotaryDim));
  let magnitude = 1;
  if (scaling?.type === 'linear') turns = turns.map((f) => f / scaling.factor);
  if (scaling?.type === 'llama3') {
    const { factor, originalContext, lowFreqFactor = 1, highFreqFactor = 4 } = scaling;
    turns = turns.map((f) => {
      const turnsInContext = (originalContext * f) / (2 * Math.PI);
      if (turnsInContext > highFreqFactor) return f;
      if (turnsInContext < lowFreqFactor) return f / factor;
      const kept = (turnsInContext - lowFreqFactor) / (highFreqFactor - lowFreqFactor);
      return f * (kept + (1 - kept) / factor);
    });
  }
  if (scaling?.type === 'yarn') {
    const { factor, originalContext, betaFast = 32, betaSlow = 1 } = scaling;
    const pairAt = (rotations: number): number =>
      (rotaryDim * Math.log(originalContext / (rotations * 2 * Math.PI))) / (2 * Math.log(theta));
    const low = Math.max(Math.floor(pairAt(betaFast)), 0);
    const high = Math.min(Math.ceil(pairAt(betaSlow)), rotaryDim - 1);
    const width = Math.max(high - low, 0.001);
    turns = turns.map((f, j) => {
      const interpolated = Math.min(Math.max((j - low) / width, 0), 1);
      return f * (1 - interpolated) + (f / factor) * interpolated;
    });
    magnitude = scaling.attentionFactor ?? 0.1 * Math.log(factor) + 1;
  }
  if (freqFactors !== undefined) turns = turns.map((f, j) => f / (freqFactors[j] as number));
  return { turns, magnitude };
}

/** x [batches, tokens, heads, headDim] in row-major order. */
export function ropeReference(
  x: ArrayLike<number>,
  shape: readonly [number, number, number, number],
  positions: readonly number[],
  options: RopeReference,
): number[] {
  const [batches, tokens, heads, headDim] = shape;
  const { turns, magnitude } = frequencies(options);
  const pairs = options.rotaryDim / 2;
  const y = Array.from(x);
  for (let row = 0; row < batches * tokens * heads; row++) {
    const position = positions[Math.floor(row / heads) % tokens] as number;
    for (let j = 0; j < pairs; j++) {
      const first = row * headDim + (options.mode === 'half' ? j : 2 * j);
      const second = first + (options.mode === 'half' ? pairs : 1);
      const angle = position * (turns[j] as number);
      const cos = magnitude * Math.cos(angle);
      const sin = magnitude * Math.sin(angle);
      const [a, b] = [x[first] as number, x[second] as number];
      y[first] = a * cos - b * sin;
      y[second] = a * sin + b * cos;
    }
  }
  return y;
}
