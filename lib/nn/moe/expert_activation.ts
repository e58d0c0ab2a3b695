// What stands between an expert's two layers, and its derivative: in double, a value at a time.
import { described } from '../../arguments.js';
import { argumentError } from '../../errors.js';
import { Tensor } from '../../tensor.js';

/** `silu`: x * sigmoid(x). `gelu`: by erf. `relu2`: max(x, 0)^2. */
export type ExpertActivation = 'silu' | 'gelu' | 'relu2';

/** An activation's value and slope at x. */
type Curve = (x: number, out: { value: number; slope: number }) => void;

const curves: Record<ExpertActivation, Curve> = {
  silu(x, out) {
    const s = 1 / (1 + Math.exp(-x));
    out.value = x * s;
    out.slope = s * (1 + x * (1 - s));
  },
  gelu(x, out) {
    const half = 0.5 * erfc(-x / Math.SQRT2);
    out.value = x * half;
    out.slope = half + (x * Math.exp(-0.5 * x * x)) / Math.sqrt(2 * Math.PI);
  },
  relu2(x, out) {
    const positive = x > 0 || Number.isNaN(x) ? x : 0;
    out.value = positive * positive;
    out.slope = 2 * positive;
  },
};

/** 1 - erf(x): the Chebyshev fit of Numerical Recipes (Press et al. 2007, 6.2.2), good to 1.2e-7 of the value. */
function erfc(x: number): number {
  const z = Math.abs(x);
  const t = 2 / (2 + z);
  const coefficients = [
    -1.26551223, 1.00002368, 0.37409196, 0.09678418, -0.18628806, 0.27886807, -1.13520398,
    1.48851587, -0.82215223, 0.17087277,
  ];
  let sum = 0;
  for (let i = coefficients.length - 1; i >= 0; i--) sum = sum * t + (coefficients[i] as number);
  const value = t * Math.exp(-z * z + sum);
  return x >= 0 ? value : 2 - value;
}

/** @throws `BL_INVALID_ARGUMENT` for what is none of them */
export function checkActivation(op: string, activation: ExpertActivation): void {
  if (Object.hasOwn(curves, activation)) return;
  throw argumentError(
    'BL_INVALID_ARGUMENT',
    `${op}: activation is ${described(activation)}, expected ${Object.keys(curves).join(', ')}`,
  );
}

/** `activation(gate) * up`; without a gate `activation(up)`. */
export function activate(
  activation: ExpertActivation,
  gate: Tensor<'f32'> | undefined,
  up: Tensor<'f32'>,
): Tensor<'f32'> {
  const curve = curves[activation];
  const out = Tensor.zeros('f32', up.shape);
  const [inner, factor, result] = [(gate ?? up).data, up.data, out.data];
  const point = { value: 0, slope: 0 };
  for (let i = 0; i < result.length; i++) {
    curve(inner[i] as number, point);
    result[i] = gate === undefined ? point.value : point.value * (factor[i] as number);
  }
  return out;
}

/** Gradients of what {@link activate} took, from that of its result. */
export function activateBackward(
  activation: ExpertActivation,
  gate: Tensor<'f32'> | undefined,
  up: Tensor<'f32'>,
  gradient: Tensor<'f32'>,
): { gate: Tensor<'f32'> | undefined; up: Tensor<'f32'> } {
  const curve = curves[activation];
  const upOut = Tensor.zeros('f32', up.shape);
  const gateOut = gate === undefined ? undefined : Tensor.zeros('f32', up.shape);
  const [inner, factor, from] = [(gate ?? up).data, up.data, gradient.data];
  const [upValues, gateValues] = [upOut.data, gateOut?.data];
  const point = { value: 0, slope: 0 };
  for (let i = 0; i < upValues.length; i++) {
    curve(inner[i] as number, point);
    const g = from[i] as number;
    upValues[i] = g * (gateValues === undefined ? point.slope : point.value);
    if (gateValues !== undefined) gateValues[i] = g * point.slope * (factor[i] as number);
  }
  return { gate: gateOut, up: upOut };
}
