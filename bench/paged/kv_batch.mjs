// node bench/paged/kv_batch.mjs [FOLDER OF ANOTHER dist/esm]: what a step of a batch costs in TypeScript, by sequences: cache.batch()
// once a step, append() and segments() once a layer. Native calls are left out (they do nothing), so that only the
// bookkeeping is timed. With another build's folder the two take turns, so that other programs slow both.
import { execFileSync } from 'node:child_process';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { summary } from '../statistics.mjs';

const root = fileURLToPath(new URL('../../', import.meta.url));
const numLayers = 16;
const numKvHeads = 1;
const headDim = 32;

async function library(folder) {
  const { Tensor } = await import(`${folder}/index.js`);
  const { PagedKVCache } = await import(`${folder}/nn/index.js`);
  const { native } = await import(`${folder}/native.js`);
  native.kvAppend = () => {};
  native.kvGather = () => {};
  return { Tensor, PagedKVCache };
}

/** A cache of sequences of 100 to 1000 tokens; the body makes one step. */
function stepper({ Tensor, PagedKVCache }, numSequences, options) {
  const cache = new PagedKVCache({
    numLayers,
    numKvHeads,
    headDim,
    pageSize: 16,
    numPages: 160 * numSequences,
    numRecentPages: 16 * numSequences,
    ...options,
  });
  const sequences = Array.from({ length: numSequences }, () => cache.create());
  const write = (count) => {
    const k = Tensor.zeros('f32', [numSequences * count, numKvHeads, headDim]);
    return () => {
      const begin = performance.now();
      const batch = cache.batch(sequences, count);
      const begun = performance.now();
      for (let layer = 0; layer < numLayers; layer++) {
        batch.append(layer, k, k);
        batch.segments(layer);
      }
      return [begun - begin, (performance.now() - begun) / numLayers];
    };
  };
  write(100)();
  const step = write(1);
  return () => {
    if (sequences[0].length > 1000) for (const one of sequences) one.trim(100);
    return step();
  };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  execFileSync(
    process.execPath,
    [fileURLToPath(new URL('../../native/build-ts.mjs', import.meta.url))],
    {
      cwd: root,
      stdio: 'inherit',
    },
  );
  const folders = [new URL('../../dist/esm', import.meta.url).href];
  if (process.argv[2] !== undefined) folders.push(pathToFileURL(process.argv[2]).href);
  const builds = [];
  for (const folder of folders) builds.push(await library(folder));

  console.log('sequences  cache            microseconds of batch(), a layer; medians (p10)');
  for (const numSequences of [1, 16, 64]) {
    for (const [name, options] of Object.entries({
      f16: { format: 'f16' },
      'i4, recent': { format: 'i4' },
      'i8, 64 recent': { format: 'i8', recent: 64 },
    })) {
      const steppers = builds.map((build) => stepper(build, numSequences, options));
      const times = builds.map(() => [[], []]);
      for (let turn = -20; turn < 40; turn++) {
        for (const [i, step] of steppers.entries()) {
          for (let round = 0; round < 100; round++) {
            const [batch, layer] = step();
            if (turn < 0) continue;
            times[i][0].push(batch * 1e3);
            times[i][1].push(layer * 1e3);
          }
        }
      }
      const columns = times.map((both) =>
        both
          .map((list) => summary(list))
          .map(({ median, p10 }) => `${median.toFixed(1).padStart(6)} (${p10.toFixed(1)})`)
          .join(', '),
      );
      console.log(
        `${String(numSequences).padStart(9)}  ${name.padEnd(14)} ${columns.join('   other build: ')}`,
      );
    }
  }
}
