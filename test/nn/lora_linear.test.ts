// Experts of low rank on the products of a decoder, against the float64 reference and the operators.
import { describe, expect, it } from 'vitest';
import { loraMixture, matmul, moeRoute, quantize, Tensor } from '../../lib/index.js';
import { ggufBytes } from '../../lib/io/index.js';
import { Linear, LoraLinear, type LoraMixture, load } from '../../lib/nn/index.js';
import { type ReferenceLora, referenceLogits } from '../reference/decoder.js';
import { expectError } from '../reference/op_checks.js';
import { gaussian } from '../reference/random.js';
import { randomModel } from './random_model.js';

const f32 = (values: ArrayLike<number>, shape: number[]) =>
  new Tensor('f32', Float32Array.from(values), shape);
const tokens = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 49, 0];

interface Shape {
  experts: number;
  rank: number;
  topK: number;
}

/** The same experts for the decoder and for the reference. */
function mixture(rows: number, cols: number, { experts, rank, topK }: Shape, seed: number) {
  const router = gaussian(experts * cols, seed, 1);
  const down = gaussian(experts * rank * cols, seed + 1, 1 / Math.sqrt(cols));
  const up = gaussian(experts * rows * rank, seed + 2, 1 / Math.sqrt(rank));
  const own = (): LoraMixture => ({
    router: new Linear(quantize(f32(router, [experts, cols]), 'f32'), { activations: 'f32' }),
    experts: {
      down: f32(down, [experts, rank, cols]),
      up: f32(up, [experts, rows, rank]),
      scale: 0.5,
    },
    route: { topK, normalize: true },
  });
  const reference: ReferenceLora = { router, down, up, experts, topK, scale: 0.5 };
  return { own, reference };
}

/** MoLA's, more experts in the upper layer; SMoRA's, every rank one. */
const shapes: Record<string, Shape[]> = {
  MoLA: [
    { experts: 2, rank: 3, topK: 2 },
    { experts: 6, rank: 4, topK: 2 },
  ],
  SMoRA: [
    { experts: 16, rank: 1, topK: 5 },
    { experts: 16, rank: 1, topK: 5 },
  ],
};

