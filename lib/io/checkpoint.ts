import { BitloomError } from '../errors.js';
import { importAwq } from './checkpoint_awq.js';
import { importCompressedTensors } from './checkpoint_compressed_tensors.js';
import { importGptq } from './checkpoint_gptq.js';
import type { GroupOptions, ImportedWeight } from './checkpoint_groups.js';
import { type CheckpointTensor, shown, tensorNamed } from './checkpoint_tensor.js';

/** Where the tensors of a checkpoint are: a {@link readSafetensors} file, or the tensors of several in one map. */
export interface Checkpoint {
  readonly tensors: ReadonlyMap<string, CheckpointTensor>;
}

const OPERATOR = 'importQuantized';

/**
 * Takes over the weight matrix of one layer from a checkpoint of GPTQ, AWQ ("gemm") or compressed-tensors
 * ("pack-quantized"), without loss.
 *
 * A checkpoint in several files may have the tensors of a layer in two of them; give the tensors of all files in one
 * map then: `{ tensors: new Map(files.flatMap((file) => [...file.tensors])) }`.
 *
 * @param layer name of the layer, e.g. `model.layers.0.mlp.up_proj`; {@link quantizedLayers} lists them
 * @param config the object `quantization_config` of the model's config.json, or its quantize_config.json
 * @throws BitloomError `BL_NOT_FOUND` for a tensor that is not there, `BL_UNSUPPORTED` for a config that asks for
 * something else; the errors of {@link importGptq}, {@link importAwq} and {@link importCompressedTensors}
 *
 * @example
 * const file = readSafetensors(mapFile('model.safetensors'));
 * const { quantization_config } = JSON.parse(await readFile('config.json', 'utf8'));
 * for (const layer of quantizedLayers(file)) {
 *   const { weight, columnOrder } = importQuantized(file, layer, quantization_config);
 * }
 */
export function importQuantized(
  file: Checkpoint,
  layer: string,
  config: Readonly<Record<string, unknown>>,
): ImportedWeight {
  const { quant_method: method } = record(config, 'config');
  const tensor = (name: string) => tensorNamed(OPERATOR, file.tensors, `${layer}.${name}`);
  const optional = (name: string) => file.tensors.get(`${layer}.${name}`);
  switch (method) {
    case 'gptq':
      return importGptq(
        {
          qweight: tensor('qweight'),
          qzeros: tensor('qzeros'),
          scales: tensor('scales'),
          gIdx: optional('g_idx'),
        },
        { ...plainOptions(config), version: gptqVersion(config) },
      );
    case 'awq':
      checkAwq(config);
      return importAwq(
        { qweight: tensor('qweight'), qzeros: tensor('qzeros'), scales: tensor('scales') },
        plainOptions(config),
      );
    case 'compressed-tensors':
      return importCompressedTensors(
        {
          weightPacked: tensor('weight_packed'),
          weightScale: tensor('weight_scale'),
          weightShape: tensor('weight_shape'),
          weightZeroPoint: optional('weight_zero_point'),
          weightGIdx: optional('weight_g_idx'),
        },
        compressedOptions(config, layer),
      );
    default:
      return refuse('config.quant_method', method, '"gptq", "awq" or "compressed-tensors"');
  }
}

/**
 * Names of the layers whose weights {@link importQuantized} can take over, in the order of the file: those with
 * `qweight`, `qzeros` and `scales`, or `weight_packed`, `weight_scale` and `weight_shape`.
 *
 * @example
 * quantizedLayers(readSafetensors(mapFile('model.safetensors'))); // ['model.layers.0.mlp.down_proj', ...]
 */
export function quantizedLayers(file: Checkpoint): string[] {
  const { tensors } = file;
  const layers: string[] = [];
  for (const name of tensors.keys()) {
    const dot = name.lastIndexOf('.');
    const others = companions.get(name.slice(dot + 1));
    const layer = name.slice(0, Math.max(dot, 0));
    if (dot > 0 && others?.every((other) => tensors.has(`${layer}.${other}`))) layers.push(layer);
  }
  return layers;
}

