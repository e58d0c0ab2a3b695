// Devices where there is none; what needs one is tested in test/cuda.
import { spawnSync } from 'node:child_process';
import { describe, expect, it } from 'vitest';
import { Device, Graph, Stream, silu, Tensor } from '../../lib/index.js';
import { root } from '../package/tree.js';

const code = (value: string) => expect.objectContaining({ code: value });

/** Standard output of a script that has the package as `b`, in a process with these variables. */
function output(script: string, env: Record<string, string>): string {
  const source = `const b = require(${JSON.stringify(root)}); ${script}`;
  const { status, stdout, stderr } = spawnSync(process.execPath, ['-e', source], {
    env: { ...process.env, ...env },
    encoding: 'utf8',
  });
  expect(stderr).toBe('');
  expect(status).toBe(0);
  return stdout.trim();
}

describe('no device', () => {
  it('is an empty list, with the reason', () => {
    const script = 'console.log(JSON.stringify([b.devices(), b.whyNoDevice()]))';
    expect(output(script, { BITLOOM_CUDA: 'off' })).toBe('[[],"BITLOOM_CUDA is off"]');
    const there = JSON.parse(output(script, { BITLOOM_CUDA_DRIVER: '/no/such/libcuda.so' }));
    expect(there[0]).toEqual([]);
    expect(there[1]).toMatch(/no NVIDIA driver: .*libcuda\.so|built without CUDA/);
  });

  it('is a clear error where one is named', () => {
    const script = `
      const x = new b.Tensor('f32', [1], [1]);
      const say = (error) => console.log(error.code, error.message);
      for (const run of [() => x.toSync('cuda:0'), () => new b.Stream(), () => new b.Device('cuda:3').info()])
        try { run(); } catch (error) { say(error); }
      x.to('cuda:0').catch(say);`;
    const lines = output(script, { BITLOOM_CUDA: 'off' }).split('\n');
    expect(lines).toHaveLength(4);
    for (const line of lines) {
      expect(line).toMatch(/^BL_NOT_FOUND cuda:[03]: no device: BITLOOM_CUDA is off$/);
    }
  });

  it('a name that is none is refused', async () => {
    const x = new Tensor('f32', [1], [1]);
    for (const name of ['gpu', 'cuda', 'cuda:-1', 'cuda:x', '', 'CUDA:0']) {
      await expect(x.to(name as 'cuda:0')).rejects.toThrow(code('BL_INVALID_ARGUMENT'));
      expect(() => x.toSync(name as 'cuda:0')).toThrow(code('BL_INVALID_ARGUMENT'));
      expect(() => new Device(name as 'cuda:0')).toThrow(code('BL_INVALID_ARGUMENT'));
      expect(() => new Stream(name as 'cuda:0')).toThrow(code('BL_INVALID_ARGUMENT'));
      expect(() => new Graph(name as 'cuda:0', () => silu(x))).toThrow(code('BL_INVALID_ARGUMENT'));
    }
  });

  it('the processor is where tensors are', async () => {
    const x = new Tensor('f32', [1, 2], [2]);
    expect(x.device).toBe('cpu');
    expect(await x.to('cpu')).toBe(x);
    expect(x.toSync('cpu')).toBe(x);
    x.write(Float32Array.of(3, 4));
    expect(x.toArray()).toEqual([3, 4]);
    expect(() => x.write(new Float32Array(3))).toThrow(code('BL_BUFFER_TOO_SMALL'));
  });
});
