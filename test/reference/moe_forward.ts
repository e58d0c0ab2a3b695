// A mixture of experts in float64, from the formula: every token, every route, one after the other.

/** One expert: matrices by rows, in numbers. */
export interface DenseExpert {
  gate?: number[][] | undefined;
  up: number[][];
  down: number[][];
  gateBias?: number[] | undefined;
  upBias?: number[] | undefined;
  downBias?: number[] | undefined;
  /** Of low rank: what gate and up take in place of x, and what the result of down is multiplied by. */
  reduce?: number[][] | undefined;
  expand?: number[][] | undefined;
}

const product = (w: number[][], x: ArrayLike<number>, bias?: number[]): number[] =>
  w.map((row, i) => row.reduce((sum, value, j) => sum + value * (x[j] as number), bias?.[i] ?? 0));

/** The error function, by its series or its continued fraction: 1e-15. */
function erf(x: number): number {
  const z = Math.abs(x);
  if (z > 6) return Math.sign(x);
  if (z < 2.5) {
    let term = z;
    let sum = z;
    for (let n = 1; n < 80; n++) {
      term *= (-z * z) / n;
      sum += term / (2 * n + 1);
    }
    return (Math.sign(x) * 2 * sum) / Math.sqrt(Math.PI);
  }
  let fraction = 0;
  for (let n = 80; n > 0; n--) fraction = n / 2 / (z + fraction);
  return Math.sign(x) * (1 - Math.exp(-z * z) / Math.sqrt(Math.PI) / (z + fraction));
}

const gelu = (z: number) => 0.5 * z * (1 + erf(z / Math.SQRT2));

export type Activation = 'silu' | 'gelu' | 'geluTanh' | 'relu' | 'relu2' | 'swigluOai';

const functions: Record<Exclude<Activation, 'swigluOai'>, (z: number) => number> = {
  silu: (z) => z / (1 + Math.exp(-z)),
  gelu,
  geluTanh: (z) => 0.5 * z * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (z + 0.044715 * z ** 3))),
  relu: (z) => Math.max(z, 0),
  relu2: (z) => Math.max(z, 0) ** 2,
};

function between(activation: Activation, up: number[], gate?: number[], limit = 7): number[] {
  if (activation === 'swigluOai') {
    return up.map((value, i) => {
      const g = Math.min((gate as number[])[i] as number, limit);
      return (g / (1 + Math.exp(-1.702 * g))) * (Math.min(Math.max(value, -limit), limit) + 1);
    });
  }
  const f = functions[activation];
  return gate === undefined ? up.map(f) : gate.map((z, i) => f(z) * (up[i] as number));
}

/** What `expert` makes of one token. */
export function expertOf(
  expert: DenseExpert,
  x: ArrayLike<number>,
  activation: Activation,
): number[] {
  const input = expert.reduce === undefined ? x : product(expert.reduce, x);
  const up = product(expert.up, input, expert.upBias);
  const gate = expert.gate && product(expert.gate, input, expert.gateBias);
  const h = between(activation, up, gate);
  if (expert.expand === undefined) return product(expert.down, h, expert.downBias);
  return product(expert.expand, product(expert.down, h), expert.downBias);
}

/** The layer over tokens: `routes[t]` lists [expert, weight]. */
export function mixture(
  experts: DenseExpert[],
  tokens: number[][],
  routes: [expert: number, weight: number][][],
  activation: Activation = 'silu',
): number[][] {
  return tokens.map((x, t) => {
    const sum = x.map(() => 0);
    for (const [e, weight] of routes[t] as [number, number][]) {
      expertOf(experts[e] as DenseExpert, x, activation).forEach((value, i) => {
        sum[i] = (sum[i] as number) + weight * value;
      });
    }
    return sum;
  });
}