const companions = new Map([
  ['qweight', ['qzeros', 'scales']],
  ['weight_packed', ['weight_scale', 'weight_shape']],
]);

/** Bits and group size as GPTQ and AWQ write them; the importer checks the values. */
function plainOptions(config: Readonly<Record<string, unknown>>): GroupOptions {
  const bits = config.bits ?? config.w_bit;
  const groupSize = config.group_size ?? config.q_group_size;
  return { bits, groupSize } as GroupOptions;
}

function gptqVersion(config: Readonly<Record<string, unknown>>): 1 | 2 {
  const { dynamic, pack_dtype: word = 'int32' } = config;
  // Overrides for single layers, by regular expressions; those of a stranger's file are not run.
  if (dynamic !== undefined && dynamic !== null && Object.keys(Object(dynamic)).length > 0) {
    refuse('config.dynamic', dynamic, 'none; pass the bits of each layer to importGptq');
  }
  if (word !== 'int32') refuse('config.pack_dtype', word, '"int32"');
  const format = config.checkpoint_format ?? config.format ?? 'gptq';
  if (config.is_marlin_format === true) refuse('config.is_marlin_format', true, 'false');
  if (format === 'gptq') return 1;
  if (format === 'gptq_v2') return 2;
  return refuse('config.checkpoint_format', format, '"gptq" or "gptq_v2"');
}

function checkAwq(config: Readonly<Record<string, unknown>>): void {
  const version = config.version ?? config.format ?? 'gemm';
  const gemm = typeof version === 'string' && version.toLowerCase() === 'gemm';
  if (!gemm) refuse('config.version', version, '"gemm"');
}

function compressedOptions(config: Readonly<Record<string, unknown>>, layer: string): GroupOptions {
  const groups = Object.values(record(config.config_groups, 'config.config_groups')).map((group) =>
    record(group, 'config.config_groups[...]'),
  );
  const packed = groups.filter(({ format }) => (format ?? config.format) === 'pack-quantized');
  const named = packed.filter(({ targets }) => Array.isArray(targets) && targets.includes(layer));
  const choices = (named.length > 0 ? named : packed).map(weightOptions);
  const [first] = choices;
  if (first === undefined) {
    const format = groups[0]?.format ?? config.format;
    return refuse('config.format', format, '"pack-quantized", for a group at least');
  }
  const other = choices.find(
    ({ bits, groupSize }) => bits !== first.bits || groupSize !== first.groupSize,
  );
  if (other === undefined) return first;
  // Which group a layer is in may hang on its class, or on regular expressions of a stranger's file.
  throw new BitloomError(
    'BL_UNSUPPORTED',
    `${OPERATOR}: config.config_groups has weights of ${shown(first.bits)} bits in groups of ${shown(first.groupSize)} ` +
      `and of ${shown(other.bits)} bits in groups of ${shown(other.groupSize)}, expected one kind, or the layer's name ` +
      'in targets; pass the bits of each layer to importCompressedTensors',
  );
}

function weightOptions(group: Readonly<Record<string, unknown>>): GroupOptions {
  const at = 'config.config_groups[...].weights';
  const {
    type = 'int',
    strategy,
    num_bits: bits,
    group_size: groupSize,
  } = record(group.weights, at);
  if (type !== 'int') refuse(`${at}.type`, type, '"int"');
  // One scale for the matrix: importCompressedTensors takes it for every row.
  if (strategy === 'channel' || strategy === 'tensor')
    return { bits, groupSize: -1 } as GroupOptions;
  if (strategy === 'group') return { bits, groupSize } as GroupOptions;
  return refuse(`${at}.strategy`, strategy, '"group", "channel" or "tensor"');
}

function record(value: unknown, what: string): Readonly<Record<string, unknown>> {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) {
    return value as Record<string, unknown>;
  }
  return refuse(what, value, 'an object');
}

function refuse(what: string, value: unknown, expected: string): never {
  throw new BitloomError(
    'BL_UNSUPPORTED',
    `${OPERATOR}: ${what} is ${shown(value)}, expected ${expected}`,
  );
}
