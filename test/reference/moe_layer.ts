/**
 * A mixture's layer from its formula, in double, with the experts of each token given: what finite differences are
 * taken of.
 */
export interface LayerCase {
  tokens: number;
  hidden: number;
  ffn: number;
  experts: number;
  scoring: 'softmax' | 'softmaxChosen' | 'sigmoid';
  normalize: boolean;
  scale: number;
  activation: 'silu' | 'gelu' | 'relu2';
  balanceWeight: number;
  zWeight: number;
}

export interface LayerValues {
  x: number[];
  router: number[];
  gate?: number[];
  up: number[];
  down: number[];
}

const at = (values: readonly number[], i: number) => values[i] as number;
const dot = (a: readonly number[], i: number, b: readonly number[], j: number, n: number) => {
  let sum = 0;
  for (let k = 0; k < n; k++) sum += at(a, i + k) * at(b, j + k);
  return sum;
};

/** erf by its series (7.1.5 of Abramowitz and Stegun), far enough for |x| < 5. */
function erf(x: number): number {
  let term = x;
  let sum = x;
  for (let n = 1; n < 120; n++) {
    term *= (-x * x) / n;
    sum += term / (2 * n + 1);
  }
  return (2 / Math.sqrt(Math.PI)) * sum;
}

const activations = {
  silu: (x: number) => x / (1 + Math.exp(-x)),
  gelu: (x: number) => 0.5 * x * (1 + erf(x / Math.SQRT2)),
  relu2: (x: number) => Math.max(x, 0) ** 2,
};

/** The layer's result [tokens, hidden] and its losses. */
export function moeLayer(own: LayerCase, v: LayerValues, chosen: readonly number[][]) {
  const { tokens, hidden, ffn, experts, activation } = own;
  const share = new Array<number>(experts).fill(0);
  const routes = chosen.flat();
  for (const e of routes) share[e] = at(share, e) + 1 / routes.length;
  const out: number[] = [];
  let balance = 0;
  let z = 0;
  for (let t = 0; t < tokens; t++) {
    const logits = share.map((_, e) => dot(v.x, t * hidden, v.router, e * hidden, hidden));
    const largest = Math.max(...logits);
    const total = logits.reduce((sum, logit) => sum + Math.exp(logit - largest), 0);
    const p = logits.map((logit) => Math.exp(logit - largest) / total);
    p.forEach((x, e) => {
      balance += (experts * at(share, e) * x) / tokens;
    });
    z += (largest + Math.log(total)) ** 2 / tokens;
    const scores = own.scoring === 'sigmoid' ? logits.map((l) => 1 / (1 + Math.exp(-l))) : p;
    const picked = chosen[t] as number[];
    const sum = picked.reduce((s, e) => s + at(scores, e), 0);
    const divisor = own.normalize || own.scoring === 'softmaxChosen' ? sum : 1;
    const row = new Array<number>(hidden).fill(0);
    for (const e of picked) {
      const weight = (own.scale * at(scores, e)) / divisor;
      const h = Array.from({ length: ffn }, (_, f) => {
        const place = (e * ffn + f) * hidden;
        const up = dot(v.x, t * hidden, v.up, place, hidden);
        if (v.gate === undefined) return activations[activation](up);
        return activations[activation](dot(v.x, t * hidden, v.gate, place, hidden)) * up;
      });
      for (let i = 0; i < hidden; i++) {
        row[i] = at(row, i) + weight * dot(h, 0, v.down, (e * hidden + i) * ffn, ffn);
      }
    }
    out.push(...row);
  }
  return { out, balance, z };
}

/** The loss whose gradients are compared: results times `g`, and the router's losses. */
export function lossOf(own: LayerCase, v: LayerValues, chosen: readonly number[][], g: number[]) {
  const { out, balance, z } = moeLayer(own, v, chosen);
  return dot(out, 0, g, 0, g.length) + own.balanceWeight * balance + own.zWeight * z;
}

/** Central differences of the loss by each number of values[name]. */
export function differences(
  own: LayerCase,
  v: LayerValues,
  chosen: readonly number[][],
  g: number[],
  name: keyof LayerValues,
): number[] {
  const values = v[name] as number[];
  const step = 1e-5;
  return values.map((value, i) => {
    const moved = (x: number) =>
      lossOf(own, { ...v, [name]: values.map((y, j) => (i === j ? x : y)) }, chosen, g);
    return (moved(value + step) - moved(value - step)) / (2 * step);
  });
}
