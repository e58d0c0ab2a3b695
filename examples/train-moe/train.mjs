// Trains the model on the book and writes it:
//
//   node examples/train-moe/train.mjs [--steps 700] [--seed 1] [--out examples/tiny-moe.gguf]
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { exportModel } from './export.mjs';
import { config, loss, makeParameters, randomSource } from './model.mjs';
import { Adam } from './operators.mjs';
import { readBook } from './text.mjs';
import { trainTokenizer } from './tokenizer.mjs';

const { values } = parseArgs({
  options: {
    steps: { type: 'string', default: '700' },
    seed: { type: 'string', default: '1' },
    batch: { type: 'string', default: '8' },
    length: { type: 'string', default: '128' },
    rate: { type: 'string', default: '3e-3' },
    out: { type: 'string', default: fileURLToPath(new URL('../tiny-moe.gguf', import.meta.url)) },
  },
});
const [steps, seed, batch, length, peak] = ['steps', 'seed', 'batch', 'length', 'rate'].map(
  (name) => {
    const value = Number(values[name]);
    const fits = name === 'rate' ? value > 0 : Number.isInteger(value) && value >= 0;
    if (!fits) throw new Error(`--${name} is ${values[name]}, which it can not be`);
    return value;
  },
);

const book = readBook();
const { metadata, tokenizer } = trainTokenizer(book.text, config.vocabulary);
const text = Int32Array.from(tokenizer.encode(book.text, { addBos: true }));
const heldOut = windows(tokenizer.encode(book.heldOut, { addBos: true }));
if (text.length <= length + 1) {
  throw new Error(`${text.length} tokens of text: too few for --length ${length}`);
}
console.log(`${text.length} tokens of text, ${heldOut.length} held-out windows`);

/** Pieces of length + 1 tokens, each beginning with the last of the one before. */
function windows(ids) {
  const count = Math.floor((ids.length - 1) / length);
  return Array.from({ length: count }, (_, i) => ids.slice(i * length, (i + 1) * length + 1));
}

const { uniform } = randomSource(seed + 7);
const parameters = makeParameters(seed);
const count = Object.values(parameters).reduce((sum, { data }) => sum + data.length, 0);
console.log(`${count} parameters`);
const adam = new Adam();
const begun = performance.now();
const seconds = () => (performance.now() - begun) / 1000;

/** Warm-up of 100 steps, then a cosine to a hundredth. */
function rateAt(step) {
  if (step < 100) return (peak * (step + 1)) / 100;
  return peak * (0.01 + 0.99 * 0.5 * (1 + Math.cos((Math.PI * step) / steps)));
}

function heldOutLoss() {
  let sum = 0;
  for (const ids of heldOut) {
    sum += loss(parameters, ids.slice(0, -1), ids.slice(1), 1).loss / heldOut.length;
  }
  return sum;
}

let mean = 0; // of the loss over about a hundred steps
for (let step = 0; step < steps; step++) {
  const ids = [];
  const targets = [];
  for (let b = 0; b < batch; b++) {
    const from = Math.floor(uniform() * (text.length - length - 1));
    ids.push(...text.subarray(from, from + length));
    targets.push(...text.subarray(from + 1, from + length + 1));
  }
  const pass = loss(parameters, ids, targets, batch, config, uniform);
  const { gradients, balance } = pass.back();
  adam.update(parameters, gradients, rateAt(step));
  mean += (pass.loss - mean) / Math.min(step + 1, 100);
  const save = (step + 1) % 100 === 0 || step + 1 === steps;
  if ((step + 1) % 50 !== 0 && !save) continue;
  const held = save ? `, held out ${heldOutLoss().toFixed(4)}` : '';
  console.log(
    `step ${step + 1}: loss ${mean.toFixed(4)}${held}, balance ${balance.toFixed(3)}, ${seconds().toFixed(0)} s`,
  );
  if (save) await exportModel(values.out, parameters, metadata, config);
}
console.log(values.out);
