// The model: parameters by the names that GGUF has for them, loss and gradients.
import { Tensor } from 'bitloom';
import { moeLayerBackward, moeLayerForward } from 'bitloom/nn';
import {
  add,
  attention,
  compute,
  crossEntropy,
  dropout,
  linear,
  rmsNorm,
  zeros,
} from './operators.mjs';

export const config = {
  vocabulary: 2048,
  hidden: 128,
  layers: 4,
  heads: 4,
  dim: 32,
  experts: 8,
  topK: 2,
  ffn: 96,
  base: 10000,
  epsilon: 1e-5,
  balanceWeight: 0.01,
  zWeight: 0.001,
  dropout: 0.1,
};

/** Normal numbers from a counter (SplitMix64's finalizer on 32 bits; Box and Muller 1958). */
export function randomSource(seed) {
  let state = seed >>> 0;
  const uniform = () => {
    state = (state + 0x9e3779b9) >>> 0;
    let z = state;
    z = Math.imul(z ^ (z >>> 16), 0x85ebca6b);
    z = Math.imul(z ^ (z >>> 13), 0xc2b2ae35);
    return ((z ^ (z >>> 16)) >>> 0) / 2 ** 32;
  };
  const normal = () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
  return { uniform, normal };
}

export function makeParameters(seed, own = config) {
  const { vocabulary, hidden, layers, heads, dim, experts, ffn } = own;
  const { normal } = randomSource(seed);
  const draw = (scale, ...shape) => {
    const count = shape.reduce((a, b) => a * b, 1);
    return new Tensor(
      'f32',
      Float32Array.from({ length: count }, () => scale * normal()),
      shape,
    );
  };
  const ones = () => new Tensor('f32', new Float32Array(hidden).fill(1), [hidden]);
  const out = 0.02 * Math.sqrt(6 / layers); // what is added to the residual stream
  const parameters = { 'token_embd.weight': draw(0.05, vocabulary, hidden) };
  for (let i = 0; i < layers; i++) {
    Object.assign(parameters, {
      [`blk.${i}.attn_norm.weight`]: ones(),
      [`blk.${i}.attn_q.weight`]: draw(0.06, heads * dim, hidden),
      [`blk.${i}.attn_k.weight`]: draw(0.06, heads * dim, hidden),
      [`blk.${i}.attn_v.weight`]: draw(0.06, heads * dim, hidden),
      [`blk.${i}.attn_output.weight`]: draw(out, hidden, heads * dim),
      [`blk.${i}.ffn_norm.weight`]: ones(),
      [`blk.${i}.ffn_gate_inp.weight`]: draw(0.02, experts, hidden),
      [`blk.${i}.ffn_gate_exps.weight`]: draw(0.06, experts, ffn, hidden),
      [`blk.${i}.ffn_up_exps.weight`]: draw(0.06, experts, ffn, hidden),
      [`blk.${i}.ffn_down_exps.weight`]: draw(out, experts, hidden, ffn),
    });
  }
  parameters['output_norm.weight'] = ones();
  return parameters;
}

function embed(table, ids) {
  const hidden = table.shape[1];
  const x = zeros(ids.length, hidden);
  const [to, from] = [x.data, table.data];
  ids.forEach((id, i) => {
    to.set(from.subarray(id * hidden, (id + 1) * hidden), i * hidden);
  });
  return x;
}

/** One block; gives its result and how gradients go back through it. */
function block(x, p, i, shape, own, uniform) {
  const name = (part) => `blk.${i}.${part}.weight`;
  const norm = rmsNorm(x, p[name('attn_norm')], own.epsilon);
  const [q, k, v] = ['attn_q', 'attn_k', 'attn_v'].map((part) => linear(norm.y, p[name(part)]));
  const mixed = attention(q.y, k.y, v.y, shape);
  const output = linear(mixed.y, p[name('attn_output')]);
  const attended = dropout(output.y, own.dropout, uniform);
  const middle = add(attended.y, x);
  const ffnNorm = rmsNorm(middle, p[name('ffn_norm')], own.epsilon);
  const { topK, balanceWeight, zWeight } = own;
  const weights = {
    router: p[name('ffn_gate_inp')],
    gate: p[name('ffn_gate_exps')],
    up: p[name('ffn_up_exps')],
    down: p[name('ffn_down_exps')],
  };
  const options = { topK, scoring: 'softmaxChosen', compute, balanceWeight, zWeight };
  const { out, state } = moeLayerForward(ffnNorm.y, weights, options);
  const mixture = dropout(out, own.dropout, uniform);
  const back = (g, gradients) => {
    const moe = moeLayerBackward(state, mixture.back(g));
    const toMiddle = ffnNorm.back(moe.x);
    const middleGradient = add(toMiddle.x, g);
    const toMixed = output.back(attended.back(middleGradient));
    const heads = mixed.back(toMixed.x);
    const parts = [q.back(heads.q), k.back(heads.k), v.back(heads.v)];
    const toNorm = norm.back(parts.map((part) => part.x).reduce(add));
    Object.assign(gradients, {
      [name('attn_norm')]: toNorm.w,
      [name('attn_q')]: parts[0].w,
      [name('attn_k')]: parts[1].w,
      [name('attn_v')]: parts[2].w,
      [name('attn_output')]: toMixed.w,
      [name('ffn_norm')]: toMiddle.w,
      [name('ffn_gate_inp')]: moe.router,
      [name('ffn_gate_exps')]: moe.gate,
      [name('ffn_up_exps')]: moe.up,
      [name('ffn_down_exps')]: moe.down,
    });
    return { x: add(toNorm.x, middleGradient), balance: moe.balanceLoss, z: moe.zLoss };
  };
  return { y: add(mixture.y, middle), back };
}

/**
 * Loss of `batch` sequences of `length` tokens, each to predict the next one.
 *
 * @param ids [batch * length]
 * @param targets [batch * length]
 * @param uniform gives random numbers in [0, 1) for dropout; without it there is none
 * @returns loss (cross entropy, nats a token) and back(), which gives gradients by name and the router's losses
 */
export function loss(p, ids, targets, batch, own = config, uniform = undefined) {
  const { layers, heads, dim, base } = own;
  const shape = { batch, length: ids.length / batch, heads, dim, base };
  const table = p['token_embd.weight'];
  const embedded = dropout(embed(table, ids), own.dropout, uniform);
  let x = embedded.y;
  const blocks = [];
  for (let i = 0; i < layers; i++) {
    const one = block(x, p, i, shape, own, uniform);
    blocks.push(one);
    x = one.y;
  }
  const norm = rmsNorm(x, p['output_norm.weight'], own.epsilon);
  const head = linear(norm.y, table);
  const { loss: value, gradient } = crossEntropy(head.y, targets);
  const back = () => {
    const gradients = {};
    const toNorm = head.back(gradient);
    const last = norm.back(toNorm.x);
    gradients['output_norm.weight'] = last.w;
    let g = last.x;
    let [balance, z] = [0, 0];
    for (const one of blocks.reverse()) {
      const result = one.back(g, gradients);
      g = result.x;
      balance += result.balance / layers;
      z += result.z / layers;
    }
    const hidden = table.shape[1];
    const [to, from] = [toNorm.w.data, embedded.back(g).data];
    ids.forEach((id, i) => {
      for (let j = 0; j < hidden; j++) to[id * hidden + j] += from[i * hidden + j];
    });
    gradients['token_embd.weight'] = toNorm.w;
    return { gradients, balance, z };
  };
  return { loss: value, back };
}
