// Run by limited.test.ts in a group whose memory is limited: a mixture of 1.1 GB, from a file that is mapped.
// node limited.mjs <cjs of the package> <file> <calls>: prints how much of the file is resident after few experts, and
// what all of them give.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';

const [main, io, file] = process.argv.slice(2);
const require = createRequire(import.meta.url);
const { MoEExperts, moeForward, QuantizedTensor, Tensor, weightsBytes } = require(main);
const { mapFile } = require(io);

const [count, hidden, width] = [64, 2048, 4096];
const each = weightsBytes('q8_0', width, hidden);
const source = mapFile(file);
const matrix = (i, rows, cols) =>
  new QuantizedTensor('q8_0', source.bytes(i * each, each), [rows, cols]);
const experts = new MoEExperts(
  Array.from({ length: count }, (_, e) => ({
    up: matrix(2 * e, width, hidden),
    down: matrix(2 * e + 1, hidden, width),
  })),
);
const x = new Tensor('f32', new Float32Array(hidden).fill(1), [1, hidden]);
const call = (...indices) =>
  moeForward(
    x,
    {
      indices: new Tensor('i32', Int32Array.from(indices), [1, indices.length]),
      weights: new Tensor('f32', new Float32Array(indices.length).fill(1), [1, indices.length]),
    },
    experts,
    { compute: 'i8' },
  );

/** Bytes of the file's mapping that are in memory. */
function resident() {
  let inside = false;
  let sum = 0;
  for (const line of readFileSync('/proc/self/smaps', 'utf8').split('\n')) {
    if (/^[0-9a-f]+-/.test(line)) inside = line.endsWith(file);
    else if (inside && line.startsWith('Rss:')) sum += 1024 * Number(line.match(/\d+/)[0]);
  }
  return sum;
}

const before = resident();
call(3, 40);
const after = resident();
let zeros = true;
for (let e = 0; e < count; e++) zeros &&= call(e).data.every((value) => value === 0);
console.log(JSON.stringify({ each: 2 * each, before, after, zeros }));
