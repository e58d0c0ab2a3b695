// What the elementwise cases share: the middle of a decoder's MLP, one token and a prompt.
import { activationCase } from '../activations.mjs';
import { gaussianTensor } from '../data.mjs';

/**
 * @param formula float64 value of one output from its one or two inputs
 * @param call (inputs, options) runs the operator
 */
export function* elementwiseCases({ tiny }, op, inputCount, operations, formula, call) {
  const d = tiny ? 64 : 11008;
  for (const m of tiny ? [1] : [1, 256]) {
    yield activationCase(
      { family: 'elementwise', op, case: `${d}`, m, n: d, k: 0 },
      { bytes: 4 * m * d * (inputCount + 1), operations: operations * m * d },
      () => {
        const inputs = Array.from({ length: inputCount }, (_, i) => gaussianTensor([m, d], 1 + i));
        return {
          shape: [m, d],
          call: (run, out) => call(inputs, { ...run, out }),
          reference: () =>
            Float64Array.from(inputs[0].data, (_, i) =>
              formula(...inputs.map((input) => input.data[i])),
            ),
        };
      },
    );
  }
}
