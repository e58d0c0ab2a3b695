// What only looks like a tensor: every operator says so, with its own name and the argument's, and never fails in another way.
import { describe, expect, it } from 'vitest';
import * as bitloom from '../../lib/index.js';
import { PagedKVCache } from '../../lib/nn/index.js';

const { KVPages, quantize, Tensor } = bitloom;
type Anything = Record<string, unknown>;

const f32 = (...shape: number[]) => Tensor.zeros('f32', shape);
const i32 = (...values: number[]) => new Tensor('i32', Int32Array.from(values), [values.length]);
const real = f32(2, 2);
const { descriptor } = real;
const forged: Anything = {
  null: null,
  'a number': 3,
  'an array': [1, 2],
  'a typed array': new Float32Array(4),
  'dtype and descriptor alone': { dtype: 'f32', descriptor },
  'all but a shape': {
    dtype: 'f32',
    descriptor,
    strides: [2, 1],
    nativeMemory: new Uint8Array(16),
  },
  'the properties of one': { ...real, shape: [2, 2], nativeMemory: new Uint8Array(16) },
  'an object of its class': Object.create(Tensor.prototype),
  'one that inherits from it': Object.create(real),
  'a proxy': new Proxy(real, {}),
  'quantized weights': quantize(f32(2, 32), 'q8_0'),
};

const [q, k, v] = [f32(4, 4, 8), f32(6, 2, 8), f32(6, 2, 8)];
const pages = new KVPages({ keyFormat: 'f16', numKvHeads: 2, keyDim: 8, numPages: 2 });
const table = new Tensor('i32', Int32Array.of(0), [1, 1]);
const segment = { pages, blockTable: table, lengths: i32(6) };
const plain = { ...pages, pageSize: 16, numKvHeads: 2, keyDim: 8, valueDim: 8, numPages: 2 };
const weights = quantize(f32(8, 32), 'q8_0');
const scores = {
  sums: f32(1, 4, 6),
  squares: f32(1, 4, 6),
  entropy: f32(1, 4),
  variance: f32(1, 4),
};
const rope = {
  queryPositions: i32(0, 1, 2, 3),
  keyPositions: i32(0, 1, 2, 3, 4, 5),
  freqFactors: f32(4),
};

/** Operator -> arguments; every tensor in them is replaced, one at a time, by name. */
const calls: Record<string, [names: string[], args: unknown[]]> = {
  attention: [
    ['q', 'k', 'v', ''],
    [
      q,
      k,
      v,
      {
        ...{ cuQueries: i32(0, 4), cuKeys: i32(0, 6), slopes: f32(4), sinks: f32(4) },
        ...{ mask: f32(1, 4, 6), windows: i32(1, 1, 1, 1), sinkCounts: i32(1, 1, 1, 1) },
        ...{ lse: f32(4, 4), out: f32(4, 4, 8), probabilities: f32(4, 4, 6), scores, rope },
        blockMask: { mask: f32(1, 1, 1), queries: 16, keys: 16 },
      },
    ],
  ],
  decodeAttention: [
    ['q', 'segments', ''],
    [q, [segment], { cuQueries: i32(0, 4), lse: f32(4, 4), out: f32(4, 4, 8), scores, rope }],
  ],
  mergeStates: [
    ['outputs', 'lses', ''],
    [f32(2, 4, 4, 8), f32(2, 4, 4), { out: f32(4, 4, 8), lse: f32(4, 4) }],
  ],
  kvAppend: [
    ['k', 'v', 'slots', 'pages', ''],
    [k, v, i32(0, 1, 2, 3, 4, 5), pages, { keyMean: f32(2, 8) }],
  ],
  kvGather: [
    ['slots', 'pages', ''],
    [i32(0, 1), pages, { k: f32(2, 2, 8), v: f32(2, 2, 8), keyMean: f32(2, 8) }],
  ],
  nearestKeys: [
    ['keys', 'rows', 'candidates', ''],
    [k, table, table, {}],
  ],
  rope: [
    ['x', 'positions', ''],
    [q, i32(0, 1, 2, 3), { freqFactors: f32(4), out: f32(4, 4, 8) }],
  ],
  softmax: [
    ['x', ''],
    [f32(4, 4), { out: f32(4, 4) }],
  ],
  add: [
    ['left', 'right', ''],
    [f32(4, 8), f32(4, 8), { out: f32(4, 8) }],
  ],
  mul: [
    ['left', 'right', ''],
    [f32(4, 8), f32(4, 8), { out: f32(4, 8) }],
  ],
  silu: [
    ['x', ''],
    [f32(4, 8), { out: f32(4, 8) }],
  ],
  gelu: [
    ['x', ''],
    [f32(4, 8), { out: f32(4, 8) }],
  ],
  swiglu: [
    ['gate', 'up', ''],
    [f32(4, 8), f32(4, 8), { out: f32(4, 8) }],
  ],
  rmsNorm: [
    ['x', 'weight', ''],
    [f32(4, 8), f32(8), { out: f32(4, 8) }],
  ],
  layerNorm: [
    ['x', 'weight', 'bias', ''],
    [f32(4, 8), f32(8), f32(8), { out: f32(4, 8) }],
  ],
  embedding: [
    ['table', 'ids', ''],
    [weights, i32(0, 1), { out: f32(2, 32) }],
  ],
  matmul: [
    ['a', 'b', ''],
    [f32(4, 32), weights, { bias: f32(8), out: f32(4, 8) }],
  ],
  quantize: [
    ['input', 'format', ''],
    [f32(4, 32), 'q8_0', { importance: f32(32) }],
  ],
  dequantize: [
    ['input', ''],
    [weights, { out: f32(8, 32) }],
  ],
};

