// A language model speaks through bitloom's quantized kernels:
//
//   npm run demo                          three prompts to the model in this folder
//   npm run demo -- model.gguf "prompt"   a model and a prompt of your own
import { fileURLToPath } from 'node:url';
import { machine } from 'bitloom';
import { load } from 'bitloom/nn';

const [model = fileURLToPath(new URL('tiny.gguf', import.meta.url)), ...given] =
  process.argv.slice(2);
const prompts =
  given.length > 0
    ? given
    : ['Once upon a time', 'One day, a curious fox named Pip', 'In the small house by the river'];

/** Lets the model go on after each prompt; gives the tokens per second of all. */
async function speak(format) {
  const decoder = await load(model, format === undefined ? {} : { format });
  const { weight } = decoder.parts.layers[0].mlp.up;
  const bits = (weight.bytes.byteLength * 8) / (weight.rows * weight.cols);
  console.log(
    `\n--- ${weight.format}: ${bits.toFixed(2)} bits a weight, kernel ${decoder.parts.layers[0].mlp.up.kernel()}`,
  );
  let steps = 0;
  let seconds = 0;
  for (const prompt of prompts) {
    process.stdout.write(`\n${prompt}`);
    const generation = decoder.generate(prompt, { maxTokens: 60 });
    for await (const text of generation) process.stdout.write(text);
    process.stdout.write('\n');
    steps += generation.stats.steps;
    seconds += generation.stats.decodeSeconds;
  }
  console.log(`\n${(steps / seconds).toFixed(0)} tokens/s`);
  decoder.dispose();
}

const { version, isa, threads } = machine();
console.log(`bitloom ${version}, ${isa}, ${threads} threads, ${model}`);
try {
  await speak(); // the weights as they are in the file
  await speak('u4_g128'); // quantized to 4 bits on the way
} catch (error) {
  console.error(`demo: ${error.message}`);
  process.exitCode = 1;
}
