// Configs that are refused; and that hostile tensors and configs do no more than throw.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  type CheckpointTensor,
  importAwq,
  importCompressedTensors,
  importGptq,
  importQuantized,
} from '../../lib/io/index.js';
import { thrown } from '../reference/views.js';
import {
  any,
  awq,
  but,
  gptq,
  gptqInputs,
  packed,
  packedInputs,
  tensorsOf,
} from './checkpoint_sound.js';

describe('importQuantized refuses', () => {
  const file = { tensors: new Map([...tensorsOf(gptqInputs), ...tensorsOf(packedInputs)]) };
  const from = (config: unknown, name = 'l') => importQuantized(file, name, any(config));
  const plain = { quant_method: 'gptq', bits: 4, group_size: 32 };
  const weights = { num_bits: 4, strategy: 'group', group_size: 32 };
  const compressed = (groups: unknown, format = 'pack-quantized') => ({
    quant_method: 'compressed-tensors',
    format,
    config_groups: groups,
  });
  const Q = 'importQuantized: ';
  const cases: [unknown, string][] = [
    [null, `${Q}config is null, expected an object`],
    ['gptq', `${Q}config is "gptq", expected an object`],
    [{}, `${Q}config.quant_method is undefined, expected "gptq", "awq" or "compressed-tensors"`],
    [{ quant_method: 'bitsandbytes' }, `${Q}config.quant_method is "bitsandbytes", expected`],
    [
      { ...plain, checkpoint_format: 'marlin' },
      `${Q}config.checkpoint_format is "marlin", expected "gptq" or "gptq_v2"`,
    ],
    [{ ...plain, is_marlin_format: true }, `${Q}config.is_marlin_format is true, expected false`],
    [{ ...plain, pack_dtype: 'int64' }, `${Q}config.pack_dtype is "int64", expected "int32"`],
    [
      { ...plain, dynamic: { '-:.*': {} } },
      `${Q}config.dynamic is object, expected none; pass the bits of each layer to importGptq`,
    ],
    [{ ...plain, bits: null }, 'importGptq: bits is undefined, expected 2, 3, 4, 8'],
    [
      { ...plain, quant_method: 'awq', version: 'gemv' },
      `${Q}config.version is "gemv", expected "gemm"`,
    ],
    [compressed(undefined), `${Q}config.config_groups is undefined, expected an object`],
    [
      compressed({}),
      `${Q}config.format is "pack-quantized", expected "pack-quantized", for a group at least`,
    ],
    [
      compressed({ a: { weights } }, 'int-quantized'),
      `${Q}config.format is "int-quantized", expected "pack-quantized"`,
    ],
    [compressed({ a: 1 }), `${Q}config.config_groups[...] is 1, expected an object`],
    [
      compressed({ a: {} }),
      `${Q}config.config_groups[...].weights is undefined, expected an object`,
    ],
    [
      compressed({ a: { weights: { ...weights, type: 'float' } } }),
      `${Q}config.config_groups[...].weights.type is "float", expected "int"`,
    ],
    [
      compressed({ a: { weights: { ...weights, strategy: 'block' } } }),
      `${Q}config.config_groups[...].weights.strategy is "block", expected "group", "channel" or "tensor"`,
    ],
    [
      compressed({ a: { weights }, b: { weights: { ...weights, num_bits: 8 } } }),
      `${Q}config.config_groups has weights of 4 bits in groups of 32 and of 8 bits in groups of 32, expected one kind`,
    ],
  ];
  it.each(cases)('%j', (config, message) => {
    const error = thrown(() => from(config));
    expect(error.message).toContain(message);
    expect(error.code).toBe('BL_UNSUPPORTED');
  });

  it('layers that are not there', () => {
    const error = thrown(() => from(plain, 'm'));
    expect(error.code).toBe('BL_NOT_FOUND');
    expect(error.message).toBe(`${Q}tensor "m.qweight" is not among the 9 tensors of the file`);
  });
});

