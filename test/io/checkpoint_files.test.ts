// Checkpoints of every kind at random, multiplied, and read from files.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { matmul, Tensor } from '../../lib/index.js';
import {
  importQuantized,
  mapFile,
  memorySource,
  quantizedLayers,
  readSafetensors,
  type SafetensorsTensorInput,
  safetensorsBytes,
  writeSafetensors,
} from '../../lib/io/index.js';
import { referenceMatmul } from '../reference/matmul.js';
import { gaussian } from '../reference/random.js';
import {
  awqConfig,
  compressedConfig,
  firstWrong,
  gptqConfig,
  opened,
  prefix,
} from './checkpoint_cases.js';
import {
  awqTensors,
  type CompressedOptions,
  compressedTensors,
  gptqTensors,
  type LayerOptions,
  layerWeights,
  randomLayer,
} from './checkpoint_layers.js';

describe('scales in f32', () => {
  const options = { rows: 32, cols: 64, bits: 4, groupSize: 32, zeros: [1, 16] } as const;
  it.each(['f16', 'bf16'] as const)('that are all %s numbers', (scaleType) => {
    const layer = randomLayer({ ...options, scaleType }, 2);
    const file = opened(gptqTensors({ ...layer, scaleType: 'f32' }, prefix, 1));
    const imported = importQuantized(file, prefix, gptqConfig(options));
    expect(imported.weight.format).toBe(scaleType === 'f16' ? 'u4z_g32' : 'u4z_g32_bf16');
    expect(firstWrong(layer, imported)).toBe(-1);
  });
});

it('random layers of every kind', () => {
  const layers = fc.record({
    bits: fc.constantFrom(2, 3, 4, 8),
    groupSize: fc.constantFrom(32, 64, 128, 256, -1),
    words: fc.integer({ min: 1, max: 6 }),
    rowWords: fc.integer({ min: 1, max: 3 }),
    scaleType: fc.constantFrom('f16' as const, 'bf16' as const, 'f32' as const),
    shuffled: fc.boolean(),
    kind: fc.constantFrom('gptq', 'gptq_v2', 'awq', 'packed', 'i8', 'none'),
    seed: fc.nat(),
  });
  fc.assert(
    fc.property(layers, ({ kind, words, rowWords, seed, ...given }) => {
      const bits = kind === 'awq' ? 4 : given.bits;
      const middle = 2 ** (bits - 1);
      const zeros = { gptq: [1, 2 ** bits] as const, none: [middle, middle] as const };
      const options: LayerOptions = {
        ...given,
        bits,
        rows: rowWords * 32,
        cols: words * 32,
        shuffled: given.shuffled && kind !== 'awq',
        ...(kind === 'gptq' || kind === 'none' ? { zeros: zeros[kind] } : {}),
      };
      const layer = randomLayer(options, seed);
      const imported =
        kind === 'awq'
          ? importQuantized(opened(awqTensors(layer, prefix)), prefix, awqConfig(options))
          : kind.startsWith('gptq')
            ? importQuantized(
                opened(gptqTensors(layer, prefix, kind === 'gptq' ? 1 : 2)),
                prefix,
                gptqConfig(options, kind === 'gptq' ? 1 : 2),
              )
            : importQuantized(
                opened(
                  compressedTensors(layer, prefix, {
                    zeros: kind as CompressedOptions['zeros'],
                    gIdx: 'given',
                  }),
                ),
                prefix,
                compressedConfig(options),
              );
      expect(firstWrong(layer, imported)).toBe(-1);
    }),
    { numRuns: 60 },
  );
});

it('multiplies: activations in columnOrder', () => {
  const [m, rows, cols] = [3, 64, 256];
  const options = { rows, cols, bits: 4, groupSize: 64, zeros: [1, 16], shuffled: true } as const;
  const layer = randomLayer({ ...options, usual: true }, 4);
  const file = opened(gptqTensors(layer, prefix, 1));
  const { weight, columnOrder } = importQuantized(file, prefix, gptqConfig(options));
  const x = gaussian(m * cols, 8);
  const order = new Tensor('i32', columnOrder as Int32Array, [cols]);
  const product = matmul(new Tensor('f32', x, [m, cols]), weight, { columnOrder: order }).data;
  const { values, magnitudes } = referenceMatmul(x, layerWeights(layer), m, rows, cols);
  // Sums of 256 products in f32: each of them rounded, and each addition.
  const bound = 256 * 2 ** -23;
  const wrong = product.findIndex(
    (value, i) => !(Math.abs(value - (values[i] as number)) <= bound * (magnitudes[i] as number)),
  );
  expect(wrong).toBe(-1);
});

describe('files', () => {
  const options = { rows: 32, cols: 64, bits: 4, groupSize: 32 };
  const layers = ['model.layers.0.q', 'model.layers.1.q'];

  it('lists layers in the order of the file, whole ones only', () => {
    const layer = randomLayer(options, 1);
    const other: SafetensorsTensorInput[] = ['a.qweight', 'scales', '.qweight', 'b.scales'].map(
      (name) => ({ name, type: 'f16', shape: [1], data: new Uint8Array(2) }),
    );
    const file = opened([
      ...gptqTensors(layer, layers[1] as string, 2),
      ...other,
      ...compressedTensors(layer, layers[0] as string, { zeros: 'packed' }),
    ]);
    expect(quantizedLayers(file)).toEqual([layers[1], layers[0]]);
    expect(quantizedLayers(opened(other))).toEqual([]);
  });

  it('reads mapped files, and layers in two of them', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'bitloom-checkpoint-'));
    try {
      const layer = randomLayer(options, 6);
      const [first, ...rest] = gptqTensors(layer, prefix, 2);
      const paths = ['1.safetensors', '2.safetensors'].map((name) => join(folder, name));
      await writeSafetensors(paths[0] as string, { tensors: [first as SafetensorsTensorInput] });
      await writeSafetensors(paths[1] as string, { tensors: rest });
      const sources = paths.map(mapFile);
      const files = sources.map(readSafetensors);
      const all = { tensors: new Map(files.flatMap((file) => [...file.tensors])) };
      expect(quantizedLayers(all)).toEqual([prefix]);
      const imported = importQuantized(all, prefix, gptqConfig(options, 2));
      for (const source of sources) source.dispose();
      expect(firstWrong(layer, imported)).toBe(-1);
    } finally {
      await rm(folder, { recursive: true });
    }
  });

  it('reads data at odd addresses', () => {
    const layer = randomLayer(options, 7);
    const bytes = safetensorsBytes({ tensors: gptqTensors(layer, prefix, 2) });
    const shifted = new Uint8Array(bytes.length + 1).subarray(1);
    shifted.set(bytes);
    const file = readSafetensors(memorySource(shifted));
    expect(firstWrong(layer, importQuantized(file, prefix, gptqConfig(options, 2)))).toBe(-1);
  });
});
