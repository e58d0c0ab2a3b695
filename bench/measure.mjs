// Measures one case in several configurations (ISA level x threads), side by side.
import { addon, capture } from './native.mjs';
import { summary } from './statistics.mjs';

/** A sample lasts at least this long: 200 times the clock's own cost. */
const minSampleMicros = 5;

/**
 * Times `configurations` of a prepared case in turn, `rounds` times, so that a slow minute of the machine
 * falls on all of them.
 *
 * @param configurations [{ isa, threads, around }]: `around(body)` runs body, e.g. between brackets
 * @returns [{ median_us, p10_us, p90_us }] in the same order
 */
export function measure(prepared, configurations, { seconds, rounds }) {
  const jobs = configurations.map(({ isa, threads, around }) => {
    const calls = [];
    for (let i = 0; i < prepared.variants; i++)
      calls.push(capture(() => prepared.body({ isa, threads }, i)));
    return { calls, around, samples: [] };
  });
  for (const job of jobs) {
    const [once] = addon.time(job.calls, 1, 1, 1);
    const [micros] =
      once > 1e5 ? [once] : addon.time(job.calls, 1, 1, Math.ceil(20 / Math.max(once, 0.05)));
    job.repeats =
      prepared.variants > 1 ? 1 : Math.max(1, Math.ceil(minSampleMicros / Math.max(micros, 0.005)));
    const fitting = Math.floor(
      (seconds * 1e6) / rounds / Math.max(micros * job.repeats, minSampleMicros),
    );
    job.count = Math.min(Math.max(fitting, 1), 500);
  }
  for (let round = 0; round < rounds; round++) {
    for (const job of jobs) {
      job.around(() => job.samples.push(...addon.time(job.calls, 1, job.count, job.repeats)));
    }
  }
  return jobs.map(({ samples }) => {
    const { median, p10, p90 } = summary(samples);
    return { median_us: median, p10_us: p10, p90_us: p90 };
  });
}
