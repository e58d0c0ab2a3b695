// Machine code of table_lookups.cu: instructions of the loops per mma, registers; no spills. With tables of pairs no kernel
// of 4 and 3 bits has more instructions than with entries in lanes.
//   node test/cuda/table_lookups.mjs <folder of <lookup>.sm_<arch>.cubin> [--print]
import { readdirSync } from 'node:fs';
import { makeReport } from '../cuda-report/report.mjs';

const [folder, option] = process.argv.slice(2);
const archs = readdirSync(folder).flatMap((name) => /^PairTable\.sm_(\d+)/.exec(name)?.[1] ?? []);
const { kernels } = makeReport([folder], []);
const failures = [];
for (const pairs of kernels.filter(({ module }) => module === 'PairTable')) {
  const lanes = kernels.find(
    (other) =>
      other.module === 'LaneTable' && other.kernel === pairs.kernel && other.arch === pairs.arch,
  );
  const [here, there] = [pairs, lanes].map(({ loop }) => loop.instructionsPerMma);
  const name = `${pairs.kernel} sm_${pairs.arch}`;
  if (option === '--print')
    console.log(
      `${name}: pairs ${here} (${pairs.registers} registers), lanes ${there} (${lanes.registers})`,
    );
  if (!name.includes('_t2') && here > there)
    failures.push(`${name}: pairs ${here}, lanes ${there}`);
  for (const { module, localInstructions } of [pairs, lanes])
    if (localInstructions > 0) failures.push(`${name}: ${module} spills`);
}
if (kernels.length !== 14 * archs.length || kernels.length === 0)
  failures.push(`${kernels.length} kernels, expected 14 of each architecture`);
for (const failure of failures) console.error(`FAILED: ${failure}`);
console.log(`${kernels.length} kernels, ${failures.length} failed`);
if (failures.length > 0) process.exitCode = 1;
