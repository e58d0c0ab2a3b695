// Four parts of a decoding step's attention joined: 16 queries of 32 heads of 128 channels.
import { activationCase } from '../activations.mjs';
import { gaussianTensor } from '../data.mjs';
import { bitloom } from '../native.mjs';

export function* cases({ tiny }) {
  const [parts, rows, heads, dim] = tiny ? [2, 1, 2, 8] : [4, 16, 32, 128];
  yield activationCase(
    {
      family: 'attention',
      op: 'merge_states',
      case: `${parts} parts ${heads}x${dim}`,
      m: rows,
      n: heads,
      k: dim,
    },
    { bytes: 4 * (parts + 1) * rows * heads * dim, operations: 2 * parts * rows * heads * dim },
    () => {
      const outputs = gaussianTensor([parts, rows, heads, dim]);
      const lses = gaussianTensor([parts, rows, heads], 2);
      return {
        shape: [rows, heads, dim],
        call: (run, out) => bitloom.mergeStates(outputs, lses, { ...run, out }).output,
        reference: () => firstHead(outputs, lses),
      };
    },
  );
}

/** Output of the first row's first head. */
function firstHead(outputs, lses) {
  const [parts, rows, heads, dim] = outputs.shape;
  const weights = Array.from({ length: parts }, (_, i) => Math.exp(lses.data[i * rows * heads]));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  return Float64Array.from({ length: dim }, (_, c) =>
    weights.reduce((sum, w, i) => sum + (w / total) * outputs.data[i * rows * heads * dim + c], 0),
  );
}
