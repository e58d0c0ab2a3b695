import { argumentError } from '../errors.js';
import type { Format } from '../generated.js';
import { machine, setThreads } from '../machine.js';
import {
  type Activations,
  type Decoder,
  type Generation,
  Linear,
  type LoadOptions,
  load,
  MLP,
} from '../nn/index.js';
import { formatInfo } from '../quantized_tensor.js';
import type { Output } from './main.js';
import { ProgressBar } from './progress_bar.js';
import { formatBytes } from './text.js';

/** Options of `bitloom generate`, as commander gives them. */
export interface GenerateCommand {
  format?: string;
  method: string;
  activations: string;
  threads?: number;
  context?: number;
  maxTokens: number;
  temperature: number;
  topK: number;
  topP: number;
  minP: number;
  repetitionPenalty: number;
  seed: number;
  stop?: string[];
  special?: boolean;
  json?: boolean;
  quiet?: boolean;
}

/** Loads, generates, prints. */
export async function generate(
  model: string,
  prompt: string,
  options: GenerateCommand,
  output: Output,
): Promise<void> {
  const log = (line: string): void => {
    if (options.quiet !== true) output.stderr.write(`${line}\n`);
  };
  if (options.threads !== undefined) setThreads(options.threads);
  const begin = performance.now();
  const decoder = await loadWithBar(model, options, output);
  const loadSeconds = (performance.now() - begin) / 1000;
  try {
    const kernels = kernelSummary(decoder);
    const { isa, threads } = machine();
    log(`loaded ${model} in ${loadSeconds.toFixed(2)} s: ${describe(decoder)}`);
    log(
      `kernels (${isa}, ${threads} threads): ${kernels.map((k) => `${k.kernel} x ${k.layers} for ${k.format}`).join(', ')}`,
    );
    const { maxTokens, temperature, topK, topP, minP, repetitionPenalty, seed } = options;
    const generation = decoder.generate(prompt, {
      ...{ maxTokens, temperature, topK, topP, minP, repetitionPenalty, seed },
      ...(options.stop === undefined ? {} : { stop: options.stop }),
      ...(options.special === true ? { special: true } : {}),
    });
    let text = '';
    for await (const piece of generation) {
      text += piece;
      if (options.json !== true) output.stdout.write(piece);
    }
    if (options.json !== true) output.stdout.write('\n');
    const peakBytes = process.resourceUsage().maxRSS * 1024;
    report(generation, peakBytes, log);
    if (options.json === true) {
      const { tokens, finishReason, stats } = generation;
      const result = { text, tokens, finishReason, stats, loadSeconds, peakBytes, kernels };
      output.stdout.write(`${JSON.stringify({ ...result, machine: machine() })}\n`);
    }
  } finally {
    decoder.dispose();
  }
}

async function loadWithBar(
  model: string,
  options: GenerateCommand,
  output: Output,
): Promise<Decoder> {
  const { format, method, activations, context } = options;
  if (method !== 'minmax' && method !== 'mse') {
    throw argumentError(
      'BL_INVALID_ARGUMENT',
      `--method is ${JSON.stringify(method)}, expected minmax or mse`,
    );
  }
  if (format !== undefined) formatInfo(format);
  const bar = new ProgressBar(
    format === undefined ? 'loading' : `quantizing to ${format}`,
    output,
    options.quiet === true,
  );
  const loadOptions: LoadOptions = {
    method,
    activations: activations as Activations,
    onProgress: bar.update,
    ...(format === undefined ? {} : { format: format as Format }),
    ...(context === undefined ? {} : { contextLength: context }),
  };
  try {
    return await load(model, loadOptions);
  } finally {
    bar.stop();
  }
}

function describe({ config, parts }: Decoder): string {
  let weights = 0;
  let bytes = 0;
  for (const { weight } of matrices({ parts })) {
    weights += weight.rows * weight.cols;
    bytes += weight.bytes.byteLength;
  }
  const bits = ((bytes * 8) / weights).toFixed(2);
  return (
    `${config.architecture}, ${config.numLayers} layers of ${config.hiddenSize}, ` +
    `${(weights / 1e6).toFixed(1)} million weights in ${formatBytes(bytes)} (${bits} bits each)`
  );
}

/** Linear layers; the output too, even where it is the embedding's matrix. */
function matrices({ parts }: Pick<Decoder, 'parts'>) {
  const inLayers = parts.layers.flatMap(({ attention, mlp }) => {
    const { query, key, value, output } = attention.options;
    const attends = [query, key, value, output];
    if (mlp instanceof MLP) return [...attends, mlp.gate, mlp.up, mlp.down];
    const experts = mlp.experts.experts.flatMap(({ gate, up, down }) =>
      [gate, up, down].flatMap((weight) => (weight === undefined ? [] : [new Linear(weight)])),
    );
    return [...attends, mlp.options.router, ...experts];
  });
  return [...inLayers, parts.output];
}

interface KernelUse {
  kernel: string;
  format: string;
  layers: number;
}

/** Which kernels multiply one token by how many matrices. */
function kernelSummary(decoder: Decoder): KernelUse[] {
  const uses = new Map<string, KernelUse>();
  for (const layer of matrices(decoder)) {
    const { format } = layer.weight;
    const kernel = layer.kernel() ?? 'none';
    const use = uses.get(kernel + format) ?? { kernel, format, layers: 0 };
    use.layers++;
    uses.set(kernel + format, use);
  }
  return [...uses.values()];
}

function report(
  { stats, finishReason }: Generation,
  peakBytes: number,
  log: (line: string) => void,
): void {
  const { promptTokens, promptTokensPerSecond, tokens, tokensPerSecond } = stats;
  log(`prompt: ${promptTokens} tokens, ${promptTokensPerSecond.toFixed(1)} tokens/s`);
  const reasons = {
    stop: 'end of text',
    length: 'as many as asked for',
    context: 'the context is full',
  };
  const why = finishReason === undefined ? '' : ` (${reasons[finishReason]})`;
  log(`generated: ${tokens} tokens, ${tokensPerSecond.toFixed(1)} tokens/s${why}`);
  log(`peak memory: ${formatBytes(peakBytes)}`);
}
