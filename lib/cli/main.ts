#!/usr/bin/env node
// The `bitloom` command. Nothing here imports the addon: each command loads what it needs when it runs, so that
// `--help` and `bitloom build` work where there is no binary.
import { realpathSync } from 'node:fs';
import { Command, CommanderError, InvalidArgumentError } from 'commander';

/** Where a command writes; `process` itself outside tests. */
export interface Output {
  stdout: { write(text: string): unknown };
  stderr: { write(text: string): unknown; isTTY?: boolean };
}

const whole = (text: string): number => {
  const value = Number(text);
  if (text.trim() === '' || !Number.isSafeInteger(value))
    throw new InvalidArgumentError('It is not a whole number.');
  return value;
};
const real = (text: string): number => {
  const value = Number(text);
  if (text.trim() === '' || !Number.isFinite(value))
    throw new InvalidArgumentError('It is not a number.');
  return value;
};

function program(output: Output): Command {
  const command = new Command('bitloom')
    .description('Low-bit inference kernels: run, quantize and inspect GGUF models.')
    .exitOverride()
    .showHelpAfterError('(--help says more)')
    .configureOutput({
      writeOut: (text) => output.stdout.write(text),
      writeErr: (text) => output.stderr.write(text),
    });
  addGenerate(command, output);
  addQuantize(command, output);
  command
    .command('info [file]')
    .description('what this machine computes with; or what a model file holds')
    .option('--json', 'as JSON')
    .option('--tensors', 'list every tensor of the file')
    .action(async (file: string | undefined, options: { json?: boolean; tensors?: boolean }) => {
      const { info } = await import('./info.js');
      await info(file, options, output);
    });
  command
    .command('tune')
    .description(
      'measure which algorithm is fastest when on this machine, and keep it for later runs',
    )
    .option('-t, --threads <count>', 'threads to use (default: physical cores)', whole)
    .option('--budget <milliseconds>', 'time for each measured call', real, 30)
    .option('--dry-run', 'keep nothing')
    .option('--json', 'as JSON')
    .action(async (options) => {
      const { tune } = await import('./tune.js');
      await tune(options, output);
    });
  command
    .command('build')
    .description('compile the native addon from source (needs g++ and CMake)')
    .action(async () => {
      const { buildFromSource } = await import('./build.js');
      const { output: folder, version } = buildFromSource();
      output.stderr.write(`built bitloom ${version} in ${folder}\n`);
    });
  return command;
}

function addGenerate(command: Command, output: Output): void {
  command
    .command('generate <model> <prompt>')
    .description(
      'text that follows a prompt, to standard output; everything else goes to standard error',
    )
    .option('-f, --format <name>', 'quantize the weights to this format first, e.g. u4_g128')
    .option('--method <name>', 'how to quantize: minmax or mse', 'minmax')
    .option('--activations <name>', 'auto, f32 or i8', 'auto')
    .option('-t, --threads <count>', 'threads to use (default: physical cores)', whole)
    .option('-c, --context <tokens>', 'longest text, prompt included', whole)
    .option('-n, --max-tokens <count>', 'tokens to generate at most', whole, 256)
    .option('--temperature <number>', '0: always the likeliest token', real, 0)
    .option('--top-k <count>', 'only the k likeliest tokens; 0: all', whole, 0)
    .option('--top-p <number>', 'only the likeliest tokens of this total probability', real, 1)
    .option('--min-p <number>', 'only tokens this times as likely as the likeliest', real, 0)
    .option('--repetition-penalty <number>', 'above 1: less repetition', real, 1)
    .option('-s, --seed <number>', 'of the draws', whole, 0)
    .option('--stop <text...>', 'texts that end the generation')
    .option('--special', 'read control tokens such as <|im_end|> in the prompt')
    .option('--json', 'print one JSON object with text, tokens and statistics instead of the text')
    .option('-q, --quiet', 'nothing on standard error')
    .action(async (model: string, prompt: string, options) => {
      const { generate } = await import('./generate.js');
      await generate(model, prompt, options, output);
    });
}

function addQuantize(command: Command, output: Output): void {
  command
    .command('quantize <in> <out>')
    .description('write a GGUF model with its matrices in another format')
    .requiredOption(
      '-f, --format <name>',
      'e.g. q4_0, q8_0 (which llama.cpp reads), u4_g128, t2_g256',
    )
    .option('--embedding <name>', 'another format for the embedding and output matrices')
    .option('--method <name>', 'minmax or mse', 'minmax')
    .option('-t, --threads <count>', 'threads to use (default: physical cores)', whole)
    .option('-q, --quiet', 'nothing on standard error')
    .action(async (from: string, to: string, options) => {
      const { quantize } = await import('./quantize.js');
      await quantize(from, to, options, output);
    });
}

/**
 * Runs the command line.
 *
 * @param args without `node` and the script
 * @returns exit code: 0, or 1 after one line on standard error
 */
export async function main(args: readonly string[], output: Output = process): Promise<number> {
  try {
    await program(output).parseAsync(args, { from: 'user' });
    return 0;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 1;
    const message = error instanceof Error ? error.message : String(error);
    output.stderr.write(
      `bitloom: ${message.replace(/^bitloom: /, '').replace(/\s*\n\s*/g, ' ')}\n`,
    );
    return 1;
  }
}

/** Whether this file is what node was started with (npm links to it). */
function isScript(): boolean {
  const script = process.argv[1];
  if (script === undefined) return false;
  try {
    // Not by import.meta.url: this folder is compiled as CommonJS too.
    return /[\\/]cli[\\/]main\.js$/.test(realpathSync(script));
  } catch {
    return false;
  }
}

if (isScript()) {
  // A reader that has seen enough (`| head`) closes the pipe: no error.
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    process.exit(error.code === 'EPIPE' ? 0 : 1);
  });
  void main(process.argv.slice(2)).then((code) => {
    process.exitCode = code;
  });
}
