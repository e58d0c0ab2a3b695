// node bench/overhead.mjs: what a call from JavaScript costs above the C ABI call it makes. Sync, async
// (a worker thread and a promise), and a sequence of 100 operators in one visit to a worker thread.
import { gaussianTensor, weightBytes } from './data.mjs';
import { addon, bitloom, capture } from './native.mjs';
import { summary } from './statistics.mjs';

const { Tensor } = bitloom;
const run = {};
const d = 64;
const x = gaussianTensor([1, d]);
const weight = gaussianTensor([d], 2);
const matrix = new bitloom.QuantizedTensor('q8_0', weightBytes('q8_0', 8, d), [8, d]);
const out = Tensor.zeros('f32', [1, d]);
const matmulOut = Tensor.zeros('f32', [1, 8]);

const cases = [
  [
    'add',
    (more) => bitloom.add(x, x, { out, ...more }),
    (more) => bitloom.addAsync(x, x, { out, ...more }),
  ],
  [
    'rmsNorm',
    (more) => bitloom.rmsNorm(x, weight, { out, ...more }),
    (more) => bitloom.rmsNormAsync(x, weight, { out, ...more }),
  ],
  [
    'matmul 8x64 q8_0',
    (more) => bitloom.matmul(x, matrix, { out: matmulOut, ...more }),
    (more) => bitloom.matmulAsync(x, matrix, { out: matmulOut, ...more }),
  ],
  ['add, new output', (more) => bitloom.add(x, x, more), (more) => bitloom.addAsync(x, x, more)],
];

/**
 * Microseconds of one call: of many short rounds the fastest tenth's slowest, so that interruptions by other
 * programs do not count; the C ABI call is measured in the same way.
 */
function timeSync(body, rounds = 400, count = 200) {
  for (let i = 0; i < 5000; i++) body(); // until V8 has compiled it
  const means = [];
  for (let round = 0; round < rounds; round++) {
    const start = performance.now();
    for (let i = 0; i < count; i++) body();
    means.push(((performance.now() - start) * 1000) / count);
  }
  return summary(means).p10;
}

async function timeAsync(body, rounds = 200, count = 10) {
  const means = [];
  for (let round = -5; round < rounds; round++) {
    const start = performance.now();
    for (let i = 0; i < count; i++) await body();
    if (round >= 0) means.push(((performance.now() - start) * 1000) / count);
  }
  return summary(means).p10;
}

const micros = (value) => value.toFixed(2).padStart(9);
console.log('microseconds a call     C ABI      sync  sync-CABI     async  in a sequence of 100');
for (const [name, sync, async] of cases) {
  const own = summary(addon.time([capture(() => sync(run))], 1000, 400, 200)).p10;
  const fromSync = timeSync(() => sync(run));
  const fromAsync = await timeAsync(() => async(run));
  const inSequence = await timeAsync(
    () =>
      bitloom.sequence(() => {
        for (let i = 0; i < 100; i++) sync(run);
      }),
    100,
    1,
  );
  console.log(
    `${name.padEnd(20)} ${micros(own)} ${micros(fromSync)}  ${micros(fromSync - own)} ${micros(fromAsync)} ${micros(inSequence / 100)}`,
  );
}
