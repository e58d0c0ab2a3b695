// What Decoder.forward is given, checked before anything is computed.
import { described } from '../arguments.js';
import { argumentError } from '../errors.js';
import { Tensor } from '../tensor.js';

/** Token ids; throws `BL_INVALID_ARGUMENT` for none, `BL_OUT_OF_RANGE` for one outside of the vocabulary. */
export function tokenIds(tokens: ArrayLike<number>, vocabSize: number): number[] {
  const length = (tokens as ArrayLike<number> | null | undefined)?.length;
  if (typeof tokens !== 'object' || !(Number.isInteger(length) && (length as number) < 2 ** 32)) {
    throw argumentError(
      'BL_INVALID_ARGUMENT',
      `Decoder: tokens is ${described(tokens)}, expected a list of token ids`,
    );
  }
  const ids = Array.from(tokens);
  if (ids.length === 0) {
    throw argumentError('BL_INVALID_ARGUMENT', 'Decoder: tokens is empty, expected at least one');
  }
  const bad = ids.findIndex((id) => !Number.isInteger(id) || id < 0 || id >= vocabSize);
  if (bad < 0) return ids;
  throw argumentError(
    'BL_OUT_OF_RANGE',
    `Decoder: tokens[${bad}] is ${described(ids[bad])}, expected 0 to ${vocabSize - 1}`,
  );
}

/** Where logits go: `out`, [vocabulary] for `'last'` or [tokens, vocabulary] for `'all'`, or a new tensor. */
export function logitsTensor(
  which: string,
  [count, vocabSize]: readonly [number, number],
  out: Tensor<'f32'> | undefined,
): Tensor<'f32'> {
  if (which !== 'last' && which !== 'all') {
    throw argumentError(
      'BL_INVALID_ARGUMENT',
      `Decoder: logits is ${JSON.stringify(which)}, expected last or all`,
    );
  }
  const shape = which === 'last' ? [vocabSize] : [count, vocabSize];
  if (out === undefined) return Tensor.zeros('f32', shape);
  if (out.dtype !== 'f32' || out.shape.join() !== shape.join() || !out.contiguous) {
    throw argumentError(
      'BL_INVALID_SHAPE',
      `Decoder: out is ${out.dtype} [${out.shape}], expected contiguous f32 [${shape}]`,
    );
  }
  return out;
}
