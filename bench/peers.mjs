// npm run bench:peers: the same work through onnxruntime-node and node-llama-cpp, in turn with bitloom in
// one run. See bench/README.md.
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Command } from 'commander';
import { caseName } from './cases.mjs';
import { commit, machineFacts } from './machine.mjs';
import { root } from './native.mjs';
import { compareDecoders } from './peers/decoders.mjs';
import { compareProducts } from './peers/products.mjs';
import { findPeer, installCommand } from './peers/resolve.mjs';
import { writeReport } from './report.mjs';
import { Roofs } from './roofs.mjs';
import { problems } from './schema.mjs';
import { writeSynthetic } from './synthetic.mjs';

const machine = machineFacts();
const list = (value) => value.split(',');
const options = new Command()
  .name('npm run bench:peers --')
  .description(
    'Times bitloom beside onnxruntime-node (single products) and node-llama-cpp (whole models).',
  )
  .option('--filter <text>', 'only products whose name has every word of the text')
  .option('--only <part>', 'products or models')
  .option('--threads <counts>', 'thread counts, e.g. 1,2', list, [...new Set([1, machine.threads])])
  .option('--params <billions>', 'size of the synthetic model, in billions of weights', Number, 0.5)
  .option('--formats <formats>', 'its formats', list, ['q4_0', 'q8_0'])
  .option('--experts <count>', 'experts of each of its layers, two in use; 0: none', Number, 0)
  .option('--model <file>', 'a GGUF file to use instead of the synthetic model')
  .option('--prompt <tokens>', 'tokens of the prompt', Number, 128)
  .option('--tokens <tokens>', 'tokens to decode', Number, 32)
  .option('--json <file>', 'write the results as JSON')
  .option('--html <file>', 'write the results as a page')
  .option('--quick', 'fewer rounds')
  .option('--tiny', 'tiny shapes: for testing the bench itself')
  .parse()
  .opts();

const roofs = new Roofs(machine.isa, options);
const results = [];

for (const name of ['onnxruntime-node', 'onnx-proto', 'node-llama-cpp']) {
  if ((await findPeer(name)) === undefined) {
    console.error(
      `bench: ${name} is not installed, its part is left out. To install the peers: ${installCommand}\n` +
        '(or install them elsewhere and name that folder in BITLOOM_PEERS)',
    );
  }
}
const threads = options.threads.map(Number);
if (options.only !== 'models') await products();
if (options.only !== 'products') await models();
const report = {
  machine,
  date: new Date().toISOString(),
  commit: commit(),
  roofs: roofs.toJSON(),
  results,
};
for (const problem of results.length > 0 ? problems(report) : [])
  console.error(`schema: ${problem}`);
if (options.json) writeFileSync(options.json, `${JSON.stringify(report, null, 1)}\n`);
if (options.html) writeReport(options.html, report);

/** Adds a result and prints it. `work` is { family, op, case, format, m, n, k, cold, type, bytes, operations }. */
function add(work, { threads, algorithm, times, error, peer }) {
  const { isa } = machine;
  const level = work.cold ? 'memory' : roofs.level(work.bytes, threads);
  const memory = (work.bytes / roofs.read(level, threads)) * 1e6;
  const compute = (work.operations / roofs.multiply(work.type, isa, threads)) * 1e6;
  const floor = Math.max(memory, compute);
  const { family, op, case: name, format, m, n, k, cold, bytes, operations } = work;
  results.push({
    family,
    op,
    case: name,
    format,
    m,
    n,
    k,
    isa,
    algorithm,
    threads,
    cold,
    ...times,
    bytes,
    operations,
    floor_us: floor,
    floor_ratio: floor / times.median_us,
    bound: memory >= compute ? 'memory' : 'compute',
    error,
    peer,
  });
  const micros = (value) => value.toFixed(value < 100 ? 2 : 0).padStart(11);
  console.log(
    `${(caseName(work) + (cold ? ' cold' : '')).padEnd(44)} ${String(threads).padStart(3)} ${micros(times.median_us)} ` +
      `${micros(peer.median_us)}  ${peer.ratio.toFixed(2).padStart(6)}  ${peer.name}`,
  );
}

function printHead() {
  console.log(`${'case'.padEnd(44)} thr  bitloom us     peer us   ratio  peer`);
}

async function products() {
  printHead();
  const words = (options.filter ?? '').split(/\s+/).filter(Boolean);
  const filter = (one) => words.every((word) => caseName(one).includes(word));
  const budget =
    options.quick || options.tiny ? { seconds: 0.1, rounds: 2 } : { seconds: 0.6, rounds: 4 };
  for await (const pair of compareProducts({ threads, budget, filter, tiny: options.tiny }))
    add(pair.one, pair);
}

/** Files to compare: [name, path, format]. */
async function modelFiles() {
  if (options.model) return [['model', options.model, 'gguf']];
  const folder = join(root, 'bench/out');
  mkdirSync(folder, { recursive: true });
  const files = [];
  const billions = options.tiny ? 0.02 : options.params;
  for (const format of options.formats) {
    const { experts } = options;
    const size = experts > 0 ? `${billions}x${experts}` : billions;
    const path = join(folder, `synthetic-${size}-${format}.gguf`);
    if (!existsSync(path)) {
      console.error(`bench: writing ${path}`);
      await writeSynthetic(path, { parameters: billions * 1e9, format, experts });
    }
    files.push([`synthetic ${size}B`, path, format]);
  }
  return files;
}

async function models() {
  if ((await findPeer('node-llama-cpp')) === undefined) return;
  printHead();
  const rounds = options.quick || options.tiny ? 2 : 5;
  for (const [name, path, format] of await modelFiles()) {
    for (const count of threads) {
      const promptTokens = options.tiny ? 8 : options.prompt;
      const pair = await compareDecoders(path, {
        threads: count,
        promptTokens,
        decodeTokens: options.tiny ? 4 : options.tokens,
        rounds,
      });
      addModel(name, format, count, promptTokens, pair);
    }
  }
}

/** One result for the prompt and one for a decode step; tokens a second follow from their times. */
function addModel(name, format, count, promptTokens, pair) {
  const { config, fileBytes, version, error } = pair;
  const { hiddenSize, vocabSize, numLayers, numHeads, numKvHeads, headDim, intermediateSize } =
    config;
  const layer =
    hiddenSize * headDim * (2 * numHeads + 2 * numKvHeads) + 3 * hiddenSize * intermediateSize;
  const weights = numLayers * layer + vocabSize * hiddenSize; // multiplied per token; the embedding is looked up
  const bytes = fileBytes * (weights / (weights + vocabSize * hiddenSize));
  for (const [op, m, operations] of [
    ['prompt', promptTokens, 2 * numLayers * layer * promptTokens],
    ['decode', 1, 2 * weights],
  ]) {
    const { own, other } = pair[op];
    add(
      {
        family: 'nn',
        op,
        case: name,
        format,
        m,
        n: 0,
        k: 0,
        cold: true,
        type: 'i8',
        bytes,
        operations,
      },
      {
        threads: count,
        algorithm: 'decoder',
        error,
        times: { median_us: own.median, p10_us: own.p10, p90_us: own.p90 },
        peer: {
          name: 'node-llama-cpp',
          version,
          median_us: other.median,
          ratio: other.median / own.median,
        },
      },
    );
    const rate = (micros) => ((m * 1e6) / micros).toFixed(1);
    console.log(
      `  tokens a second: bitloom ${rate(own.median)}, node-llama-cpp ${rate(other.median)}`,
    );
  }
}
