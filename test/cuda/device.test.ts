// Tensors, streams and graphs on a device.
import { spawnSync } from 'node:child_process';
import { describe, expect, it } from 'vitest';
import {
  add,
  attention,
  Device,
  devices,
  embedding,
  Graph,
  matmul,
  packWeights,
  type QuantizedTensor,
  quantize,
  Stream,
  sequence,
  silu,
  siluAsync,
  Tensor,
  whyNoDevice,
} from '../../lib/index.js';
import { native } from '../../lib/native.js';
import { root } from '../package/tree.js';

const cuda = 'cuda:0';
const code = (value: string) => expect.objectContaining({ code: value });
const numbers = (count: number) => Float32Array.from({ length: count }, (_, i) => (i % 37) - 18);

describe('devices', () => {
  it('refuses an option of attention that it has not, rather than leave it out', async () => {
    const rows = async (heads: number) =>
      new Tensor('f32', numbers(3 * heads * 8), [3, heads, 8]).to(cuda);
    const [q, k] = [await rows(2), await rows(1)];
    expect(() => attention(q, k, k, { rope: {} })).toThrow(code('BL_UNSUPPORTED'));
    expect(() => attention(q, k, k, { softCap: 20 })).toThrow(code('BL_UNSUPPORTED'));
    expect(attention(q, k, k, { causal: true }).shape).toEqual([3, 2, 8]);
  });

  it('are there, with what they are', () => {
    expect(whyNoDevice()).toBeUndefined();
    const [device] = devices();
    expect(device?.device).toBe(cuda);
    const info = (device as Device).info();
    expect(info.arch).toBeGreaterThanOrEqual(80);
    expect(info.memoryBytes).toBeGreaterThan(0);
    expect(info.unusable).toBeUndefined();
    expect(() => new Device('cuda:99').info()).toThrow(code('BL_NOT_FOUND'));
  });
});

describe('tensors', () => {
  it('go there and back, in any dtype, shape and size', async () => {
    for (const [dtype, data, shape] of [
      ['f32', numbers(6), [2, 3]],
      ['f16', Uint16Array.of(1, 2, 3), [3]],
      ['u8', Uint8Array.of(7), []],
      ['i32', new Int32Array(0), [0, 4]],
      ['f32', numbers(3_000_000), [3, 1_000_000]],
    ] as const) {
      const x = new Tensor(dtype, data, shape);
      const moved = await x.to(cuda);
      expect([moved.device, moved.dtype, moved.shape]).toEqual([cuda, dtype, shape]);
      const back = await moved.to('cpu');
      expect(Buffer.compare(back.bytes, x.bytes.subarray(0, back.bytes.byteLength))).toBe(0);
      expect(Buffer.compare(moved.toSync('cpu').bytes, back.bytes)).toBe(0);
      expect(await moved.to(cuda)).toBe(moved);
      moved.dispose();
    }
  });

  it('keep their strides, and can be cut and reshaped there', async () => {
    const x = new Tensor('f32', numbers(24), [2, 3], { strides: [12, 2] });
    const moved = await x.to(cuda);
    expect(moved.toSync('cpu').toArray()).toEqual(x.toArray());
    expect(moved.slice(1, 2).toSync('cpu').toArray()).toEqual(x.slice(1, 2).toArray());
    const flat = await new Tensor('f32', numbers(24), [4, 6]).to(cuda);
    expect(flat.reshape([24]).slice(20, 24).toSync('cpu').toArray()).toEqual(
      [...numbers(24)].slice(20),
    );
    expect(flat.slice(4, 4).toSync('cpu').toArray()).toEqual([]);
  });

  it('do not show their data here, and nothing after dispose', async () => {
    const moved = await new Tensor('f32', numbers(4), [4]).to(cuda);
    expect(() => moved.data).toThrow(code('BL_UNSUPPORTED'));
    expect(() => moved.toArray()).toThrow(/on cuda:0; copy it with to\('cpu'\)/);
    const part = moved.slice(2, 4);
    moved.dispose();
    expect(() => silu(moved)).toThrow(code('BL_DETACHED'));
    await expect(moved.to('cpu')).rejects.toThrow(code('BL_DETACHED'));
    expect(part.toSync('cpu').toArray()).toEqual([-16, -15]); // its own hold on the memory
  });

  it('meet only their like in a call', async () => {
    const x = new Tensor('f32', numbers(4), [4]);
    const moved = await x.to(cuda);
    expect(() => native.add(...raw(moved), ...raw(x), ...raw(moved), undefined)).toThrow(
      'add: right is on cpu, expected cuda:0 (where left is)',
    );
    expect(() => native.silu(...raw(x), ...raw(moved), undefined)).toThrow(
      'silu: output is on cuda:0, expected cpu (where x is)',
    );
  });

  it('written anew are read anew', async () => {
    const moved = await new Tensor('f32', numbers(4), [4]).to(cuda);
    moved.write(Float32Array.of(9, 8));
    expect(moved.toSync('cpu').toArray()).toEqual([9, 8, -16, -15]);
    expect(() => moved.write(new Float32Array(5))).toThrow(code('BL_BUFFER_TOO_SMALL'));
  });

  it('weights go there and back', async () => {
    const w = quantize(new Tensor('f32', numbers(64 * 96), [64, 96]), 'u4_g32');
    for (const from of [w, packWeights(w, { for: 'cuda' })]) {
      const moved = await from.to(cuda);
      expect([moved.device, moved.layout, moved.bits]).toEqual([cuda, from.layout, from.bits]);
      expect(() => moved.bytes).toThrow(code('BL_UNSUPPORTED'));
      const back = await moved.to('cpu');
      expect(Buffer.compare(back.bytes, from.bytes)).toBe(0);
    }
  });
});

