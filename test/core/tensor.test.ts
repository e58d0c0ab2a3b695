import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { add, QuantizedTensor, Tensor } from '../../lib/index.js';
import { native } from '../../lib/native.js';
import { bfloatToNumber, halfToNumber } from '../reference/small_floats.js';

const error = (code: string, message?: string) =>
  expect.objectContaining(message === undefined ? { code } : { code, message });

describe('Tensor', () => {
  it('makes memory that begins at a cache line, and no more of it than asked for', () => {
    for (const count of [1024, 1025, 5000, 100_003, 3_000_000]) {
      const zeros = Tensor.zeros('f32', [count]);
      expect(native.addressInPage(zeros.bytes) % 64).toBe(0);
      expect(zeros.bytes.byteLength).toBe(4 * count);
      expect(zeros.data.every((x) => x === 0)).toBe(true);
      const weights = QuantizedTensor.empty('q8_0', [count, 32]);
      expect(native.addressInPage(weights.bytes) % 64).toBe(0);
      expect(weights.bytes.byteLength).toBe(34 * count);
      const memory = zeros.bytes;
      zeros.dispose();
      expect(memory.byteLength).toBe(0);
    }
  });

  it('lies over typed arrays, buffers and views of any offset without copying', () => {
    const values = Float32Array.of(1, 2, 3, 4, 5, 6);
    const over = new Tensor('f32', values, [2, 3]);
    values[4] = 50;
    expect(over.toArray()).toEqual([1, 2, 3, 4, 50, 6]);
    over.data[0] = -1;
    expect(values[0]).toBe(-1);
    const shared = new Tensor('i32', new SharedArrayBuffer(12), [3]);
    shared.data[1] = 7;
    expect(shared.toArray()).toEqual([0, 7, 0]);
    const odd = Buffer.alloc(13).subarray(1);
    odd.writeFloatLE(2.5, 4);
    const unaligned = new Tensor('f32', odd, [3]);
    expect(unaligned.toArray()).toEqual([0, 2.5, 0]);
    expect(() => unaligned.data).toThrow(error('BL_UNSUPPORTED'));
    expect(add(unaligned, unaligned).toArray()).toEqual([0, 5, 0]);
    const view = new Tensor('u8', new DataView(new ArrayBuffer(8), 2, 4), [4]);
    expect(view.bytes.byteOffset).toBe(2);
    expect(new Tensor('f32', values.buffer, [6]).toArray()[4]).toBe(50);
  });

  it('takes the names of ONNX Runtime', () => {
    expect(new Tensor('float32', [1], [1]).dtype).toBe('f32');
    expect(Tensor.zeros('bfloat16', [2]).dtype).toBe('bf16');
  });

  it('rounds numbers to f16 and bf16 to nearest even', () => {
    for (const [dtype, decode] of [
      ['f16', halfToNumber],
      ['bf16', bfloatToNumber],
    ] as const) {
      const all = Array.from({ length: 65536 }, (_, bits) => bits);
      const numbers = all.map(decode);
      const bits = new Tensor(dtype, numbers, [65536]).data;
      all.forEach((code, i) => {
        if (Number.isNaN(numbers[i])) expect(Number.isNaN(decode(bits[i] as number))).toBe(true);
        else if (bits[i] !== code)
          expect.fail(`${dtype}: ${numbers[i]} is ${code}, got ${bits[i]}`);
      });
      // Between two neighbours: the nearer one, or the even one.
      fc.assert(
        fc.property(
          fc.integer({ min: 0, max: 0x7bfe }),
          fc.double({ min: 0, max: 1, noNaN: true }),
          (code, part) => {
            const [low, high] = [decode(code), decode(code + 1)];
            const value = low + (high - low) * part;
            const expected =
              value - low < high - value || (value - low === high - value && code % 2 === 0)
                ? code
                : code + 1;
            expect(new Tensor(dtype, [value], [1]).data[0]).toBe(expected);
          },
        ),
      );
    }
  });

  it('slices, reshapes and reads strided views of the same memory', () => {
    const t = new Tensor('f32', [0, 1, 2, 3, 4, 5, 6, 7], [4, 2]);
    expect(t.slice(1, 3).toArray()).toEqual([2, 3, 4, 5]);
    expect(t.slice(4, 4).shape).toEqual([0, 2]);
    expect(t.reshape([2, 4]).shape).toEqual([2, 4]);
    const columns = new Tensor('f32', t.bytes, [2, 4], { strides: [1, 2] });
    expect(columns.toArray()).toEqual([0, 2, 4, 6, 1, 3, 5, 7]);
    expect(columns.contiguous).toBe(false);
    expect(() => columns.reshape([8])).toThrow(error('BL_INVALID_SHAPE'));
    expect(() => t.slice(2, 5)).toThrow(error('BL_OUT_OF_RANGE'));
    expect(() => t.reshape([3])).toThrow(error('BL_INVALID_SHAPE'));
  });

  it.each([
    ['BL_INVALID_DTYPE', () => new Tensor('f64' as 'f32', [1], [1])],
    ['BL_INVALID_DTYPE', () => new Tensor('constructor' as 'f32', [1], [1])],
    ['BL_INVALID_DTYPE', () => new Tensor('f32', new Float64Array(2), [2])],
    ['BL_INVALID_DTYPE', () => new Tensor('i8', new Float32Array(2), [2])],
    ['BL_INVALID_SHAPE', () => new Tensor('f32', [1, 2], [3])],
    ['BL_INVALID_SHAPE', () => Tensor.zeros('f32', [-1])],
    ['BL_INVALID_SHAPE', () => Tensor.zeros('f32', [1.5])],
    ['BL_INVALID_SHAPE', () => Tensor.zeros('f32', [Number.NaN])],
    ['BL_INVALID_SHAPE', () => Tensor.zeros('f32', [2 ** 40, 2 ** 40])],
    ['BL_INVALID_SHAPE', () => Tensor.zeros('f32', [1, 1, 1, 1, 1, 1, 1])],
    ['BL_INVALID_SHAPE', () => new Tensor('f32', new Float32Array(4), [2, 2], { strides: [2] })],
    [
      'BL_INVALID_SHAPE',
      () => new Tensor('f32', new Float32Array(4), [2, 2], { strides: [-2, 1] }),
    ],
    ['BL_BUFFER_TOO_SMALL', () => new Tensor('f32', new Float32Array(3), [2, 2])],
    [
      'BL_BUFFER_TOO_SMALL',
      () => new Tensor('f32', new Float32Array(4), [2, 2], { strides: [4, 1] }),
    ],
    ['BL_OUT_OF_MEMORY', () => Tensor.zeros('f32', [2 ** 50])],
    ['BL_INVALID_ARGUMENT', () => new Tensor('f32', null as never, [0])],
    ['BL_INVALID_ARGUMENT', () => new Tensor('f32', 'text' as never, [1])],
  ])('refuses with %s', (code, make) => {
    expect(make).toThrow(error(code));
  });

  it('frees what it made at once, and only that', () => {
    const own = Tensor.zeros('f32', [1024]);
    const { buffer } = own.bytes;
    own[Symbol.dispose]();
    own.dispose();
    expect([buffer.byteLength, own.disposed]).toEqual([0, true]);
    expect(() => own.bytes).toThrow(error('BL_DETACHED'));
    const values = new Float32Array(4);
    new Tensor('f32', values, [4]).dispose();
    expect(values.byteLength).toBe(16);
    const before = process.memoryUsage().rss;
    for (let i = 0; i < 400; i++) {
      const big = Tensor.zeros('u8', [8 << 20]);
      big.data.fill(1);
      big.dispose();
    }
    expect(process.memoryUsage().rss - before).toBeLessThan(400 << 20); // of 3.2 GB touched
  });
});

