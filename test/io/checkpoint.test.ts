// What importers give, decoded, is what the formats' formulas say of the checkpoint, value by value.
import { describe, expect, it } from 'vitest';
import { importQuantized } from '../../lib/io/index.js';
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
  randomLayer,
} from './checkpoint_layers.js';

const cases = [2, 3, 4, 8].flatMap((bits) =>
  [32, 64, 128, 256, -1].map((groupSize) => ({ bits, groupSize })),
);

describe('GPTQ', () => {
  it.each(cases)('$bits bits in groups of $groupSize', ({ bits, groupSize }) => {
    for (const [version, scaleType, shuffled] of [
      [1, 'f16', false],
      [2, 'bf16', false],
      [1, 'bf16', true],
      [2, 'f16', true],
    ] as const) {
      const zeros = version === 1 ? ([1, 2 ** bits] as const) : ([0, 2 ** bits - 1] as const);
      const options = { rows: 64, cols: 512, bits, groupSize, scaleType, shuffled, zeros };
      const layer = randomLayer(options, bits * 1000 + groupSize);
      const file = opened(gptqTensors(layer, prefix, version));
      const imported = importQuantized(file, prefix, gptqConfig(options, version));
      const group = groupSize === -1 ? 'row' : `g${groupSize}`;
      expect(imported.weight.format).toBe(
        `u${bits}z_${group}${scaleType === 'bf16' ? '_bf16' : ''}`,
      );
      expect(imported.columnOrder === undefined).toBe(!shuffled || groupSize === -1);
      expect(firstWrong(layer, imported)).toBe(-1);
    }
  });

  it('takes groups whose last one is short, sorted or strewn, and one group longer than the row', () => {
    for (const [cols, shuffled] of [
      [160, false],
      [160, true],
      [96, false],
    ] as const) {
      const options = {
        rows: 32,
        cols,
        bits: 4,
        groupSize: 128,
        shuffled,
        zeros: [1, 16],
      } as const;
      const layer = randomLayer(options, cols);
      const imported = importQuantized(
        opened(gptqTensors(layer, prefix, 1)),
        prefix,
        gptqConfig(options),
      );
      expect(imported.weight.format).toBe('u4z_g128');
      expect(firstWrong(layer, imported)).toBe(-1);
    }
  });

  it('keeps the order of columns within a group', () => {
    const options = { rows: 32, cols: 64, bits: 4, groupSize: 32, zeros: [1, 16] } as const;
    const layer = {
      ...randomLayer(options, 3),
      groupOf: Array.from({ length: 64 }, (_, k) => k % 2),
    };
    const imported = importQuantized(
      opened(gptqTensors(layer, prefix, 1)),
      prefix,
      gptqConfig(options),
    );
    const even = Array.from({ length: 32 }, (_, j) => 2 * j);
    expect(Array.from(imported.columnOrder ?? [])).toEqual([...even, ...even.map((k) => k + 1)]);
    expect(firstWrong(layer, imported)).toBe(-1);
  });

  it('needs no zero points where all are in the middle, as with sym', () => {
    for (const version of [1, 2] as const) {
      const options = { rows: 32, cols: 64, bits: 3, groupSize: 32, zeros: [4, 4] } as const;
      const layer = randomLayer(options, version);
      const file = opened(gptqTensors(layer, prefix, version));
      const imported = importQuantized(file, prefix, gptqConfig(options, version));
      expect(imported.weight.format).toBe('u3_g32');
      expect(firstWrong(layer, imported)).toBe(-1);
    }
  });

  it('takes rows of 224 columns in groups of 224', () => {
    const options = { rows: 32, cols: 224, bits: 2, groupSize: 224, zeros: [1, 4] } as const;
    const layer = randomLayer(options, 9);
    const file = opened(gptqTensors(layer, prefix, 1));
    const imported = importQuantized(file, prefix, gptqConfig(options));
    expect(imported.weight.format).toBe('u2z_row');
    expect(firstWrong(layer, imported)).toBe(-1);
  });
});

describe('AWQ', () => {
  it.each([32, 64, 128, 256, -1])('groups of %i', (groupSize) => {
    for (const scaleType of ['f16', 'bf16'] as const) {
      // 40 rows: a whole tile and a quarter.
      const options = { rows: 40, cols: 256, bits: 4, groupSize, scaleType };
      const layer = randomLayer(options, groupSize);
      const imported = importQuantized(
        opened(awqTensors(layer, prefix)),
        prefix,
        awqConfig(options),
      );
      expect(imported.weight.format).toMatch(/^u4z_/);
      expect(imported.columnOrder).toBeUndefined();
      expect(firstWrong(layer, imported)).toBe(-1);
    }
  });

  it('takes rows of any length, and the older names of its config', () => {
    const options = { rows: 8, cols: 77, bits: 4, groupSize: 64 };
    const layer = randomLayer(options, 5);
    const config = { quant_method: 'awq', w_bit: 4, q_group_size: 64, version: 'GEMM' };
    const imported = importQuantized(opened(awqTensors(layer, prefix)), prefix, config);
    expect(firstWrong(layer, imported)).toBe(-1);
  });
});

