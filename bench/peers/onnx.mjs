// Matrix products in ONNX Runtime: one-node graphs with the weights as initializers, so that it packs
// them when the session is made.
import { uniform } from '../data.mjs';

/** Random bytes. */
function randomBytes(count, seed) {
  const next = uniform(seed);
  const words = new Uint32Array(Math.ceil(count / 4));
  for (let i = 0; i < words.length; i++) words[i] = next() * 2 ** 32;
  return new Uint8Array(words.buffer, 0, count);
}

const bytesOf = (array) => new Uint8Array(array.buffer, array.byteOffset, array.byteLength);

/** Kinds of products; each gives { domain, attributes, initializers, cast } for N outputs and K inputs. */
const nodes = {
  /** Weights of `bits` bits in blocks of `block` with a scale; accuracy 0: f32, 4: int8 activations. */
  MatMulNBits({ n, k, bits, block, accuracy }) {
    const blocks = k / block;
    return {
      domain: 'com.microsoft',
      attributes: { K: k, N: n, bits, block_size: block, accuracy_level: accuracy },
      initializers: [
        ['B', 'UINT8', [n, blocks, (block * bits) / 8], randomBytes((n * k * bits) / 8, 3)],
        ['scales', 'FLOAT', [n * blocks], bytesOf(new Float32Array(n * blocks).fill(0.002))],
      ],
    };
  },
  MatMul({ n, k }) {
    return {
      domain: '',
      attributes: {},
      initializers: [
        [
          'B',
          'FLOAT',
          [k, n],
          bytesOf(Float32Array.from(randomBytes(n * k, 3), (x) => x / 255 - 0.5)),
        ],
      ],
    };
  },
  /** int8 weights with a scale per output; activations in uint8, quantized on the way. */
  DynamicQuantizeMatMul({ n, k }) {
    return {
      domain: 'com.microsoft',
      attributes: {},
      initializers: [
        ['B', 'INT8', [k, n], randomBytes(n * k, 3)],
        ['b_scale', 'FLOAT', [n], bytesOf(new Float32Array(n).fill(0.002))],
      ],
    };
  },
};

/** The bytes of a model y[M, N] = product(a[M, K]), M free. */
export function productModel(onnx, kind, options) {
  const { FLOAT } = onnx.TensorProto.DataType;
  const { domain, attributes, initializers } = nodes[kind](options);
  const value = (name, columns) => ({
    name,
    type: {
      tensorType: { elemType: FLOAT, shape: { dim: [{ dimParam: 'M' }, { dimValue: columns }] } },
    },
  });
  const model = onnx.ModelProto.create({
    irVersion: 10,
    opsetImport: [
      { domain: '', version: 21 },
      { domain: 'com.microsoft', version: 1 },
    ],
    graph: {
      name: kind,
      input: [value('a', options.k)],
      output: [value('y', options.n)],
      node: [
        {
          opType: kind,
          domain,
          input: ['a', ...initializers.map(([name]) => name)],
          output: ['y'],
          attribute: Object.entries(attributes).map(([name, i]) => ({
            name,
            i,
            type: onnx.AttributeProto.AttributeType.INT,
          })),
        },
      ],
      initializer: initializers.map(([name, type, dims, rawData]) => ({
        name,
        dims,
        rawData,
        dataType: onnx.TensorProto.DataType[type],
      })),
    },
  });
  return onnx.ModelProto.encode(model).finish();
}

/** Sessions over the same model, each with its own copy of the weights. */
export async function sessions(ort, model, count, threads) {
  const list = [];
  for (let i = 0; i < count; i++) {
    list.push(
      await ort.InferenceSession.create(model, {
        intraOpNumThreads: threads,
        interOpNumThreads: 1,
        executionMode: 'sequential',
      }),
    );
  }
  return list;
}
