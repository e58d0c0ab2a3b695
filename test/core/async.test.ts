import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { Worker } from 'node:worker_threads';
import { describe, expect, it } from 'vitest';
import {
  add,
  matmul,
  matmulAsync,
  QuantizedTensor,
  quantize,
  sequence,
  silu,
  Tensor,
} from '../../lib/index.js';
import { compileLibrary } from '../compiled.js';
import { gaussian } from '../reference/random.js';

const n = 512;
const weights = quantize(new Tensor('f32', gaussian(n * n, 1), [n, n]), 'q4_0');
const activations = new Tensor('f32', gaussian(64 * n, 2), [64, n]);

describe('async operators', () => {
  it('leave the event loop free', async () => {
    let ticks = 0;
    const timer = setInterval(() => ticks++, 1);
    await Promise.all(
      Array.from({ length: 8 }, () => matmulAsync(activations, weights, { isa: 'scalar' })),
    );
    clearInterval(timer);
    expect(ticks).toBeGreaterThan(10);
  });

  it('run many at once, each as if alone', async () => {
    const expected = matmul(activations, weights).bytes;
    const results = await Promise.all(
      Array.from({ length: 12 }, () => matmulAsync(activations, weights)),
    );
    for (const result of results) expect(Buffer.compare(result.bytes, expected)).toBe(0);
  });

  it('reject with the same error as the sync function throws', async () => {
    const bad = Tensor.zeros('f32', [1, 5]);
    await expect(matmulAsync(bad, weights)).rejects.toMatchObject({
      code: 'BL_INVALID_SHAPE',
      message: 'matmul: b.cols is 512, expected 5 (= a.shape[1])',
    });
  });

  it('stop for an AbortSignal: before the start, and between the operators of a sequence', async () => {
    const reason = new Error('enough');
    await expect(
      matmulAsync(activations, weights, { signal: AbortSignal.abort(reason) }),
    ).rejects.toBe(reason);
    const controller = new AbortController();
    const last = Tensor.zeros('f32', [64, n]);
    const running = sequence(
      () => {
        for (let i = 0; i < 200; i++) matmul(activations, weights, { isa: 'scalar' });
        matmul(activations, weights, { out: last });
      },
      { signal: controller.signal },
    );
    setTimeout(() => controller.abort(reason), 20);
    await expect(running).rejects.toBe(reason);
    expect(last.toArray().every((value) => value === 0)).toBe(true);
  });

  it('keep the memory they use when its buffer is transferred away and collected', async () => {
    const expected = matmul(activations, weights, { isa: 'scalar' }).bytes;
    for (let round = 0; round < 5; round++) {
      const memory = new Uint8Array(weights.bytes);
      const own = new QuantizedTensor('q4_0', memory, [n, n]);
      const pending = matmulAsync(activations, own, { isa: 'scalar' });
      structuredClone(memory.buffer, { transfer: [memory.buffer] });
      expect(memory.byteLength).toBe(0);
      const junk = Array.from({ length: 50 }, () => new Uint8Array(1 << 20).fill(255));
      expect(junk.length).toBe(50);
      const result = await pending;
      expect(Buffer.compare(result.bytes, expected)).toBe(0);
    }
  });

  it('refuse a resizable buffer, which could lose its memory under them', async () => {
    const Resizable = ArrayBuffer as unknown as new (size: number, options: object) => ArrayBuffer;
    const memory = new Resizable(4 * n, { maxByteLength: 8 * n });
    const a = new Tensor('f32', memory, [1, n]);
    expect(matmul(a, weights).shape).toEqual([1, n]);
    await expect(matmulAsync(a, weights)).rejects.toMatchObject({ code: 'BL_UNSUPPORTED' });
  });
});

describe('sequence', () => {
  it('runs what it recorded in order, and gives what the calls give', async () => {
    const x = new Tensor('f32', gaussian(n, 3), [1, n]);
    const y = await sequence(() => add(matmul(silu(x), weights), x));
    expect(y.toArray()).toEqual(add(matmul(silu(x), weights), x).toArray());
  });

  it('refuses nesting and async bodies, and records nothing after a throw', async () => {
    await expect(sequence(() => sequence(() => 1))).rejects.toMatchObject({
      code: 'BL_INVALID_ARGUMENT',
    });
    await expect(sequence(async () => 1)).rejects.toMatchObject({ code: 'BL_INVALID_ARGUMENT' });
    await expect(
      sequence(() => {
        throw new Error('mine');
      }),
    ).rejects.toThrow('mine');
    expect(silu(new Tensor('f32', [0], [1])).toArray()).toEqual([0]);
  });

  it('stops at the first call that fails', async () => {
    const bad = Tensor.zeros('f32', [1, 5]);
    const after = new Tensor('f32', [1], [1]);
    await expect(
      sequence(() => {
        matmul(bad, weights);
        silu(after, { out: after });
      }),
    ).rejects.toMatchObject({ code: 'BL_INVALID_SHAPE' });
    expect(after.toArray()).toEqual([1]);
  });
});

describe('worker threads', () => {
  it('compute on shared memory, and may be ended while they do', async () => {
    const library = compileLibrary();
    const code = `
      const { parentPort, workerData } = require('node:worker_threads');
      (async () => {
      const { matmulAsync, QuantizedTensor, Tensor } = await import(workerData.library);
      const weights = new QuantizedTensor('q4_0', workerData.weights, [${n}, ${n}]);
      const a = new Tensor('f32', workerData.activations, [64, ${n}]);
      const out = new Tensor('f32', workerData.out, [64, ${n}]);
        await matmulAsync(a, weights, { out });
        parentPort.postMessage('done');
        for (;;) await matmulAsync(a, weights, { isa: 'scalar' });
      })();`;
    const out = new SharedArrayBuffer(64 * n * 4);
    for (let i = 0; i < 3; i++) {
      const worker = new Worker(code, {
        eval: true,
        workerData: {
          library: pathToFileURL(join(library.folder, 'index.js')).href,
          weights: weights.bytes,
          activations: activations.bytes,
          out,
        },
      });
      await new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject));
      await worker.terminate();
    }
    library.remove();
    const expected = matmul(activations, weights).bytes;
    expect(Buffer.compare(new Uint8Array(out), expected)).toBe(0);
  });
});
