// Ends that come while the kernels work: of a process, of a worker; and decoders in worker threads.
import { execFile } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { compileLibrary } from '../compiled.js';
import { tinyModel } from './models.js';

const run = promisify(execFile);

let library: ReturnType<typeof compileLibrary>;
beforeAll(() => {
  library = compileLibrary();
}, 60_000);
afterAll(() => library.remove());

/** Runs a module in a process of its own; `load`, `model` and `ids` are at hand. */
async function script(name: string, body: string): Promise<string> {
  const file = join(library.folder, `${name}.mjs`);
  const head = `
    import { load } from './nn/index.js';
    const model = ${JSON.stringify(tinyModel)};
    const ids = Array.from({ length: 512 }, (_, i) => i);
  `;
  writeFileSync(file, head + body);
  const { stdout } = await run(process.execPath, [file], { timeout: 50_000 });
  return stdout.trim();
}

it('process.exit while a step runs ends the process well', async () => {
  const out = await script(
    'exit',
    `const decoder = await load(model);
     for (let i = 0; i < 4; i++) decoder.forwardAsync(ids);
     setTimeout(() => { console.log('leaving'); process.exit(0); }, 5);`,
  );
  expect(out).toBe('leaving');
});

it('a decoder works in a worker, and a worker that is terminated at work takes nothing along', async () => {
  const out = await script(
    'workers',
    `import { isMainThread, parentPort, Worker } from 'node:worker_threads';
     import { fileURLToPath } from 'node:url';
     const decoder = await load(model);
     if (isMainThread) {
       const expected = decoder.forward([1, 2, 3]).toArray().join();
       const workers = [1, 2].map(() => new Worker(fileURLToPath(import.meta.url)));
       const results = await Promise.all(workers.map((w) => new Promise((resolve, reject) => {
         w.once('message', resolve);
         w.once('error', reject);
       })));
       // Both go on computing: end them amid it.
       await new Promise((resolve) => setTimeout(resolve, 20));
       await Promise.all(workers.map((w) => w.terminate()));
       const after = decoder.forward([1, 2, 3]).toArray().join();
       console.log(results.every((r) => r === expected), after === expected);
     } else {
       parentPort.postMessage(decoder.forward([1, 2, 3]).toArray().join());
       for (;;) await Promise.all([decoder.forwardAsync(ids), decoder.forwardAsync(ids)]);
     }`,
  );
  expect(out).toBe('true true');
});

it('a worker terminated within a sync step ends too', async () => {
  const out = await script(
    'sync',
    `import { isMainThread, parentPort, Worker } from 'node:worker_threads';
     import { fileURLToPath } from 'node:url';
     if (isMainThread) {
       const worker = new Worker(fileURLToPath(import.meta.url));
       await new Promise((resolve) => worker.once('message', resolve));
       await new Promise((resolve) => setTimeout(resolve, 20));
       await worker.terminate();
       const decoder = await load(model);
       console.log(decoder.forward([1]).size);
     } else {
       const decoder = await load(model);
       parentPort.postMessage('ready');
       for (;;) decoder.forward(ids);
     }`,
  );
  expect(out).toBe('1024');
});

it('loading copies no weights, and packing replaces pages of the file: memory stays within 1.15 of it', async () => {
  // Made in a process of its own, so that its memory is not in the measure.
  const path = await script(
    'wide',
    `import { writeGGUF, readGGUF, mapFile } from './io/index.js';
     // 6 blocks of the example's shape, made 40 MB each by a wide MLP.
     const file = readGGUF(mapFile(model));
     const metadata = new Map(file.metadata);
     const wide = 104448;
     metadata.set('llama.feed_forward_length', wide);
     const tensors = [...file.tensors.values()].map(({ name, type, shape, data }) =>
       !name.includes('ffn_') || name.includes('norm') ? { name, type, shape, data: () => data() }
         : { name, type: 'q8_0', shape: name.includes('down') ? [128, wide] : [wide, 128],
             data: () => new Uint8Array(wide * 4 * 34) });
     const path = model + '.' + process.pid + '.tmp';
     await writeGGUF(path, { metadata, types: file.types, tensors });
     console.log(path);`,
  );
  const out = await script(
    'memory',
    `import { rmSync, statSync } from 'node:fs';
     const path = ${JSON.stringify(path)};
     try {
       // What a process needs for any model (compiled code, threads) is there before the measure begins.
       (await load(model)).forward([1, 2, 3]);
       const before = process.memoryUsage.rss();
       const decoder = await load(path, { pack: false });
       const grown = process.memoryUsage.rss() - before;
       const packed = await load(path);
       packed.forward([1]);
       const grownPacked = process.memoryUsage.rss() - before;
       console.log(JSON.stringify({ bytes: statSync(path).size, grown, grownPacked, logits: decoder.forward([1]).size }));
     } finally {
       rmSync(path);
     }`,
  );
  const { bytes, grown, grownPacked, logits } = JSON.parse(out) as Record<string, number>;
  expect(bytes).toBeGreaterThan(250e6);
  expect(grown).toBeLessThan(0.15 * (bytes as number));
  expect(grownPacked).toBeLessThan(1.15 * (bytes as number));
  expect(logits).toBe(1024);
});
