// What each weight format costs a model: bits a weight, perplexity on a held-out text, divergence from the f32 model.
//
//   node bench/perplexity.mjs [--json FILE] [--tokens N] [--model FILE --text FILE] [--formats a,b,c]
//
// Without a model: examples/tiny.gguf on examples/train-tiny/heldout.txt. Prints the table of lib/nn/README.md.
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { load } from 'bitloom/nn';

const path = (relative) => fileURLToPath(new URL(`../examples/${relative}`, import.meta.url));
const { values: options } = parseArgs({
  options: {
    json: { type: 'string' },
    tokens: { type: 'string', default: '4000' },
    model: { type: 'string', default: path('tiny.gguf') },
    text: { type: 'string', default: path('train-tiny/heldout.txt') },
    formats: { type: 'string' },
  },
});

const defaults = [
  'f16',
  'bf16',
  'q8_0',
  'u8_row',
  'q6_k',
  'u6_g64',
  'q5_1',
  'q5_0',
  'u5_g64',
  'q4_k',
  'q4_1',
  'q4_0',
  'iq4_nl',
  'nf4_g64',
  'fp4_g32',
  'u4z_g32',
  'u4_g32',
  'u4_g128',
  'u4_g128:mse',
  'i4_row',
  'q3_k',
  'u3_g64',
  'u3z_g32:mse',
  'q2_k',
  'u2z_g32:mse',
  'u2_g32:mse',
  't2_g64',
  't2_g64:mse',
  'u1_g32',
];
const cases = ['f32/i8', ...(options.formats?.split(',') ?? defaults)];

/** Log probabilities of every next token of a window. */
function logSoftmax(row) {
  const largest = row.reduce((a, b) => Math.max(a, b));
  const total = Math.log(row.reduce((sum, logit) => sum + Math.exp(logit - largest), 0)) + largest;
  return row.map((logit) => logit - total);
}

const reference = await load(options.model, { format: 'f32', activations: 'f32' });
const { tokenizer, config } = reference;
const ids = tokenizer
  .encode(readFileSync(options.text, 'utf8'), { addBos: false })
  .slice(0, Number(options.tokens));
const begin = tokenizer.addBos ? [tokenizer.bosId] : [];
const width = Math.min(reference.contextLength, 512) - begin.length;
const windows = [];
for (let at = 0; at < ids.length; at += width)
  windows.push([...begin, ...ids.slice(at, at + width)]);

async function logProbabilities(decoder, window) {
  const logits = await decoder.forwardAsync(window, { logits: 'all' });
  const rows = window.map((_, i) =>
    logSoftmax(logits.data.subarray(i * config.vocabSize, (i + 1) * config.vocabSize)),
  );
  logits.dispose();
  return rows;
}

const expected = [];
for (const window of windows) expected.push(await logProbabilities(reference, window));

async function measure(name, decoder, bits) {
  let loss = 0;
  let divergence = 0;
  let agree = 0;
  let count = 0;
  for (const [w, window] of windows.entries()) {
    const actual = decoder === reference ? expected[w] : await logProbabilities(decoder, window);
    for (let i = 0; i + 1 < window.length; i++) {
      const p = expected[w][i];
      const q = actual[i];
      loss -= q[window[i + 1]];
      let kl = 0;
      for (let v = 0; v < p.length; v++) kl += Math.exp(p[v]) * (p[v] - q[v]);
      divergence += kl;
      agree += Number(p.indexOf(Math.max(...p)) === q.indexOf(Math.max(...q)));
      count++;
    }
  }
  return {
    name,
    bits,
    perplexity: Math.exp(loss / count),
    kl: divergence / count,
    top1: agree / count,
    tokens: count,
  };
}

const matrixBits = (decoder) => {
  let bytes = 0;
  let weights = 0;
  for (const {
    attention: { options: a },
    mlp,
  } of decoder.parts.layers) {
    for (const { weight } of [a.query, a.key, a.value, a.output, mlp.gate, mlp.up, mlp.down]) {
      bytes += weight.bytes.byteLength;
      weights += weight.rows * weight.cols;
    }
  }
  return (bytes * 8) / weights;
};

const results = [await measure('f32', reference, 32)];
for (const each of cases) {
  const [format, method = 'minmax'] = each.split(':');
  const isBase = format === 'f32/i8';
  const decoder = await load(options.model, isBase ? { activations: 'i8' } : { format, method });
  const kept = !isBase && decoder.parts.layers[0].mlp.up.weight.format !== format;
  const name = isBase ? `as in the file, i8` : method === 'mse' ? `${format}, mse` : format;
  if (!kept) results.push(await measure(name, decoder, matrixBits(decoder)));
  decoder.dispose();
}
console.log('| weights | bits/weight | perplexity | KL from f32 (nats) | same first choice |');
console.log('|---|---:|---:|---:|---:|');
for (const { name, bits, perplexity, kl, top1 } of results) {
  console.log(
    `| ${name} | ${bits.toFixed(2)} | ${perplexity.toFixed(3)} | ${kl.toExponential(1)} | ${(top1 * 100).toFixed(1)} % |`,
  );
}
console.log(`\n${results[0].tokens} tokens`);
if (options.json) writeFileSync(options.json, JSON.stringify(results, null, 1));