/** Every tensor within, with its name and a copy of the arguments that has something else there. */
function* places(
  value: unknown,
  name: string,
  put: (other: unknown) => unknown,
): Generator<{ name: string; put: (other: unknown) => unknown; isWeights: boolean }> {
  if (value instanceof Tensor || value instanceof bitloom.QuantizedTensor) {
    yield { name, put, isWeights: value instanceof bitloom.QuantizedTensor };
  } else if (typeof value === 'object' && value !== null && !(value instanceof KVPages)) {
    for (const [key, inner] of Object.entries(value)) {
      const path = Array.isArray(value)
        ? name.replace(/s$/, '')
        : name === ''
          ? key
          : `${name}.${key}`;
      yield* places(inner, path, (other) =>
        put(
          Array.isArray(value)
            ? value.map((old, i) => (String(i) === key ? other : old))
            : { ...value, [key]: other },
        ),
      );
    }
  }
}

function expectRefused(op: string, name: string, what: string, body: () => unknown): void {
  let thrown: unknown;
  try {
    body();
  } catch (error) {
    thrown = error;
  }
  const label = `${op}, ${name}: ${what}`;
  expect(thrown, label).toBeInstanceOf(TypeError);
  expect((thrown as { code: string }).code, label).toBe('BL_INVALID_ARGUMENT');
  const { message } = thrown as Error;
  expect(message, label).toMatch(
    new RegExp(`^${op}: ${name.replace(/[.[\]]/g, '\\$&')} is .*, expected a `),
  );
}

/** Made where there is none; null is none. */
const isOutput = (op: string, name: string): boolean =>
  name === 'out' ||
  (name === 'lse' && op === 'mergeStates') ||
  (name.length === 1 && op === 'kvGather');

describe('forged tensors', () => {
  it.each(Object.entries(calls))('%s names itself and the argument', (op, [names, args]) => {
    const call = (bitloom as Anything)[op] as (...args: unknown[]) => unknown;
    let count = 0;
    for (const [i, arg] of args.entries()) {
      for (const { name, put, isWeights } of places(arg, names[i] as string, (other) => other)) {
        for (const [what, fake] of Object.entries(forged)) {
          if (fake instanceof bitloom.QuantizedTensor && isWeights) continue;
          if (fake === null && isOutput(op, name)) continue;
          const changed = args.map((old, j) => (i === j ? put(fake) : old));
          expectRefused(op, name, what, () => call(...changed));
          count++;
        }
      }
    }
    expect(count).toBeGreaterThan(10);
  });

  it('pages', () => {
    for (const [what, fake] of Object.entries(forged)) {
      for (const name of ['keys', 'values']) {
        const views = { ...plain, [name]: fake };
        expectRefused('kvAppend', `pages.${name}`, what, () =>
          bitloom.kvAppend(k, v, i32(0, 1, 2, 3, 4, 5), views as never),
        );
        expectRefused('decodeAttention', `pages.${name}`, what, () =>
          bitloom.decodeAttention(q, [{ ...segment, pages: views as never }]),
        );
      }
      for (const name of ['pageSize', 'numKvHeads', 'keyDim', 'valueDim', 'numPages']) {
        if (typeof fake === 'number') continue;
        expectRefused('decodeAttention', `pages.${name}`, what, () =>
          bitloom.decodeAttention(q, [{ ...segment, pages: { ...plain, [name]: fake } as never }]),
        );
      }
    }
  });

  it('caches, which stay as they are', () => {
    const cache = new PagedKVCache({ numLayers: 1, numKvHeads: 2, headDim: 8, numPages: 4 });
    const sequence = cache.create();
    sequence.append(0, k, v);
    for (const [what, fake] of Object.entries(forged)) {
      expectRefused('append', 'k', what, () => sequence.append(0, fake as never, v));
      expectRefused('append', 'v', what, () => sequence.append(0, k, fake as never));
      expect(sequence.length).toBe(6);
      expectRefused('PagedKVCache', 'keyMeans[0]', what, () => {
        const shape = { numLayers: 1, numKvHeads: 2, headDim: 8, numPages: 4 };
        return new PagedKVCache({ ...shape, keyMeans: [fake as never] });
      });
    }
    expect(sequence.gather(0).k.shape).toEqual([6, 2, 8]);
    cache.dispose();
  });

  it('a tensor of another copy of the package is one', async () => {
    // As the CommonJS build beside the ESM one: the same sources, loaded again.
    const other = (await import(
      '../../lib/tensor.js?copy' as string
    )) as typeof import('../../lib/tensor.js');
    expect(other.Tensor).not.toBe(Tensor);
    const x = new other.Tensor('f32', [1, 2, 3, 4], [2, 2]);
    expect(x).not.toBeInstanceOf(Tensor);
    expect(bitloom.add(x as never, real).toArray()).toEqual([1, 2, 3, 4]);
  });
});