describe('QuantizedTensor', () => {
  it.each([
    ['BL_INVALID_FORMAT', () => new QuantizedTensor('q9_9' as 'q8_0', new Uint8Array(34), [1, 32])],
    [
      'BL_INVALID_FORMAT',
      () => new QuantizedTensor('toString' as 'q8_0', new Uint8Array(34), [1, 32]),
    ],
    ['BL_INVALID_SHAPE', () => new QuantizedTensor('q8_0', new Uint8Array(34), [1, 31])],
    ['BL_INVALID_SHAPE', () => new QuantizedTensor('q8_0', new Uint8Array(34), [-1, 32])],
    ['BL_INVALID_SHAPE', () => new QuantizedTensor('q8_0', new Uint8Array(34), [2 ** 52, 2 ** 40])],
    ['BL_BUFFER_TOO_SMALL', () => new QuantizedTensor('q8_0', new Uint8Array(33), [1, 32])],
    ['BL_INVALID_ARGUMENT', () => new QuantizedTensor('cb2_g32', new Uint8Array(10), [1, 32])],
    [
      'BL_INVALID_ARGUMENT',
      () => new QuantizedTensor('q8_0', new Uint8Array(34), [1, 32], { codebook: [1] }),
    ],
    [
      'BL_NON_FINITE',
      () =>
        new QuantizedTensor('cb1_g32', new Uint8Array(6), [1, 32], { codebook: [0, Number.NaN] }),
    ],
    [
      'BL_INVALID_LAYOUT',
      () => new QuantizedTensor('q8_0', new Uint8Array(34), [1, 32], { layout: 'x' as 'lanes16' }),
    ],
  ])('refuses with %s', (code, make) => {
    expect(make).toThrow(error(code));
  });
});
