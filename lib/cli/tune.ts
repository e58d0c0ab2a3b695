import type { Output } from './main.js';
import { ProgressBar } from './progress_bar.js';
import { formatTable } from './text.js';

/** Measures this machine and keeps what it found where bitloom looks when it is loaded. */
export async function tune(
  options: { threads?: number; budget?: number; json?: boolean; dryRun?: boolean },
  output: Output,
): Promise<void> {
  const { machine } = await import('../machine.js');
  const { saveTuning, tuneMatmul } = await import('../ops/matmul/tune.js');
  const { isa } = machine();
  const bar = new ProgressBar('Measuring', output, false);
  const tuning = tuneMatmul({
    isa,
    onProgress: (done) => bar.update({ tensor: 'matmul', done, total: 1 }),
    ...(options.threads === undefined ? {} : { threads: options.threads }),
    ...(options.budget === undefined ? {} : { budget: options.budget }),
  });
  bar.stop();
  const path = options.dryRun === true ? undefined : saveTuning({ [isa]: tuning });
  if (options.json === true) {
    output.stdout.write(`${JSON.stringify({ isa, path, matmul: tuning })}\n`);
    return;
  }
  const rows = tuning.lutRows.map((lut, width) => [
    width === 0 ? 'bf16' : `${width} bits`,
    lut === 0 ? 'never' : `up to ${lut} rows`,
    (tuning.tileRows[width] as number) >= 2 ** 30 ? 'never' : `from ${tuning.tileRows[width]} rows`,
  ]);
  output.stdout.write(formatTable([[`matmul, ${isa}`, 'lut', 'tile'], ...rows]));
  if (path !== undefined) output.stderr.write(`kept in ${path}\n`);
}