describe('compressed-tensors', () => {
  it.each(cases)('$bits bits in groups of $groupSize', ({ bits, groupSize }) => {
    const middle = 2 ** (bits - 1);
    const some: [CompressedOptions, boolean][] = [
      [{ zeros: 'none' }, false],
      [{ zeros: 'packed', gIdx: 'unused' }, false],
      [{ zeros: 'i8', gIdx: 'given' }, true],
      [{ zeros: 'none', gIdx: 'given' }, true],
    ];
    for (const [stored, shuffled] of some) {
      const symmetric = stored.zeros === 'none';
      const options: LayerOptions = {
        rows: 43,
        cols: 512,
        bits,
        groupSize,
        shuffled,
        scaleType: shuffled ? 'f16' : 'bf16',
        ...(symmetric ? { zeros: [middle, middle] } : {}),
      };
      const layer = randomLayer(options, bits * 100 + groupSize);
      const imported = importQuantized(
        opened(compressedTensors(layer, prefix, stored)),
        prefix,
        compressedConfig(options),
      );
      expect(imported.weight.format).toMatch(symmetric ? /^u\d_/ : /^u\dz_/);
      expect(imported.columnOrder === undefined).toBe(!shuffled || groupSize === -1);
      expect(firstWrong(layer, imported)).toBe(-1);
    }
  });

  it('takes one scale for the matrix (strategy "tensor") as that of every row', () => {
    for (const stored of ['none', 'i8'] as const) {
      const zeros = stored === 'none' ? { zeros: [8, 8] as [number, number] } : {};
      const options: LayerOptions = { rows: 5, cols: 77, bits: 4, groupSize: -1, ...zeros };
      const random = randomLayer(options, 3);
      const same = (rows: readonly number[][]): number[][] =>
        rows.map(() => [...(rows[0] as number[])]);
      const layer = { ...random, scales: same(random.scales), zeros: same(random.zeros) };
      const tensors = compressedTensors(layer, prefix, { zeros: stored }).map((tensor) => {
        if (!/weight_(scale|zero_point)$/.test(tensor.name)) return tensor;
        const bytes = tensor.data as Uint8Array;
        return { ...tensor, shape: [1], data: bytes.subarray(0, bytes.byteLength / 5) };
      });
      const config = compressedConfig(options);
      config.config_groups.group_0.weights.strategy = 'tensor';
      const imported = importQuantized(opened(tensors), prefix, config);
      expect(imported.weight.format).toMatch(stored === 'none' ? /^u4_row/ : /^u4z_row/);
      expect(firstWrong(layer, imported)).toBe(-1);
    }
  });

  it('takes rows that are no whole words, and zero points stored though all 0', () => {
    for (const bits of [2, 3, 4, 8]) {
      const middle = 2 ** (bits - 1);
      const options = { rows: 5, cols: 77, bits, groupSize: 32, zeros: [middle, middle] } as const;
      const layer = randomLayer(options, bits);
      const file = opened(compressedTensors(layer, prefix, { zeros: 'packed' }));
      const imported = importQuantized(file, prefix, compressedConfig(options));
      expect(imported.weight.format).toBe(`u${bits}_g32`);
      expect(firstWrong(layer, imported)).toBe(-1);
    }
  });

  it('chooses among config_groups by name, and passes over groups in other formats', () => {
    const options = { rows: 5, cols: 64, bits: 4, groupSize: 32 };
    const layer = randomLayer(options, 1);
    const weights = { num_bits: 4, type: 'int', strategy: 'group', group_size: 32 };
    const config = {
      quant_method: 'compressed-tensors',
      format: 'mixed-precision',
      config_groups: {
        a: { format: 'float-quantized', targets: [prefix], weights: { type: 'float' } },
        b: { format: 'pack-quantized', targets: ['Linear'], weights: { ...weights, num_bits: 8 } },
        c: { format: 'pack-quantized', targets: [prefix], weights },
      },
    };
    const file = opened(compressedTensors(layer, prefix, { zeros: 'packed' }));
    expect(firstWrong(layer, importQuantized(file, prefix, config))).toBe(-1);
  });
});
