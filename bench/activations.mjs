// A case of an operator on f32 activations: its timing and its float64 reference side by side.
import { bitloom } from './native.mjs';
import { relativeError } from './statistics.mjs';

/**
 * @param names { family, op, case, m, n, k }
 * @param work { bytes, operations }
 * @param make () => { shape, call(run, out), reference() }: `shape` of the f32 output, call runs the
 *   operator into `out`, reference gives all or the first of the outputs in float64
 */
export function activationCase(names, work, make) {
  return {
    ...names,
    format: 'f32',
    cold: false,
    type: 'f32',
    ...work,
    prepare() {
      const { shape, call, reference } = make();
      const out = bitloom.Tensor.zeros('f32', shape);
      let expected;
      return {
        variants: 1,
        body: (run) => call(run, out),
        error() {
          expected ??= reference();
          return relativeError(out.data, expected);
        },
      };
    },
  };
}
