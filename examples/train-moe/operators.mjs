// What a transformer needs beside a mixture's layer, forward and backward, for training. Products run on the library's
// kernels; what reads each number once is plain JavaScript. A forward function gives its result and a function that
// turns the result's gradient into those of its inputs.
import { groupedMatmul, groupedOuter, Tensor } from 'bitloom';

export const zeros = (...shape) => Tensor.zeros('f32', shape);
/** f32: the same bits on any number of threads and at every level from avx2 on, so that training can be repeated. */
export const compute = 'f32';
const offsets = (...bounds) => new Tensor('i32', bounds, [bounds.length]);
const reshaped = (tensor, ...shape) => new Tensor('f32', tensor.data, shape);

/** y = x w^T. x [m, k], w [n, k]. */
export function linear(x, w) {
  const bounds = offsets(0, x.shape[0]);
  const weights = reshaped(w, 1, ...w.shape);
  return {
    y: groupedMatmul(x, weights, bounds, { compute }),
    back: (g) => ({
      x: groupedMatmul(g, weights, bounds, { compute, transposeB: true }),
      w: reshaped(groupedOuter(g, x, bounds, { compute }), ...w.shape),
    }),
  };
}

/** y = x / rms(x) * w, a row at a time. x [m, k], w [k]. */
export function rmsNorm(x, w, epsilon) {
  const [m, k] = x.shape;
  const y = zeros(m, k);
  const inverse = new Float64Array(m);
  const [xs, ws, ys] = [x.data, w.data, y.data];
  for (let r = 0; r < m; r++) {
    let sum = 0;
    for (let i = r * k; i < (r + 1) * k; i++) sum += xs[i] ** 2;
    inverse[r] = 1 / Math.sqrt(sum / k + epsilon);
    for (let i = 0; i < k; i++) ys[r * k + i] = xs[r * k + i] * inverse[r] * ws[i];
  }
  const back = (g) => {
    const [gx, gw, gs] = [zeros(m, k), zeros(k), g.data];
    const [gxs, gws] = [gx.data, gw.data];
    for (let r = 0; r < m; r++) {
      let met = 0; // sum of g * w * x
      for (let i = 0; i < k; i++) {
        const at = r * k + i;
        met += gs[at] * ws[i] * xs[at];
        gws[i] += gs[at] * xs[at] * inverse[r];
      }
      const pull = (met * inverse[r] ** 3) / k;
      for (let i = 0; i < k; i++) {
        const at = r * k + i;
        gxs[at] = gs[at] * ws[i] * inverse[r] - xs[at] * pull;
      }
    }
    return { x: gx, w: gw };
  };
  return { y, back };
}

/** [batch * length, heads * dim] to [batch * heads * length, dim], or back. */
function byHead(x, { batch, length, heads, dim }, back) {
  const y = back ? zeros(batch * length, heads * dim) : zeros(batch * heads * length, dim);
  const [source, target] = [x.data, y.data];
  for (let b = 0; b < batch; b++) {
    for (let h = 0; h < heads; h++) {
      for (let t = 0; t < length; t++) {
        const flat = ((b * length + t) * heads + h) * dim;
        const own = ((b * heads + h) * length + t) * dim;
        const [from, to] = back ? [own, flat] : [flat, own];
        for (let i = 0; i < dim; i++) target[to + i] = source[from + i];
      }
    }
  }
  return y;
}

/** Turns adjacent pairs of each head's numbers by position, in place; `sign` -1 turns back. */
export function rope(x, { length, dim, base }, sign = 1) {
  const half = dim / 2;
  const { data } = x;
  const rows = data.length / dim;
  for (let t = 0; t < length; t++) {
    for (let i = 0; i < half; i++) {
      const angle = t * base ** (-i / half);
      const [cos, sin] = [Math.cos(angle), sign * Math.sin(angle)];
      for (let row = t; row < rows; row += length) {
        const at = row * dim + 2 * i;
        const [a, b] = [data[at], data[at + 1]];
        data[at] = a * cos - b * sin;
        data[at + 1] = a * sin + b * cos;
      }
    }
  }
  return x;
}