const raw = (tensor: Tensor) => [tensor.nativeMemory, tensor.descriptor] as const;

describe('work', () => {
  it('async calls settle when it is done, sequences in order', async () => {
    const x = await new Tensor('f32', numbers(8), [8]).to(cuda);
    const once = silu(x).toSync('cpu').toArray();
    expect((await siluAsync(x)).toSync('cpu').toArray()).toEqual(once);
    const twice = await sequence(() => add(silu(x), silu(x)));
    expect(twice.toSync('cpu').toArray()).toEqual(once.map((value) => Math.fround(2 * value)));
  });

  it('of several streams is ordered by wait', async () => {
    const a = new Stream(cuda);
    const b = new Stream(cuda);
    const x = await new Tensor('f32', numbers(1000), [1000]).to(cuda);
    const out = Tensor.empty('f32', [1000], cuda);
    const last = Tensor.empty('f32', [1000], cuda);
    silu(x, { out, stream: a });
    b.wait(a);
    silu(out, { out: last, stream: b });
    await b.done();
    const expected = silu(silu(x)).toSync('cpu').toArray();
    expect(last.toSync('cpu').toArray()).toEqual(expected);
    expect(() => silu(new Tensor('f32', [1], [1]), { stream: a })).toThrow(
      /stream is not of the device/,
    );
    a.synchronize();
    expect(() => silu(x, { stream: {} as Stream })).toThrow(
      /stream is an Object, expected a Stream/,
    );
  });

  it('is recorded into a graph and run again on new values', async () => {
    const x = await new Tensor('f32', numbers(8), [8]).to(cuda);
    const out = Tensor.empty('f32', [8], cuda);
    const graph = new Graph(cuda, () => {
      const half = silu(x);
      return add(half, half, { out });
    });
    for (const value of [1, -3]) {
      x.write(new Float32Array(8).fill(value));
      graph.launch();
      const expected = Math.fround((2 * value) / (1 + Math.exp(-value)));
      for (const actual of out.toSync('cpu').toArray()) expect(actual).toBeCloseTo(expected, 6);
    }
    // A copy from the host can not be kept; afterwards the stream works as before.
    expect(() => new Graph(cuda, () => x.write(new Float32Array(8)))).toThrow(
      code('BL_UNSUPPORTED'),
    );
    expect(silu(x).toSync('cpu').toArray()).toHaveLength(8);
  });

  it('of other threads runs while a graph is recorded, and is no part of it', async () => {
    const x = await new Tensor('f32', numbers(8), [8]).to(cuda);
    const outs = Array.from({ length: 20 }, () => Tensor.empty('f32', [8], cuda));
    const pending = outs.map((out) => siluAsync(x, { out }));
    const out = Tensor.empty('f32', [8], cuda);
    const graph = new Graph(cuda, () => add(silu(x), x, { out }));
    const expected = silu(x).toSync('cpu').toArray();
    await Promise.all(pending);
    for (const y of outs) expect(y.toSync('cpu').toArray()).toEqual(expected);
    for (const y of outs) y.write(new Float32Array(8));
    graph.launch();
    expect(out.toSync('cpu').toArray()).toEqual(add(silu(x), x).toSync('cpu').toArray());
    for (const y of outs) expect(y.toSync('cpu').toArray()).toEqual(new Array(8).fill(0));
  });

  it('in a graph keeps the memory it made until the graph is disposed of', async () => {
    const device = new Device(cuda);
    const x = await new Tensor('f32', numbers(8), [8]).to(cuda);
    const out = Tensor.empty('f32', [8], cuda);
    const before = device.info().usedBytes;
    const graph = new Graph(cuda, () => {
      const half = silu(x);
      add(half, half, { out });
      half.dispose();
    });
    const others = Array.from({ length: 50 }, () => Tensor.empty('f32', [8], cuda));
    for (const other of others) other.write(new Float32Array(8).fill(99));
    graph.launch();
    for (const other of others) {
      expect(other.toSync('cpu').toArray()).toEqual(new Array(8).fill(99));
      other.dispose();
    }
    expect(out.toSync('cpu').toArray()).toEqual(add(silu(x), silu(x)).toSync('cpu').toArray());
    graph.dispose();
    graph.dispose();
    expect(() => graph.launch()).toThrow(code('BL_DETACHED'));
    expect(device.info().usedBytes).toBeLessThanOrEqual(before + 4096); // the results of silu and add above
    const nested = () => new Graph(cuda, () => new Graph(cuda, () => silu(x)));
    expect(nested).toThrow('Graph: graphs can not be nested');
    expect(() => new Graph(cuda, () => out.toSync('cpu'))).toThrow(code('BL_UNSUPPORTED'));
    expect(silu(x).toSync('cpu').toArray()).toHaveLength(8);
  });

  it('in a graph keeps tables that operators bring along, and shares scratch memory', async () => {
    const device = new Device(cuda);
    const table = (sign: number) => Float32Array.from({ length: 32 }, (_, i) => sign * (i - 15));
    const weights = [1, -1].map((sign) =>
      quantize(new Tensor('f32', numbers(256 * 512), [256, 512]), 'cb5_g64', {
        codebook: table(sign),
      }),
    );
    const ids = await new Tensor('i32', Int32Array.of(3, 0), [2]).to(cuda);
    const embeddings = await (weights[0] as QuantizedTensor).to(cuda);
    const moved = await Promise.all(weights.map((w) => packWeights(w, { for: 'cuda' }).to(cuda)));
    const x = await new Tensor('f32', numbers(2 * 512), [2, 512]).to(cuda);
    const outs = [256, 256, 256, 512].map((n) => Tensor.empty('f32', [2, n], cuda));
    const run = () => {
      for (const [i, w] of [...moved, ...moved.slice(0, 1)].entries()) {
        matmul(x, w, { out: outs[i] as Tensor<'f32'> });
      }
      embedding(embeddings, ids, { out: outs[3] as Tensor<'f32'> });
    };
    const read = () => outs.map((out) => out.toSync('cpu').toArray());
    run();
    const before = device.info().usedBytes;
    const graph = new Graph(cuda, run);
    // Weights as f16, of one product at a time.
    expect(device.info().usedBytes - before).toBeLessThan(2 * 256 * 512 * 2);
    for (const start of [1, 100]) {
      x.write(numbers(2 * 512).map((value, i) => value + start * i));
      const other = Tensor.empty('u8', [1 << 16], cuda); // memory that was the tables'
      other.write(new Uint8Array(1 << 16).fill(255));
      run();
      const expected = read();
      for (const out of outs) out.write(new Float32Array(out.size));
      graph.launch();
      expect(read()).toEqual(expected);
      other.dispose();
    }
    graph.dispose();
    expect(device.info().usedBytes).toBeLessThanOrEqual(before);
  });

  it('an error while a graph is recorded is told, and gives memory back', async () => {
    const device = new Device(cuda);
    const x = await new Tensor('f32', numbers(512), [1, 512]).to(cuda);
    const weights = quantize(new Tensor('f32', numbers(64 * 512), [64, 512]), 'bf16');
    const w = await packWeights(weights, { for: 'cuda' }).to(cuda);
    const out = Tensor.empty('f32', [1, 64], cuda);
    const before = device.info().usedBytes;
    const failing = () => {
      matmul(x, w, { out });
      throw new Error('mine');
    };
    expect(() => new Graph(cuda, failing)).toThrow('mine');
    expect(device.info().usedBytes).toBe(before);
    expect(matmul(x, w).toSync('cpu').size).toBe(64);
  });

  it('takes time, which is measured there', async () => {
    const x = await new Tensor('f32', numbers(1000), [1000]).to(cuda);
    expect(await new Device(cuda).time(() => silu(x))).toBeGreaterThan(0);
  });
});

