// node bench/policies.mjs [model.gguf] [FOLDER OF ANOTHER dist/esm] [--budget 64] [--block 256] [--policies a,b]: milliseconds of a prompt
// as long as the model's context, computed and compressed after each block, for each policy: median (minimum), and by how much the
// median is above that of the same prompt without a policy. One thread, and time of the processor, garbage collection included, so
// that other programs count little; rounds of all policies (and builds) take turns.
process.env.BITLOOM_THREADS = '1';
import { readFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { policiesOf } from './cache_table.mjs';
import { summary } from './statistics.mjs';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    budget: { type: 'string', default: '64' },
    block: { type: 'string', default: '256' },
    rounds: { type: 'string', default: '30' },
    policies: { type: 'string' },
  },
});
const [model = 'examples/tiny.gguf', other] = positionals;
const folders = [new URL('../dist/esm', import.meta.url).href];
if (other !== undefined) folders.push(pathToFileURL(other).href);
const text = readFileSync('examples/train-tiny/heldout.txt', 'utf8');
const budget = Number(values.budget);

const cases = [];
for (const [i, folder] of folders.entries()) {
  const nn = await import(`${folder}/nn/index.js`);
  const decoder = await nn.load(model, { activations: 'f32' });
  const ids = decoder.tokenizer.encode(text).slice(0, decoder.contextLength);
  const policies = policiesOf(nn, decoder, budget);
  const names = values.policies?.split(',') ?? Object.keys(policies);
  for (const name of ['whole cache', ...names]) {
    cases.push({ build: i, name, decoder, ids, make: policies[name], times: [] });
  }
}
console.log(`${cases[0].ids.length} tokens, ${budget} keys, blocks of ${values.block}`);
for (let round = -3; round < Number(values.rounds); round++) {
  for (const { decoder, ids, make, times } of cases) {
    // What a policy sees twice it is given anew: its state is one cache's.
    const policy = make && { block: Number(values.block), ...make() };
    const cache = decoder.createPagedCache(policy ? { policy } : {});
    const begin = process.cpuUsage();
    decoder.forward(ids, { cache });
    const { user, system } = process.cpuUsage(begin);
    if (round >= 0) times.push((user + system) / 1e3);
    cache.dispose();
  }
}
const median = (list) => summary(list).median;
const wholes = cases.filter(({ make }) => make === undefined);
for (const { name } of cases.filter(({ build }) => build === 0)) {
  const columns = folders.map((_, i) => {
    const { times } = cases.find((one) => one.build === i && one.name === name);
    const above = median(times) - median(wholes[i].times);
    return `${median(times).toFixed(1)} (${Math.min(...times).toFixed(1)}) | ${above.toFixed(1)}`;
  });
  console.log(`| ${name.padEnd(14)} | ${columns.join(' | ')} |`);
}
