// node bench/paged/block_pool.mjs: block operations of BlockPool on one core, with 10,000 sequences. A block operation is one
// reference to a page taken or given back (a copy on write is two); what else a call does is in its time, which is that of
// the processor, garbage collection included, so that other programs do not count.
import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { summary } from '../statistics.mjs';

const root = new URL('../../', import.meta.url);
const numSequences = 10_000;
const pageSize = 16;

/** Sequences of 1 to 40 pages. */
function filled(BlockPool, draw) {
  const pool = new BlockPool({ numPages: 600_000, pageSize });
  const sequences = Array.from({ length: numSequences }, () => {
    const sequence = pool.create();
    sequence.append(1 + draw(40 * pageSize));
    return sequence;
  });
  return { pool, sequences };
}

/** Each returns the block operations it did. */
const workloads = {
  /** A token for each sequence, as a step of decoding. */
  'append 1': ({ sequences }) => {
    let operations = 0;
    for (const sequence of sequences) {
      const before = sequence.numPages;
      const { copies } = sequence.append(1);
      operations += sequence.numPages - before + 2 * copies.length;
    }
    return operations;
  },
  'append 64, trim': ({ sequences }) => {
    let operations = 0;
    for (const sequence of sequences) {
      const { length, numPages } = sequence;
      const { copies } = sequence.append(64);
      operations += 2 * (sequence.numPages - numPages) + 2 * copies.length;
      sequence.trim(length);
    }
    return operations;
  },
  'fork, free': ({ sequences }, draw) => {
    let operations = 0;
    for (let i = 0; i < numSequences; i++) {
      const old = draw(numSequences);
      const fork = sequences[draw(numSequences)].fork();
      operations += fork.numPages + sequences[old].numPages;
      sequences[old].free();
      sequences[old] = fork;
    }
    return operations;
  },
  /** Half appends of 1 to 48 tokens, a quarter forks, a quarter new ones; forks and new ones take another's place. */
  'random fork, append, free': ({ pool, sequences }, draw) => {
    let operations = 0;
    for (let i = 0; i < numSequences; i++) {
      const kind = draw(4);
      const at = draw(numSequences);
      const sequence = sequences[at];
      if (kind < 2) {
        const before = sequence.numPages;
        const { copies } = sequence.append(1 + draw(48));
        operations += sequence.numPages - before + 2 * copies.length;
        continue;
      }
      const next = kind === 2 ? sequences[draw(numSequences)].fork() : pool.create();
      if (kind === 3) next.append(1 + draw(40 * pageSize));
      operations += next.numPages + sequence.numPages;
      sequence.free();
      sequences[at] = next;
    }
    return operations;
  },
};

/** Whole numbers from 0 to count - 1 (mulberry32). */
function drawer(seed) {
  let state = seed;
  return (count) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 2 ** 32) * count);
  };
}

/** Of many rounds over all sequences, in millions of block operations a second. */
function time(BlockPool, workload, rounds) {
  const draw = drawer(7);
  const state = filled(BlockPool, draw);
  const rates = [];
  const nanoseconds = [];
  let worst = 0;
  for (let round = -5; round < rounds; round++) {
    const begin = process.cpuUsage();
    const operations = workload(state, draw);
    const { user, system } = process.cpuUsage(begin); // microseconds
    const taken = (user + system) * 1e3;
    const { used } = state.pool.stats;
    const tokens = state.sequences.reduce((sum, { length }) => sum + length, 0);
    worst = Math.max(worst, (used * pageSize - tokens) / numSequences);
    if (round < 0) continue;
    rates.push((operations / taken) * 1e3);
    nanoseconds.push(taken / numSequences);
  }
  return { rate: summary(rates), nanoseconds: summary(nanoseconds).median, worst };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  execFileSync(process.execPath, [fileURLToPath(new URL('native/build-ts.mjs', root))], {
    cwd: fileURLToPath(root),
    stdio: 'inherit',
  });
  const { BlockPool } = await import('../../dist/esm/nn/paged/block_pool.js');
  const rounds = process.argv.includes('--quick') ? 20 : 200;
  console.log(
    'of 10,000 sequences            M block operations/s (p10, p90)   ns a call   tokens lost a sequence',
  );
  for (const [name, workload] of Object.entries(workloads)) {
    const { rate, nanoseconds, worst } = time(BlockPool, workload, rounds);
    const [median, p10, p90] = [rate.median, rate.p10, rate.p90].map((x) => x.toFixed(1));
    console.log(
      `${name.padEnd(30)} ${median.padStart(20)} (${p10}, ${p90})`.padEnd(64) +
        `${nanoseconds.toFixed(0).padStart(10)} ${Math.max(worst, 0).toFixed(1).padStart(12)}`,
    );
  }
}