describe('memory', () => {
  it('is used again, counted and limited', async () => {
    const device = new Device(cuda);
    const bytes = 24 << 20;
    const big = () => Tensor.empty('u8', [bytes], cuda);
    big().dispose();
    const before = device.info();
    for (let i = 0; i < 10; i++) big().dispose();
    const after = device.info();
    expect(after.driverCalls).toBe(before.driverCalls);
    expect(after.allocations).toBe(before.allocations + 10);
    expect([after.usedBytes, after.reservedBytes]).toEqual([
      before.usedBytes,
      before.reservedBytes,
    ]);
    const held = big();
    expect(device.info().usedBytes).toBe(before.usedBytes + bytes);
    held.dispose();
    device.setMemoryLimit(before.usedBytes + (8 << 20));
    expect(device.info().reservedBytes).toBeLessThan(before.reservedBytes);
    expect(big).toThrow(code('BL_OUT_OF_MEMORY'));
    device.setMemoryLimit(0);
    big().dispose();
  });
});

it('the bench of products runs', () => {
  const args = ['bench/cuda.mjs', '--tiny', '--formats', 'u4_g128'];
  const { status, stdout } = spawnSync(process.execPath, args, { cwd: root, encoding: 'utf8' });
  expect(status).toBe(0);
  expect(stdout.match(/^u4_g128 +128x256 +(1|8|16) +[0-9.]+ /gm)).toHaveLength(3);
});
