import { describe, expect, it } from 'vitest';
import {
  add,
  matmul,
  matmulAsync,
  QuantizedTensor,
  quantize,
  RecordedSequence,
  sequence,
  silu,
  Tensor,
} from '../../lib/index.js';
import { native } from '../../lib/native.js';
import { gaussian } from '../reference/random.js';

const n = 256;
const weights = quantize(new Tensor('f32', gaussian(n * n, 1), [n, n]), 'q4_0');
const code = (value: string) => expect.objectContaining({ code: value });

describe('RecordedSequence', () => {
  it('runs when told, each time with the values that its tensors have then', async () => {
    const x = new Tensor('f32', gaussian(n, 3), [1, n]);
    const recorded = new RecordedSequence(() => add(matmul(silu(x), weights), x));
    expect(recorded.result.toArray()).toEqual(new Array(n).fill(0));
    for (let seed = 4; seed < 10; seed++) {
      x.write(gaussian(n, seed));
      if (seed % 2 === 0) recorded.run();
      else await recorded.runAsync();
      expect(recorded.result.toArray()).toEqual(add(matmul(silu(x), weights), x).toArray());
    }
  });

  it('records nothing after a throw, and refuses nesting and async bodies', async () => {
    const own = () => {
      throw new Error('mine');
    };
    expect(() => new RecordedSequence(own)).toThrow('mine');
    expect(() => new RecordedSequence(async () => 1)).toThrow(code('BL_INVALID_ARGUMENT'));
    expect(() => new RecordedSequence(() => new RecordedSequence(() => 1))).toThrow(
      'RecordedSequence: sequences can not be nested',
    );
    await expect(sequence(() => new RecordedSequence(() => 1))).rejects.toEqual(
      code('BL_INVALID_ARGUMENT'),
    );
    expect(silu(new Tensor('f32', [0], [1])).toArray()).toEqual([0]);
    const none = new RecordedSequence(() => 'nothing');
    none.run();
    await none.runAsync();
    expect(none.result).toBe('nothing');
  });

  it('stops at the first call that fails, in every run', async () => {
    const bad = Tensor.zeros('f32', [1, 5]);
    const after = new Tensor('f32', [1], [1]);
    const recorded = new RecordedSequence(() => {
      matmul(bad, weights);
      silu(after, { out: after });
    });
    const error = {
      code: 'BL_INVALID_SHAPE',
      message: `matmul: b.cols is ${n}, expected 5 (= a.shape[1])`,
    };
    for (let i = 0; i < 2; i++) {
      expect(() => recorded.run()).toThrow(expect.objectContaining(error));
      await expect(recorded.runAsync()).rejects.toMatchObject(error);
    }
    expect(after.toArray()).toEqual([1]);
  });

  it('stops for an AbortSignal between two operators, and can be run again', async () => {
    const x = new Tensor('f32', gaussian(64 * n, 2), [64, n]);
    const last = Tensor.zeros('f32', [64, n]);
    const recorded = new RecordedSequence(() => {
      for (let i = 0; i < 40; i++) matmul(x, weights, { isa: 'scalar' });
      matmul(x, weights, { out: last });
    });
    const reason = new Error('enough');
    const options = { signal: AbortSignal.abort(reason) };
    await expect(recorded.runAsync(options)).rejects.toBe(reason);
    const controller = new AbortController();
    const running = recorded.runAsync({ signal: controller.signal });
    setTimeout(() => controller.abort(reason), 10);
    await expect(running).rejects.toBe(reason);
    expect(last.toArray().every((value) => value === 0)).toBe(true);
    await recorded.runAsync({ signal: new AbortController().signal });
    expect(last.toArray()).toEqual(matmul(x, weights).toArray());
  });

  it('keeps the memory it had when buffers are transferred away', async () => {
    const memory = new Uint8Array(weights.bytes);
    const own = new QuantizedTensor('q4_0', memory, [n, n]);
    const x = new Tensor('f32', gaussian(n, 3), [1, n]);
    const recorded = new RecordedSequence(() => matmul(x, own));
    structuredClone(memory.buffer, { transfer: [memory.buffer] });
    const junk = Array.from({ length: 50 }, () => new Uint8Array(1 << 20).fill(255));
    expect(junk.length).toBe(50);
    recorded.run();
    expect(recorded.result.toArray()).toEqual((await matmulAsync(x, weights)).toArray());
  });

  it('refuses a resizable buffer', () => {
    const Resizable = ArrayBuffer as unknown as new (size: number, options: object) => ArrayBuffer;
    const memory = new Resizable(4 * n, { maxByteLength: 8 * n });
    const a = new Tensor('f32', memory, [1, n]);
    expect(() => new RecordedSequence(() => matmul(a, weights))).toThrow(code('BL_UNSUPPORTED'));
  });

  it('runs no more after dispose(), but for what is under way', async () => {
    const x = new Tensor('f32', gaussian(64 * n, 2), [64, n]);
    const recorded = new RecordedSequence(() => matmul(x, weights, { isa: 'scalar' }));
    const running = recorded.runAsync();
    recorded.dispose();
    recorded.dispose();
    expect(() => recorded.run()).toThrow(code('BL_DETACHED'));
    await expect(recorded.runAsync()).rejects.toEqual(code('BL_DETACHED'));
    await running;
    expect(recorded.result.toArray()).toEqual(matmul(x, weights, { isa: 'scalar' }).toArray());
  });

  it('survives whatever else is passed to the addon', () => {
    for (const value of [undefined, 7, {}, [], new Float32Array(1), () => 1]) {
      for (const name of ['runRecorded', 'freeRecorded'] as const) {
        expect(() => native[name](value as never)).toThrow(code('BL_INVALID_ARGUMENT'));
      }
    }
    expect(() => native.recordCalls(7 as never)).toThrow(code('BL_INVALID_ARGUMENT'));
    expect(() => native.recordCalls([[1e9]])).toThrow(code('BL_INVALID_ARGUMENT'));
    const freed = native.recordCalls([]);
    native.freeRecorded(freed);
    native.freeRecorded(freed);
    expect(() => native.runRecorded(freed)).toThrow(code('BL_DETACHED'));
  });
});