describe('lora of a decoder', () => {
  const { content, reference } = randomModel({ layers: 2 });
  const bytes = ggufBytes(content);
  const names = ['attn_q', 'attn_k', 'attn_v', 'attn_output', 'ffn_gate', 'ffn_up', 'ffn_down'];
  /** Of some products of both layers. */
  const mixturesOf = (shape: Shape[], products: readonly string[]) =>
    [0, 1].flatMap((layer) =>
      products.map((product, i) => {
        const name = `blk.${layer}.${product}`;
        const [rows = 0, cols = 0] = reference.tensors.get(`${name}.weight`)?.shape ?? [];
        const seed = 100 * layer + 10 * i + 1;
        return [name, mixture(rows, cols, shape[layer] as Shape, seed)] as const;
      }),
    );
  const lora = (all: ReturnType<typeof mixturesOf>) =>
    Object.fromEntries(all.map(([name, { own }]) => [name, own()]));

  it.each([
    { system: 'MoLA', products: names },
    { system: 'SMoRA', products: names },
    { system: 'MoLA', products: names.slice(0, 4) }, // where LoRA-Mixer puts its experts
  ])('$system on $products: the logits of the float64 reference', async ({ system, products }) => {
    const all = mixturesOf(shapes[system] as Shape[], products);
    const decoder = await load(bytes, { activations: 'f32', lora: lora(all) });
    const logits = decoder.forward(tokens, { logits: 'all' });
    const expected = referenceLogits(
      { ...reference, lora: new Map(all.map(([name, one]) => [name, one.reference])) },
      tokens,
    ).flat();
    const largest = Math.max(...expected.map(Math.abs));
    const without = referenceLogits(reference, tokens).flat();
    const distance = (a: ArrayLike<number>) =>
      expected.reduce((most, x, i) => Math.max(most, Math.abs(x - (a[i] as number))), 0) / largest;
    expect(distance(logits.data)).toBeLessThan(2e-5);
    expect(distance(without)).toBeGreaterThan(0.1);
    decoder.dispose();
  });

  it('gives the same token by token, recorded or not, and on a worker thread', async () => {
    const all = mixturesOf(shapes.MoLA as Shape[], names);
    const [recorded, plain] = [
      await load(bytes, { activations: 'f32', lora: lora(all) }),
      await load(bytes, { activations: 'f32', lora: lora(all), graphs: false }),
    ];
    const [cache, other] = [recorded.createCache(), plain.createCache()];
    for (const id of tokens) {
      const logits = recorded.forward([id], { cache });
      expect(plain.forward([id], { cache: other }).toArray()).toEqual(logits.toArray());
    }
    const last = await recorded.forwardAsync(tokens);
    expect(last.toArray()).toEqual(plain.forward(tokens).toArray());
    // A cache of f16, whose rows are the value projection's output.
    const half = plain.createCache({ dtype: 'f16' });
    const logits = plain.forward(tokens, { cache: half });
    const largest = Math.max(...last.data.map(Math.abs));
    last.data.forEach((x, i) => {
      expect(Math.abs(x - (logits.data[i] as number))).toBeLessThan(5e-3 * largest);
    });
    for (const one of [recorded, plain]) one.dispose();
  });

  it('stands on weights of 4 bits, whose activations others round together', async () => {
    const all = mixturesOf(shapes.MoLA as Shape[], ['attn_q', 'ffn_up']);
    const exact = await load(bytes, { format: 'u4_g32', activations: 'f32', lora: lora(all) });
    const rounded = await load(bytes, { format: 'u4_g32', lora: lora(all) });
    const base = await load(bytes, { format: 'u4_g32' });
    for (const count of [1, tokens.length]) {
      const [a, b, c] = [exact, rounded, base].map((one) => one.forward(tokens.slice(0, count)));
      const distance = (x?: Tensor<'f32'>, y?: Tensor<'f32'>) =>
        Math.max(...(x?.data.map((value, i) => Math.abs(value - (y?.data[i] as number))) ?? []));
      expect(distance(a, b)).toBeLessThan(0.2 * distance(a, c));
    }
    for (const one of [exact, rounded, base]) one.dispose();
  });

  it('is the operators composed by hand', () => {
    const { own } = mixture(18, 32, { experts: 5, rank: 4, topK: 2 }, 1);
    const weight = quantize(f32(gaussian(18 * 32, 9, 0.2), [18, 32]), 'u4_g32');
    const bias = f32(gaussian(18, 10), [18]);
    const lora = own();
    const layer = new LoraLinear(weight, lora, { bias, activations: 'f32' });
    const x = f32(gaussian(7 * 32, 11), [7, 32]);
    const residual = f32(gaussian(7 * 18, 12), [7, 18]);
    const routes = moeRoute(lora.router.forward(x), lora.route);
    const base = matmul(x, weight, { bias, residual });
    const expected = loraMixture(x, routes, lora.experts, { base });
    expect(layer.forward(x, undefined, residual).toArray()).toEqual(expected.toArray());
    const out = f32(residual.data, [7, 18]);
    expect(layer.forward(x, out, out)).toBe(out);
    expect(out.toArray()).toEqual(expected.toArray());
  });

  it('refuses what does not fit', async () => {
    const { own } = mixture(18, 32, { experts: 5, rank: 4, topK: 2 }, 1);
    const weight = (rows: number, cols: number) =>
      quantize(f32(gaussian(rows * cols, 9), [rows, cols]), 'f32');
    const code = 'BL_INVALID_SHAPE';
    expectError(
      () => new LoraLinear(weight(18, 64), own()),
      code,
      'LoraLinear: router.inFeatures is 32, expected 64 (= weight.cols)',
    );
    expectError(
      () => new LoraLinear(weight(16, 32), own()),
      code,
      'LoraLinear: experts.up.shape is [5,18,4], expected [5,16,4] (= experts, weight.rows, rank)',
    );
    const layer = new LoraLinear(weight(18, 32), own());
    expectError(
      () => layer.forward(new Tensor('f16', new Array<number>(32).fill(1), [1, 32])),
      'BL_INVALID_DTYPE',
      'LoraLinear: x is f16, expected a Tensor of f32',
    );
    await expect(layer.to('cuda:0')).rejects.toMatchObject({ code: 'BL_UNSUPPORTED' });
    layer.dispose();
    expect(layer.lora.router.weight.disposed).toBe(true);
    await expect(load(bytes, { lora: { 'blk.2.attn_q': own() } })).rejects.toMatchObject({
      code: 'BL_INVALID_ARGUMENT',
      message:
        'load: lora has "blk.2.attn_q", expected a product of the model, such as blk.0.attn_q',
    });
    await expect(load(bytes, { lora: { 'blk.1.attn_q': own() } })).rejects.toMatchObject({
      code,
      message: 'LoraLinear: router.inFeatures is 32, expected 64 (= weight.cols)',
    });
  });
});