/** Causal attention over sequences of one length. q, k, v [batch * length, heads * dim]. */
export function attention(q, k, v, shape) {
  const { batch, length, heads, dim } = shape;
  const count = batch * heads;
  const bounds = offsets(...Array.from({ length: count + 1 }, (_, i) => i * length));
  const [qs, ks] = [q, k].map((x) => rope(byHead(x, shape), shape));
  const vs = byHead(v, shape);
  const stack = (x) => reshaped(x, count, length, dim);
  const p = groupedMatmul(qs, stack(ks), bounds); // [count * length, length]
  const scale = 1 / Math.sqrt(dim);
  const ps = p.data;
  for (let row = 0; row < count * length; row++) {
    const [begin, end] = [row * length, row * length + (row % length) + 1];
    let largest = Number.NEGATIVE_INFINITY;
    for (let i = begin; i < end; i++) largest = Math.max(largest, ps[i]);
    let sum = 0;
    for (let i = begin; i < end; i++) {
      ps[i] = Math.exp((ps[i] - largest) * scale);
      sum += ps[i];
    }
    for (let i = begin; i < end; i++) ps[i] /= sum;
    ps.fill(0, end, begin + length);
  }
  const y = byHead(groupedMatmul(p, stack(vs), bounds, { transposeB: true }), shape, true);
  const back = (g) => {
    const gs = byHead(g, shape);
    const gv = reshaped(groupedOuter(p, gs, bounds), count * length, dim);
    const gp = groupedMatmul(gs, stack(vs), bounds);
    const gps = gp.data;
    for (let row = 0; row < count * length; row++) {
      const [begin, end] = [row * length, row * length + (row % length) + 1];
      let met = 0;
      for (let i = begin; i < end; i++) met += gps[i] * ps[i];
      for (let i = begin; i < end; i++) gps[i] = ps[i] * (gps[i] - met) * scale;
      gps.fill(0, end, begin + length);
    }
    const gq = groupedMatmul(gp, stack(ks), bounds, { transposeB: true });
    const gk = reshaped(groupedOuter(gp, qs, bounds), count * length, dim);
    return {
      q: byHead(rope(gq, shape, -1), shape, true),
      k: byHead(rope(gk, shape, -1), shape, true),
      v: byHead(gv, shape, true),
    };
  };
  return { y, back };
}

/** Mean cross entropy, in nats. logits [m, vocabulary], which become their gradient if `back` is called. */
export function crossEntropy(logits, targets) {
  const [m, n] = logits.shape;
  const all = logits.data;
  let loss = 0;
  for (let r = 0; r < m; r++) {
    const row = all.subarray(r * n, (r + 1) * n);
    let largest = Number.NEGATIVE_INFINITY;
    for (let i = 0; i < n; i++) largest = Math.max(largest, row[i]);
    const target = row[targets[r]] - largest;
    let sum = 0;
    for (let i = 0; i < n; i++) {
      row[i] = Math.exp(row[i] - largest);
      sum += row[i];
    }
    loss += (Math.log(sum) - target) / m;
    for (let i = 0; i < n; i++) row[i] /= sum * m;
    row[targets[r]] -= 1 / m;
  }
  return { loss, gradient: logits };
}

/** Sets a part of `x` to 0 and enlarges the others (Srivastava et al. 2014), in place. Without `uniform`: `x` as it is. */
export function dropout(x, rate, uniform) {
  if (uniform === undefined || rate === 0) return { y: x, back: (g) => g };
  const factors = Float32Array.from(x.data, () => (uniform() < rate ? 0 : 1 / (1 - rate)));
  const times = (from, to) => {
    const [values, products] = [from.data, to.data];
    for (let i = 0; i < factors.length; i++) products[i] = values[i] * factors[i];
    return to;
  };
  return { y: times(x, x), back: (g) => times(g, zeros(...g.shape)) };
}

/** Adds `b` to `a`. */
export function add(a, b) {
  const [to, from] = [a.data, b.data];
  for (let i = 0; i < to.length; i++) to[i] += from[i];
  return a;
}

/** AdamW (Loshchilov and Hutter 2019) over named tensors; matrices decay, vectors do not. */
export class Adam {
  #moments = new Map();
  #step = 0;

  constructor({ beta1 = 0.9, beta2 = 0.95, decay = 0.1, clip = 1 } = {}) {
    Object.assign(this, { beta1, beta2, decay, clip });
  }

  /** Moves parameters against their gradients; gives the norm of all gradients. */
  update(parameters, gradients, rate) {
    this.#step++;
    let norm = 0;
    for (const g of Object.values(gradients)) for (const x of g.data) norm += x * x;
    norm = Math.sqrt(norm);
    const shrink = Math.min(1, this.clip / norm);
    const { beta1, beta2 } = this;
    const first = 1 - beta1 ** this.#step;
    const second = 1 - beta2 ** this.#step;
    for (const [name, { data, shape }] of Object.entries(parameters)) {
      const g = gradients[name].data;
      if (!this.#moments.has(name)) {
        this.#moments.set(name, [new Float32Array(g.length), new Float32Array(g.length)]);
      }
      const [m, v] = this.#moments.get(name);
      const keep = 1 - (shape.length > 1 ? rate * this.decay : 0);
      for (let i = 0; i < g.length; i++) {
        const x = g[i] * shrink;
        m[i] = beta1 * m[i] + (1 - beta1) * x;
        v[i] = beta2 * v[i] + (1 - beta2) * x * x;
        data[i] = data[i] * keep - (rate * (m[i] / first)) / (Math.sqrt(v[i] / second) + 1e-8);
      }
    }
    return norm;
  }
}
