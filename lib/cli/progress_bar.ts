import { Presets, SingleBar } from 'cli-progress';
import type { Progress } from '../nn/index.js';
import type { Output } from './main.js';

/** A progress bar on standard error where that is a terminal; nothing elsewhere. */
export class ProgressBar {
  #bar: SingleBar | undefined;

  constructor(
    private readonly title: string,
    private readonly output: Output,
    private readonly quiet: boolean,
  ) {}

  readonly update = ({ tensor, done, total }: Progress): void => {
    if (this.quiet || this.output.stderr.isTTY !== true) return;
    if (this.#bar === undefined) {
      const format = `${this.title} {bar} {percentage}% | {tensor}`;
      const stream = process.stderr;
      this.#bar = new SingleBar({ format, stream, clearOnComplete: true }, Presets.shades_classic);
      this.#bar.start(total, 0, { tensor: '' });
    }
    this.#bar.update(done, { tensor });
  };

  stop(): void {
    this.#bar?.stop();
    this.#bar = undefined;
  }
}
