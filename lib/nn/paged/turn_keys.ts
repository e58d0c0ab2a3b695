import { rope } from '../../ops/rope/rope.js';
import { Tensor } from '../../tensor.js';
import type { RopeSetting } from './kv_options.js';

/**
 * Turns keys that are rotated already on by `deltas[token]` positions, in place. Rotations add up, whatever the
 * frequencies are; a magnitude that scaling gives (YaRN) is in the keys already.
 *
 * @param k [tokens, heads, headDim] f32, contiguous
 */
export function turnKeys(
  k: Tensor<'f32'>,
  deltas: Int32Array,
  { scaling, ...setting }: RopeSetting,
): void {
  const [tokens = 0, heads = 0, headDim = 0] = k.shape;
  const options = {
    ...setting,
    ...(scaling?.type === 'yarn'
      ? { scaling: { ...scaling, attentionFactor: 1 } }
      : scaling === undefined
        ? {}
        : { scaling }),
    out: k,
  };
  const flip = (): void => {
    for (let token = 0; token < tokens; token++) {
      if ((deltas[token] as number) < 0) {
        mirror(k.data, token * heads * headDim, heads, headDim, setting);
      }
    }
  };
  // rope() takes no negative positions: a turn back is a turn on between two mirrors.
  flip();
  rope(k, new Tensor('i32', deltas.map(Math.abs), [tokens]), options);
  flip();
}

/** Negates the second channel of each pair. */
function mirror(
  data: Float32Array,
  begin: number,
  heads: number,
  headDim: number,
  { mode = 'half', rotaryDim }: RopeSetting,
): void {
  const rotated = rotaryDim === undefined || rotaryDim === 0 ? headDim : rotaryDim;
  const [first, step] = mode === 'half' ? [rotated / 2, 1] : [1, 2];
  for (let head = 0; head < heads; head++) {
    const row = begin + head * headDim;
    for (let i = first; i < rotated; i += step) data[row + i] = -(data[row + i] as number);
  }
}
