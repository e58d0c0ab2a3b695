// A language model speaks through bitloom's quantized kernels:
//
//   npm run demo                          three prompts to the model in this folder
//   npm run demo -- moe                   three to one with experts, which has read Alice, and where its tokens went
//   npm run demo -- model.gguf "prompt"   a model and a prompt of your own
import { fileURLToPath } from 'node:url';
import { machine } from 'bitloom';
import { load, MoELayer } from 'bitloom/nn';

const inFolder = (name) => fileURLToPath(new URL(name, import.meta.url));
const [named = inFolder('tiny.gguf'), ...given] = process.argv.slice(2);
const isAlice = named === 'moe';
const model = isAlice ? inFolder('tiny-moe.gguf') : named;
const ownPrompts = isAlice
  ? ['Alice was beginning to', 'The Queen said', "'What is the use of"]
  : ['Once upon a time', 'One day, a curious fox named Pip', 'In the small house by the river'];
const prompts = given.length > 0 ? given : ownPrompts;
// A book says less often the same than stories of a grammar do: the likeliest word again and again makes loops.
const sampling = isAlice ? { temperature: 0.6, topK: 20, seed: 3 } : {};

/** The weights of the first MLP, or of its first expert. */
function firstWeights({ mlp }) {
  if (mlp instanceof MoELayer) return { weight: mlp.experts.experts[0].up, kernel: 'moe_forward' };
  return { weight: mlp.up.weight, kernel: mlp.up.kernel() };
}

/** Draws how many of a text's tokens went to each expert, a line for each layer. */
function drawLoads(decoder, text) {
  decoder.forward(decoder.tokenizer.encode(text).slice(0, decoder.contextLength));
  console.log('\nwhere the tokens of the last text went:');
  for (const [i, { mlp }] of decoder.parts.layers.entries()) {
    if (!(mlp instanceof MoELayer)) continue;
    const counts = new Array(mlp.numExperts).fill(0);
    for (const expert of mlp.lastRoutes.indices.data) counts[expert]++;
    const most = Math.max(...counts);
    const bars = counts.map((count) => ' ▁▂▃▄▅▆▇█'[Math.ceil((8 * count) / most)]).join(' ');
    console.log(`layer ${String(i).padStart(2)}  ${bars}   ${counts.join(' ')}`);
  }
}

/** Lets the model go on after each prompt; says the tokens per second of all. */
async function speak(format) {
  const decoder = await load(model, format === undefined ? {} : { format });
  const { weight, kernel } = firstWeights(decoder.parts.layers[0]);
  const bits = (weight.bytes.byteLength * 8) / (weight.rows * weight.cols);
  console.log(`\n--- ${weight.format}: ${bits.toFixed(2)} bits a weight, kernel ${kernel}`);
  let steps = 0;
  let seconds = 0;
  let said = '';
  for (const prompt of prompts) {
    process.stdout.write(`\n${prompt}`);
    said = prompt;
    const generation = decoder.generate(prompt, { maxTokens: 60, ...sampling });
    for await (const text of generation) {
      process.stdout.write(text);
      said += text;
    }
    process.stdout.write('\n');
    steps += generation.stats.steps;
    seconds += generation.stats.decodeSeconds;
  }
  console.log(`\n${(steps / seconds).toFixed(0)} tokens/s`);
  if (decoder.config.moe !== undefined) drawLoads(decoder, said);
  decoder.dispose();
}

const { version, isa, threads } = machine();
console.log(`bitloom ${version}, ${isa}, ${threads} threads, ${model}`);
try {
  await speak(); // the weights as they are in the file
  await speak('u4_g32'); // quantized to 4 bits on the way
} catch (error) {
  console.error(`demo: ${error.message}`);
  process.exitCode = 1;
}
