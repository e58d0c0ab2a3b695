// Runs two competitors in turn and times them from JavaScript, as a user of either would.
import { setTimeout as sleep } from 'node:timers/promises';
import { summary } from '../statistics.mjs';

/** Threads of either library may spin for a while after a call: they get this long to come to rest. */
const restMilliseconds = 20;

/**
 * @param competitors two async functions that do the work once
 * @returns microseconds of each: [{ median, p10, p90 }, ...]
 */
export async function interleave(competitors, { seconds, rounds }) {
  const samples = competitors.map(() => []);
  const counts = [];
  for (const competitor of competitors) {
    await competitor();
    const micros = await timed(competitor);
    counts.push(Math.min(Math.max(Math.floor((seconds * 1e6) / rounds / micros), 1), 500));
  }
  for (let round = 0; round < rounds; round++) {
    // The order changes from round to round: neither always comes after the other.
    for (const index of round % 2 === 0 ? [0, 1] : [1, 0]) {
      await sleep(restMilliseconds);
      await competitors[index](); // wakes its threads
      for (let i = 0; i < counts[index]; i++) samples[index].push(await timed(competitors[index]));
    }
  }
  return samples.map(summary);
}

async function timed(body) {
  const start = performance.now();
  await body();
  return (performance.now() - start) * 1000;
}
