import { statSync } from 'node:fs';
import { argumentError } from '../errors.js';
import type { Format } from '../generated.js';
import { setThreads } from '../machine.js';
import { quantizeModel } from '../nn/index.js';
import { formatInfo } from '../quantized_tensor.js';
import type { Output } from './main.js';
import { ProgressBar } from './progress_bar.js';
import { formatBytes } from './text.js';

/** Options of `bitloom quantize`, as commander gives them. */
export interface QuantizeCommand {
  format: string;
  embedding?: string;
  method: string;
  threads?: number;
  quiet?: boolean;
}

/** Writes `to` and says how large it became. */
export async function quantize(
  from: string,
  to: string,
  options: QuantizeCommand,
  output: Output,
): Promise<void> {
  const { format, embedding, method, threads, quiet = false } = options;
  if (method !== 'minmax' && method !== 'mse') {
    throw argumentError(
      'BL_INVALID_ARGUMENT',
      `--method is ${JSON.stringify(method)}, expected minmax or mse`,
    );
  }
  for (const name of [format, embedding]) if (name !== undefined) formatInfo(name);
  if (threads !== undefined) setThreads(threads);
  const bar = new ProgressBar(`quantizing to ${format}`, output, quiet);
  const begin = performance.now();
  try {
    await quantizeModel(from, to, format as Format, {
      method,
      onProgress: bar.update,
      ...(embedding === undefined ? {} : { embedding: embedding as Format }),
    });
  } finally {
    bar.stop();
  }
  if (quiet) return;
  const seconds = ((performance.now() - begin) / 1000).toFixed(2);
  const sizes = [from, to].map((path) => formatBytes(statSync(path).size));
  output.stderr.write(`${from} (${sizes[0]}) -> ${to} (${sizes[1]}) in ${seconds} s\n`);
}
