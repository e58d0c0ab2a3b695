import { describe, expect, it } from 'vitest';
import { type Format, quantize, Tensor } from '../../lib/index.js';
import { Linear, MLP, RMSNorm } from '../../lib/nn/index.js';
import { SharedInput, SharedInputMemory } from '../../lib/nn/shared_input.js';
import { gaussian } from '../reference/random.js';

const [hidden, intermediate] = [96, 160];

const layer = (format: Format, n: number, k: number, seed: number): Linear =>
  new Linear(quantize(new Tensor('f32', gaussian(n * k, seed), [n, k]), format));

const bits = (tensor: Tensor<'f32'>): Buffer =>
  Buffer.from(tensor.data.buffer, tensor.data.byteOffset, tensor.data.byteLength);

describe('SharedInput', () => {
  it.each(['q4_0', 'u2_g32', 'i1_g32', 't2_g32', 'q8_0'] as const)(
    'gives the bits of each layer by itself: %s',
    (format) => {
      const norm = new RMSNorm(new Tensor('f32', gaussian(hidden, 1), [hidden]), { epsilon: 1e-6 });
      const layers = [layer(format, 48, hidden, 2), layer(format, 33, hidden, 3)];
      const input = new SharedInput(layers);
      const memory = new SharedInputMemory();
      for (const rows of [1, 3]) {
        const x = new Tensor('f32', gaussian(rows * hidden, 4), [rows, hidden]);
        const { weight, epsilon } = norm;
        const prepared = input.prepare(x, memory, { norm: { weight, epsilon } });
        if (prepared === undefined) return expect.fail(`${format}: nothing is shared`);
        for (const one of layers) {
          expect(bits(one.forward(prepared)).equals(bits(one.forward(norm.forward(x))))).toBe(true);
        }
      }
    },
  );

  it('is not used where a layer computes in floats, or without memory', () => {
    const x = new Tensor('f32', gaussian(hidden, 4), [1, hidden]);
    const mixed = new SharedInput([layer('q4_0', 48, hidden, 2), layer('nf4_g64', 48, hidden, 3)]);
    expect(mixed.prepare(x, new SharedInputMemory())).toBeUndefined();
    expect(new SharedInput([layer('q4_0', 48, hidden, 2)]).prepare(x, undefined)).toBeUndefined();
  });

  it('takes the same memory again for the same size', () => {
    const memory = new SharedInputMemory();
    expect(memory.take(1, 64, 1)).toBe(memory.take(1, 64, 1));
    expect(memory.take(1, 64, 1)).not.toBe(memory.take(2, 64, 1));
  });

  it('an MLP with memory has the bits of one without, and adds the residual', () => {
    const mlp = new MLP(
      layer('q4_0', intermediate, hidden, 5),
      layer('u2_g32', intermediate, hidden, 6),
      layer('q8_0', hidden, intermediate, 7),
    );
    for (const rows of [1, 2, 40]) {
      const x = new Tensor('f32', gaussian(rows * hidden, 8), [rows, hidden]);
      const plain = mlp.forward(x);
      const zeros = () => Tensor.zeros('f32', [rows, intermediate]);
      const scratch = { gate: zeros(), up: zeros(), prepared: new SharedInputMemory() };
      const out = Tensor.zeros('f32', [rows, hidden]);
      expect(bits(mlp.forward(x, out, scratch)).equals(bits(plain))).toBe(true);
      const sum = mlp.forward(x, undefined, scratch, x);
      const expected = plain.data.map((value, i) => Math.fround(value + (x.data[i] as number)));
      expect(bits(sum).equals(Buffer.from(expected.buffer))).toBe(true);
    }
  });
});
