// Processes on emulated devices that fail, are too old, or order their work as they like.
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { root } from '../package/tree.js';

const emulated = (process.env.BITLOOM_CUDA_DRIVER ?? '').includes('emulated');

/** What a script prints that has the package as `b`, on an emulated device with these settings. */
function there(script: string, env: Record<string, string>): string[] {
  const source = `const b = require(${JSON.stringify(root)});
    const x = new b.Tensor('f32', [1, -2, 3, 0.5], [2, 2]);
    const say = (error) => console.log(error.code + ' ' + error.message);
    const attempt = (f) => { try { console.log(JSON.stringify(f())); } catch (error) { say(error); } };
    (async () => { ${script} })().catch(say);`;
  const result = spawnSync(process.execPath, ['-e', source], {
    env: { ...process.env, ...env },
    encoding: 'utf8',
    timeout: 60_000,
  });
  expect(result.signal).toBeNull();
  expect(result.status).toBe(0);
  return result.stdout.trim().split('\n');
}

describe.runIf(emulated)('exact memory', () => {
  it('is the size that was asked for, and of nobody else', () => {
    const lines = there(
      `const device = new b.Device('cuda:0');
       const numbers = () => { const i = device.info(); return [i.usedBytes, i.reservedBytes]; };
       const start = numbers();
       const five = b.Tensor.empty('u8', [5], 'cuda:0');
       const seven = b.Tensor.empty('u8', [7], 'cuda:0');
       console.log(JSON.stringify(numbers().map((n, i) => n - start[i])));
       five.dispose();
       console.log(JSON.stringify(numbers().map((n, i) => n - start[i])));
       const y = b.silu(await x.to('cuda:0'));
       console.log(y.toSync('cpu').toArray().length);`,
      { BITLOOM_CUDA_ALLOCATOR: 'exact' },
    );
    expect(lines).toEqual(['[12,12]', '[7,7]', '4']);
  });
});

describe.runIf(emulated)('failures', () => {
  it('out of memory is an error of the call, and nothing else', () => {
    const lines = there(
      `attempt(() => x.toSync('cuda:0').device);
       attempt(() => x.toSync('cuda:0').device);`,
      { BITLOOM_CUDA_EMULATION_FAIL: 'cuMemAlloc_v2:1=2,cuMemAlloc_v2:2=2' },
    );
    expect(lines[0]).toMatch(/^BL_OUT_OF_MEMORY cuda:0: no memory for 16 bytes: 0 in use/);
    expect(lines[1]).toBe('"cuda:0"');
  });

  it('a lost device says so until it is reset', () => {
    const lines = there(
      `const d = await x.to('cuda:0');
       const y = b.silu(d); // fails when it is executed
       await y.to('cpu').catch(say);
       attempt(() => b.silu(d));
       attempt(() => new b.Device('cuda:0').info().unusable);
       new b.Device('cuda:0').reset();
       attempt(() => b.silu(d));
       attempt(() => b.silu(x.toSync('cuda:0')).toSync('cpu').shape);
       y.dispose(); d.dispose();`,
      { BITLOOM_CUDA_EMULATION_FAIL: 'kernel:1=700' },
    );
    expect(lines[0]).toMatch(/^BL_DEVICE_LOST /);
    expect(lines[1]).toMatch(/^BL_DEVICE_LOST cuda:0.*reset/);
    expect(lines[2]).toMatch(/CUDA_ERROR_ILLEGAL_ADDRESS/);
    expect(lines[3]).toMatch(/^BL_DETACHED /);
    expect(lines[4]).toBe('[2,2]');
  });

  it.each([
    ['cuInit:1=100', /^BL_NOT_FOUND cuda:0: no device: cuInit .* CUDA_ERROR_NO_DEVICE/],
    ['cuDeviceGetCount:1+=999', /^BL_NOT_FOUND /],
    ['cuDevicePrimaryCtxRetain:1=2', /^BL_OUT_OF_MEMORY /],
    ['cuStreamCreate:1=2', /^BL_OUT_OF_MEMORY /],
    ['cuEventCreate:1=2', /^BL_OUT_OF_MEMORY /],
    ['cuMemHostAlloc:1=2', /^BL_OUT_OF_MEMORY /],
    ['cuMemcpyHtoDAsync_v2:1=1', /^BL_UNSUPPORTED .*cuMemcpyHtoDAsync/],
    ['cuEventRecord:1=1', /^BL_UNSUPPORTED /],
    ['cuModuleLoadData:1+=218', /^BL_UNSUPPORTED .*no image of module elementwise runs/],
    ['cuModuleGetFunction:1=500', /^BL_UNSUPPORTED /],
    ['cuLaunchKernel:1=701', /^BL_UNSUPPORTED /],
    ['cuMemcpyDtoHAsync_v2:1=1', /^BL_UNSUPPORTED /],
    ['cuLaunchHostFunc:1=1', /^BL_UNSUPPORTED /],
    ['cuStreamAddCallback:1=719', /^BL_DEVICE_LOST /],
  ])('%s is reported, and the process lives', (rule, expected) => {
    const lines = there(
      `const y = b.silu(await x.to('cuda:0'));
       console.log(JSON.stringify((await y.to('cpu')).shape));`,
      { BITLOOM_CUDA_EMULATION_FAIL: rule },
    );
    expect(lines[0]).toMatch(expected);
  });

  it('a copy that could not be followed leaves its source alone', () => {
    const lines = there(
      `const first = await x.to('cuda:0'); // the second event: of the next copy
       attempt(() => new b.Tensor('f32', [5, 6], [2]).toSync('cuda:0').device);
       const next = new b.Tensor('f32', [7, 8], [2]).toSync('cuda:0');
       attempt(() => next.toSync('cpu').toArray());
       attempt(() => first.toSync('cpu').toArray());`,
      { BITLOOM_CUDA_EMULATION: 'delay=5000', BITLOOM_CUDA_EMULATION_FAIL: 'cuEventRecord:2=1' },
    );
    expect(lines[0]).toMatch(/^BL_UNSUPPORTED cuda:0: cuMemcpyHtoDAsync/);
    expect(lines.slice(1)).toEqual(['[7,8]', '[1,-2,3,0.5]']);
  });

  it('a worker that ends before its work does takes nobody with it', () => {
    const worker = `const b = require(${JSON.stringify(root)});
      (async () => {
        const n = 1 << 20;
        const x = await new b.Tensor('f32', new Float32Array(n), [n]).to('cuda:0');
        for (;;) await Promise.race([x.to('cpu'), b.siluAsync(x), new b.Device('cuda:0').done()]);
      })();`;
    const lines = there(
      `const { Worker } = require('node:worker_threads');
       for (let i = 0; i < 6; i++) {
         const worker = new Worker(${JSON.stringify(worker)}, { eval: true });
         await new Promise((next) => setTimeout(next, 250 + 37 * i));
         await worker.terminate();
       }
       attempt(() => b.silu(x.toSync('cuda:0')).toSync('cpu').shape);`,
      {},
    );
    expect(lines).toEqual(['[2,2]']);
  });

  it('a device that is too old is named, and not used', () => {
    const lines = there(`attempt(() => b.devices()); attempt(() => x.toSync('cuda:0').device);`, {
      BITLOOM_CUDA_EMULATION_FAIL: 'cuDeviceGetAttribute:1+=1',
    });
    expect(lines[1]).toMatch(/^BL_UNSUPPORTED cuda:0/);
  });

  it.each(['arch=80', 'arch=90', 'arch=120,seed=7', 'arch=86,delivery=late,mma=8'])(
    'runs on %s',
    (setting) => {
      const lines = there(`attempt(() => b.silu(x.toSync('cuda:0')).toSync('cpu').toArray());`, {
        BITLOOM_CUDA_EMULATION: setting,
      });
      const [first] = JSON.parse(lines[0] as string) as number[];
      expect(first).toBeCloseTo(1 / (1 + Math.exp(-1)), 6);
    },
  );
});