describe('hostile input throws errors with codes and does nothing else', () => {
  const extremes = [
    -1,
    0,
    1,
    2,
    3,
    4,
    5,
    8,
    31,
    32,
    33,
    64,
    2 ** 31,
    2 ** 32,
    2 ** 53 - 1,
    2 ** 53,
    0.5,
    NaN,
    Infinity,
  ];
  const length = fc.constantFrom(...extremes);
  const wild = fc.record(
    {
      name: fc.oneof(fc.string(), fc.anything()),
      type: fc.oneof(fc.constantFrom('i32', 'f16', 'bf16', 'f32', 'i8', 'i64'), fc.anything()),
      shape: fc.oneof(fc.array(length, { maxLength: 3 }), fc.anything()),
      data: fc.oneof(
        fc.uint8Array({ maxLength: 4096 }).map((bytes) => () => bytes),
        fc.anything(),
      ),
    },
    { requiredKeys: [] },
  );
  /** Some tensors of a sound layer with some of their facts changed, and options of any kind. */
  const changed = <T extends object>(sound: T) =>
    fc.record(
      Object.fromEntries(
        Object.entries(sound).map(([name, tensor]) => [
          name,
          fc.oneof(
            { weight: 4, arbitrary: fc.constant(tensor as unknown) },
            { weight: 2, arbitrary: wild.map((change) => but(tensor, change) as unknown) },
            // Noise of the right length, which reaches the loops.
            fc.nat().map((seed) => {
              const bytes = (tensor as CheckpointTensor).data().map((_, i) => (i * seed) >> 3);
              return but(tensor, { data: () => bytes });
            }),
            fc.anything(),
          ),
        ]),
      ),
    );
  const anyOptions = fc.record({
    bits: fc.oneof({ weight: 4, arbitrary: fc.constantFrom(2, 3, 4, 8) }, fc.anything()),
    groupSize: fc.oneof(
      { weight: 4, arbitrary: fc.constantFrom(32, 64, -1) },
      length,
      fc.anything(),
    ),
    version: fc.oneof(fc.constantFrom(1, 2, undefined), fc.anything()),
  });
  /** Whether the call gave a weight, or an error as errors are here. */
  const proper = (call: () => { weight: { rows: number } }): boolean => {
    try {
      return call().weight.rows > 0;
    } catch (error) {
      const { code, message } = error as { code?: string; message: string };
      return code?.startsWith('BL_') === true && message.startsWith('import');
    }
  };

  it.each([
    ['importGptq', importGptq, gptq],
    ['importAwq', importAwq, awq],
    ['importCompressedTensors', importCompressedTensors, packed],
  ])('%s', (_, call, sound) => {
    fc.assert(
      fc.property(changed(sound), anyOptions, (tensors, given) =>
        proper(() => call(any(tensors), any(given))),
      ),
      { numRuns: 400 },
    );
  });

  it.each([0, undefined, () => 'text', () => null])(
    'a scale of the whole matrix whose data is %s',
    (data) => {
      const scale = { name: 's', type: 'f16', shape: [], data };
      const call = () =>
        importCompressedTensors(
          any({ ...packed, weightScale: scale }),
          any({ bits: 4, groupSize: -1 }),
        );
      expect(call).toThrow(/^importCompressedTensors: weightScale/);
      expect(proper(call)).toBe(true);
    },
  );

  it('importQuantized: configs', () => {
    const file = { tensors: new Map([...tensorsOf(gptqInputs), ...tensorsOf(packedInputs)]) };
    const keys = [
      'bits',
      'group_size',
      'checkpoint_format',
      'dynamic',
      'pack_dtype',
      'version',
      'format',
    ];
    const weights = fc.dictionary(
      fc.constantFrom('num_bits', 'group_size', 'strategy', 'type'),
      fc.oneof(fc.constantFrom(4, 32, 'group', 'channel', 'int'), fc.anything()),
    );
    const group = fc.oneof(
      fc.record({
        format: fc.constantFrom('pack-quantized', undefined, 1),
        targets: fc.anything(),
        weights,
      }),
      fc.anything(),
    );
    const config = fc
      .tuple(
        fc.constantFrom('gptq', 'awq', 'compressed-tensors', 'hqq'),
        fc.dictionary(
          fc.constantFrom(...keys),
          fc.oneof(fc.constantFrom(4, 32, 'gptq', 'pack-quantized', 'gemm'), fc.anything()),
        ),
        fc.oneof(fc.dictionary(fc.string(), group), fc.anything()),
      )
      .map(([quant_method, rest, config_groups]) => ({ ...rest, quant_method, config_groups }));
    fc.assert(
      fc.property(fc.oneof(config, fc.anything()), (given) =>
        proper(() => importQuantized(file, 'l', any(given))),
      ),
      { numRuns: 400 },
    );
  });
});
