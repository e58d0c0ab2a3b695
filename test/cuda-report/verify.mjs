// Holds the reader of cubins against the compiler: registers, stack and static shared memory as ptxas reports them, mma
// as the PTX has them, a loop where the PTX has one.
//   node test/cuda-report/verify.mjs <folder of NAME.sm_XX.cubin, NAME.sm_XX.log (ptxas -v) and NAME.compute_XX.ptx>
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { readCubin } from './cubin.mjs';
import { decode, hotLoop, trim } from './sass.mjs';

const folder = process.argv[2];
let checks = 0;
const failures = [];
const check = (holds, what) => {
  checks += 1;
  if (!holds) failures.push(what);
};

/** What ptxas -v printed: kernel -> { registers, stackBytes, sharedBytes }. */
function readLog(text) {
  const kernels = new Map();
  for (const part of text.split(/Compiling entry function '/).slice(1)) {
    const number = (pattern) => Number(pattern.exec(part)?.[1] ?? 0);
    kernels.set(part.slice(0, part.indexOf("'")), {
      registers: number(/Used (\d+) registers/),
      stackBytes: number(/(\d+) bytes stack frame/),
      sharedBytes: number(/(\d+) bytes smem/),
    });
  }
  return kernels;
}

/** Bodies of the kernels of a PTX text. */
function readPtx(text) {
  return new Map(
    text
      .split(/\.entry\s+/)
      .slice(1)
      .map((part) => [/^\w+/.exec(part)[0], part]),
  );
}

for (const file of readdirSync(folder).filter((name) => name.endsWith('.cubin'))) {
  const [, module, arch] = /^(.+)\.sm_(\d+)\.cubin$/.exec(file);
  const log = readLog(readFileSync(join(folder, `${module}.sm_${arch}.log`), 'utf8'));
  const ptxFile = join(folder, `${module}.compute_${arch}.ptx`);
  const ptx = existsSync(ptxFile) ? readPtx(readFileSync(ptxFile, 'utf8')) : new Map();
  const kernels = readCubin(readFileSync(join(folder, file)));
  check(kernels.length === log.size, `${file}: ${kernels.length} kernels, ptxas names ${log.size}`);
  for (const kernel of kernels) {
    const name = `${file} ${kernel.name}`;
    const told = log.get(kernel.name) ?? {};
    for (const count of ['registers', 'stackBytes', 'sharedBytes'])
      check(
        kernel[count] === told[count],
        `${name}: ${count} ${kernel[count]}, ptxas says ${told[count]}`,
      );
    const instructions = trim(decode(kernel.code, Number(arch)));
    check(
      instructions.some((one) => one.name === 'EXIT'),
      `${name}: no EXIT`,
    );
    const outside = instructions.filter(({ target }) => target < 0 || target > instructions.length);
    check(outside.length === 0, `${name}: ${outside.length} branches leave the kernel`);
    const body = ptx.get(kernel.name);
    if (!body) continue;
    const mma = instructions.filter(({ kind }) => kind === 'mma').length;
    const written = body.match(/\bmma\.sync/g)?.length ?? 0;
    // Unrolling and splitting only add to what is written.
    check(written === 0 ? mma === 0 : mma >= written, `${name}: ${mma} mma, ${written} in the PTX`);
    const loop = hotLoop(instructions);
    if (written > 0) check(loop?.mma > 0, `${name}: no loop with mma`);
  }
}
for (const failure of failures) console.error(`FAILED: ${failure}`);
console.log(`${checks - failures.length} passed, ${failures.length} failed`);
if (failures.length > 0 || checks === 0) process.exitCode = 1;