describe.runIf(emulated)('memory of one stream in another', () => {
  // y waits on the device's stream, and reads what becomes z's memory meanwhile.
  it.each([1, 2, 3])('is not written before the first has read it (seed %d)', (seed) => {
    const lines = there(
      `const n = 1 << 16;
       const make = async (value) => new b.Tensor('f32', new Float32Array(n).fill(value), [n]).to('cuda:0');
       const [one, seven, stream] = [await make(1), await make(7), new b.Stream('cuda:0')];
       for (let i = 0; i < 10; i++) {
         const two = b.Tensor.empty('f32', [n], 'cuda:0');
         two.write(new Float32Array(n).fill(2));
         const y = b.add(one, two);
         two.dispose();
         const z = b.add(seven, seven, { stream });
         const values = y.toSync('cpu').toArray();
         stream.synchronize();
         console.log(values.every((value) => value === 3));
         y.dispose();
         z.dispose();
       }`,
      { BITLOOM_CUDA_EMULATION: `seed=${seed},delay=2000` },
    );
    expect(lines).toEqual(new Array(10).fill('true'));
  });
});

describe.runIf(emulated)('bitloom info', () => {
  const info = (env: Record<string, string>): string => {
    const { status, stdout } = spawnSync(
      process.execPath,
      [join(root, 'dist/esm/cli/main.js'), 'info'],
      { env: { ...process.env, ...env }, encoding: 'utf8' },
    );
    expect(status).toBe(0);
    return stdout;
  };
  it.each([
    [{}, /cuda:0 +Emulated sm_80 +8\.0 +4 +2\.15 GB +usable/],
    [{ BITLOOM_CUDA: 'off' }, /cuda +BITLOOM_CUDA is off/],
    [{ BITLOOM_CUDA_DRIVER: '/none.so' }, /cuda +no NVIDIA driver: \/none\.so: /],
    [{ BITLOOM_CUDA_DRIVER: 'libm.so.6' }, /libm\.so\.6 is too old: it has no cuInit/],
    [{ BITLOOM_CUDA_EMULATION: 'devices=0' }, /cuInit .*CUDA_ERROR_NO_DEVICE/],
    [
      { BITLOOM_CUDA_EMULATION: 'driver=12020' },
      /cuda:0 .*CUDA_ERROR_UNSUPPORTED_PTX_VERSION.* with a driver of CUDA 12\.2/,
    ],
    [
      { BITLOOM_CUDA_EMULATION_FAIL: 'cuDevicePrimaryCtxRetain:1+=2' },
      /cuda:0 +cuDevicePrimaryCtxRetain: CUDA_ERROR_OUT_OF_MEMORY/,
    ],
  ] as [Record<string, string>, RegExp][])('%o', (env, expected) => {
    expect(info(env)).toMatch(expected);
  });
});
