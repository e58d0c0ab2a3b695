// npm run bench: times every operator's cases against the machine's roofs. See bench/README.md.
import { writeFileSync } from 'node:fs';
import { Command } from 'commander';
import { allCases, caseName } from './cases.mjs';
import { commit, machineFacts } from './machine.mjs';
import { measure } from './measure.mjs';
import { isas } from './native.mjs';
import { writeReport } from './report.mjs';
import { Roofs } from './roofs.mjs';
import { problems } from './schema.mjs';

const machine = machineFacts();

const list = (value) => value.split(',');
const options = new Command()
  .name('npm run bench --')
  .description('Times kernels through the C ABI and compares them with what this machine could do.')
  .option(
    '--filter <text>',
    'only cases whose name has every word of the text (--list shows the names)',
  )
  .option('--isa <levels>', 'instruction set levels to force, e.g. avx2,avx512', list, [
    machine.isa,
  ])
  .option('--threads <counts>', 'thread counts, e.g. 1,2', list, [...new Set([1, machine.threads])])
  .option('--json <file>', 'write the results as JSON')
  .option('--html <file>', 'write the results as a page with roofline plots')
  .option('--quick', 'fewer shapes, a twentieth of the time for each: for a first look')
  .option('--tiny', 'tiny shapes: for testing the bench itself')
  .option('--list', 'print the names of the cases and exit')
  .option('--check-schema', 'fail unless the JSON has the documented form')
  .parse()
  .opts();

const words = (options.filter ?? '').split(/\s+/).filter(Boolean);
const cases = (await allCases(options)).filter((one) =>
  words.every((word) => `${one.family} ${caseName(one)}`.includes(word)),
);
if (options.list) {
  for (const one of cases) console.log(caseName(one));
} else {
  await main();
}

function configurationsOf() {
  const configurations = [];
  for (const isa of options.isa) {
    if (!Object.hasOwn(isas, isa))
      throw new Error(`--isa ${isa}: expected ${Object.keys(isas).join(', ')}`);
    if (isas[isa] > isas[machine.isa]) {
      console.error(`bench: this machine has no ${isa}; left out`);
      continue;
    }
    for (const threads of options.threads.map(Number)) {
      if (!(Number.isInteger(threads) && threads >= 1 && threads <= 256)) {
        throw new Error(`--threads ${threads}: expected whole numbers from 1 to 256`);
      }
      configurations.push({ isa, threads });
    }
  }
  return configurations;
}

async function main() {
  const configurations = configurationsOf();
  const roofs = new Roofs(machine.isa, options);
  const budget =
    options.quick || options.tiny ? { seconds: 0.02, rounds: 2 } : { seconds: 0.4, rounds: 4 };
  const results = [];
  console.log(
    `${'case'.padEnd(44)} ${'isa'.padEnd(7)} thr  ${'kernel'.padEnd(20)} median us     floor us  floor/time  bound    error`,
  );
  for (const one of cases) {
    for (const result of runCase(one, configurations, roofs, budget)) {
      results.push(result);
      printResult(one, result);
    }
  }
  const report = {
    machine,
    date: new Date().toISOString(),
    commit: commit(),
    roofs: roofs.toJSON(),
    results,
  };
  if (options.json) writeFileSync(options.json, `${JSON.stringify(report, null, 1)}\n`);
  if (options.html) writeReport(options.html, report);
  if (options.checkSchema) {
    const found = problems(report);
    for (const problem of found) console.error(`schema: ${problem}`);
    if (found.length > 0) process.exitCode = 1;
  }
}

function runCase(one, configurations, roofs, budget) {
  const prepared = one.prepare();
  const label = { op: one.op, case: one.case, format: one.format, m: one.m };
  const compute = configurations.map(() => 0); // operations per second, the best bracket
  const timed = configurations.map(({ isa, threads }, i) => ({
    isa,
    threads,
    around(body) {
      const [result, roof] = roofs.bracket(label, one.type, isa, threads, body);
      compute[i] = Math.max(compute[i], roof);
      return result;
    },
  }));
  const times = measure(prepared, timed, budget);
  return configurations.map(({ isa, threads }, i) => {
    prepared.body({ isa, threads }, 0); // so that the outputs are this configuration's
    const level = one.cold ? 'memory' : roofs.level(one.bytes, threads);
    const memoryMicros = (one.bytes / roofs.read(level, threads)) * 1e6;
    const computeMicros = (one.operations / compute[i]) * 1e6;
    const floor = Math.max(memoryMicros, computeMicros);
    return {
      family: one.family,
      op: one.op,
      case: one.case,
      format: one.format,
      m: one.m,
      n: one.n,
      k: one.k,
      isa,
      algorithm: prepared.algorithm?.({ isa, threads }) ?? one.op,
      threads,
      cold: one.cold,
      ...times[i],
      bytes: one.bytes,
      operations: one.operations,
      floor_us: floor,
      floor_ratio: floor / times[i].median_us,
      bound: memoryMicros >= computeMicros ? 'memory' : 'compute',
      error: prepared.error(),
      peer: null,
    };
  });
}

function printResult(one, result) {
  const micros = (value) => value.toFixed(value < 100 ? 2 : 0).padStart(11);
  console.log(
    `${(caseName(one) + (one.cold ? ' cold' : '')).padEnd(44)} ${result.isa.padEnd(7)} ${String(result.threads).padStart(3)}  ` +
      `${result.algorithm.padEnd(20)}${micros(result.median_us)} ${micros(result.floor_us)}  ` +
      `${result.floor_ratio.toFixed(3).padStart(10)}  ${result.bound.padEnd(7)}  ${result.error.toExponential(1)}`,
  );
}
