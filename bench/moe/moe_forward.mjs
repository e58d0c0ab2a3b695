// A mixture's layer: Mixtral's shape, and many narrow experts. Cold: each variant has routes of its own, which walk
// through more experts than caches hold.
import { gaussianTensor, uniform, weightBytes } from '../data.mjs';
import { bitloom } from '../native.mjs';
import { relativeError } from '../statistics.mjs';

const shapes = {
  mixtral: { count: 8, topK: 2, hidden: 4096, width: 14336 },
  fine: { count: 128, topK: 8, hidden: 2048, width: 768 },
  tiny: { count: 4, topK: 2, hidden: 64, width: 96 },
};

export function* cases({ tiny, quick }) {
  if (tiny) {
    yield mixtureCase({ name: 'tiny', tokens: 5, format: 'q4_0' });
    yield mixtureCase({ name: 'tiny', tokens: 5, format: 'q4_0', rank: 32 });
    return;
  }
  for (const name of ['fine', 'mixtral']) {
    for (const format of quick ? ['q4_0'] : ['q4_0', 'u4_g128', 'q8_0', 'u2_g128', 'q4_k']) {
      for (const tokens of quick ? [1, 16, 256] : [1, 16, 256, 2048]) {
        if (format !== 'q4_0' && tokens > 256) continue;
        yield mixtureCase({ name, tokens, format });
      }
    }
    // A third of the weights of the fine-grained layer.
    for (const tokens of name === 'fine' ? [1, 16, 256] : []) {
      yield mixtureCase({ name, tokens, format: 'q4_0', rank: 256 });
    }
    yield mixtureCase({ name, tokens: 256, format: 'q4_0', routing: 'even' });
    yield mixtureCase({ name, tokens: 256, format: 'q4_0', routing: 'one' });
  }
}

/** Experts of a token: drawn, in turn, or always the first ones. */
function indicesOf(tokens, { count, topK }, routing, next) {
  const indices = new Int32Array(tokens * topK);
  for (let t = 0; t < tokens; t++) {
    const order = Array.from({ length: count }, (_, e) => e);
    for (let k = 0; k < topK; k++) {
      const at = k + Math.floor(next() * (count - k));
      [order[k], order[at]] = [order[at], order[k]];
      const own = { random: order[k], even: (t * topK + k) % count, one: k };
      indices[t * topK + k] = own[routing];
    }
  }
  return indices;
}

/** `rank`: of experts that are decomposed at both ends; 0: whole ones. */
function mixtureCase({ name, tokens, format, routing = 'random', rank = 0 }) {
  const shape = shapes[name];
  const { count, topK, hidden, width } = shape;
  const next = uniform(tokens + count);
  const variants = tokens === 1 ? Math.floor(count / topK) : 1;
  const routes = Array.from({ length: variants }, (_, v) => {
    const own = indicesOf(tokens, shape, routing, next);
    // One token: each variant has other experts.
    return variants > 1 ? own.map((_, k) => v * topK + k) : own;
  });
  const used = new Set(routes[0]).size;
  const sizes = shapesOf({ hidden, width, rank });
  const expert = sizes.reduce(
    (sum, [rows, cols]) => sum + bitloom.weightsBytes(format, rows, cols, 'lanes16'),
    0,
  );
  const weights = sizes.reduce((sum, [rows, cols]) => sum + rows * cols, 0);
  const whole = `${count} experts top ${topK} ${hidden}x${width} i8`;
  const label = rank === 0 ? whole : `${whole} rank ${rank}`;
  return {
    family: 'moe',
    op: 'moe_forward',
    case: routing === 'random' ? label : `${label} ${routing}`,
    format,
    m: tokens,
    n: width,
    k: hidden,
    cold: true,
    type: 'i8',
    // Each expert that is used read once, tokens read and written once.
    bytes: used * expert + 8 * tokens * hidden,
    operations: 2 * tokens * topK * weights,
    prepare: () => prepare({ ...shape, tokens, format, routes, rank }),
  };
}

/** Of gate, up and down, and of reduce and expand. */
const shapesOf = ({ hidden, width, rank }) =>
  rank === 0
    ? [
        [width, hidden],
        [width, hidden],
        [hidden, width],
      ]
    : [
        [width, rank],
        [width, rank],
        [rank, width],
        [rank, hidden],
        [hidden, rank],
      ];

function prepare({ count, topK, hidden, width, tokens, format, routes, rank }) {
  const matrix = (rows, cols, seed) => {
    const bytes = weightBytes(format, rows, cols, seed);
    return bitloom.packWeights(new bitloom.QuantizedTensor(format, bytes, [rows, cols]));
  };
  const list = Array.from({ length: count }, (_, e) => {
    const [gate, up, down, reduce, expand] = shapesOf({ hidden, width, rank }).map(
      ([rows, cols], i) => matrix(rows, cols, 5 * e + i),
    );
    return { gate, up, down, reduce, expand };
  });
  const experts = new bitloom.MoEExperts(list);
  const x = gaussianTensor([tokens, hidden]);
  const out = bitloom.Tensor.zeros('f32', [tokens, hidden]);
  const weights = bitloom.Tensor.zeros('f32', [tokens, topK]);
  weights.data.fill(1 / topK);
  const indices = routes.map((own) => new bitloom.Tensor('i32', own, [tokens, topK]));
  const call = (run, variant) =>
    bitloom.moeForward(x, { indices: indices[variant], weights }, experts, {
      ...run,
      compute: 'i8',
      out,
    });
  return {
    variants: routes.length,
    body: call,
    /** Of the last token, against sums in float64 of the decoded weights. */
    error(variant = 0) {
      call({}, variant);
      const expected = new Float64Array(hidden);
      const row = x.data.subarray((tokens - 1) * hidden);
      for (const e of routes[variant].subarray((tokens - 1) * topK)) {
        const { gate, up, down, reduce, expand } = list[e];
        const input = reduce === undefined ? row : product(reduce, row);
        const between = product(gate, input).map((z) => z / (1 + Math.exp(-z)));
        product(up, input).forEach((value, i) => {
          between[i] *= value;
        });
        const narrow = product(down, between);
        (expand === undefined ? narrow : product(expand, narrow)).forEach((value, i) => {
          expected[i] += value / topK;
        });
      }
      return relativeError(out.data.slice((tokens - 1) * hidden), expected);
    },
  };
}

function product(weights, x) {
  const { rows, cols } = weights;
  const decoded = bitloom.dequantize(weights).data;
  const sums = new Float64Array(rows);
  for (let n = 0; n < rows; n++) {
    let sum = 0;
    for (let k = 0; k < cols; k++) sum += decoded[n * cols + k] * x[k];
    sums[n] = sum;
  }
  return sums;
}
