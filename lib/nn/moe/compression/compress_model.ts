// Models whose experts are changed, as files.
import { argumentError } from '../../../errors.js';
import type { Format } from '../../../generated.js';
import { type GGUFFile, type GGUFTensorInput, readGGUF, writeGGUF } from '../../../io/index.js';
import { dequantize } from '../../../ops/quantize/dequantize.js';
import { quantize } from '../../../ops/quantize/quantize.js';
import type { QuantizedTensor } from '../../../quantized_tensor.js';
import { Tensor } from '../../../tensor.js';
import { readConfig } from '../../config.js';
import { unsupportedModel } from '../../model_error.js';
import { type ModelSource, openSource } from '../../model_source.js';
import { rowsFit } from '../../requantize.js';
import { storedMatrix, storedStack, storeMatrix } from '../../stored_tensor.js';
import type { MoEConfig } from '../config.js';
import { type DenseExpert, decodedExpert, type ExpertLayer } from './layer.js';

const parts = ['gate', 'up', 'down'] as const;

/** Options of {@link compressModel}. */
export interface CompressModelOptions {
  /** Format of experts that are new. Default: that of the layer's former ones, where their rows fit its blocks, else f32. */
  format?: Format;
  /** Experts of a token from now on. Default: as before, at most as many as a layer has. */
  topK?: number;
  /** Called after each layer. */
  onProgress?: (done: number, total: number) => void;
  signal?: AbortSignal;
}

/**
 * Writes a GGUF model with experts that `change` has made of each layer's: pruned (`pruneByUsage`), merged (`mergeExperts`), found
 * by a search (`applyExpertPlan`). Experts that come back as they were given keep their bytes. {@link load} reads the file; so
 * does llama.cpp where all layers have as many experts, of one width. One layer is in memory, in f32, at a time.
 *
 * @param change of layer `index` of the model; without one a layer stays as it is
 * @param out path; it appears when it is complete
 * @throws `BL_UNSUPPORTED` for a model without experts, or for new experts beside routers with a bias (DeepSeek-V3)
 *
 * @example
 * ```ts
 * const counts = expertCounts(decoder, tokens);
 * await compressModel('model.gguf', 'pruned.gguf', (layer, i) => pruneByUsage(layer, counts[i] as number[], 6));
 * ```
 */
export async function compressModel(
  from: ModelSource,
  out: string,
  change: (layer: ExpertLayer, index: number) => ExpertLayer | Promise<ExpertLayer>,
  options: CompressModelOptions = {},
): Promise<void> {
  const { source, close } = openSource(from);
  try {
    const file = readGGUF(source);
    const config = readConfig(file);
    const { moe } = config;
    if (moe === undefined) throw unsupportedModel('the model has no experts, expected some');
    const made: Rewritten[] = [];
    for (let i = moe.denseLayers; i < config.numLayers; i++) {
      options.signal?.throwIfAborted();
      made.push(await rewriteLayer(file, i, change, options.format));
      options.onProgress?.(made.length, config.numLayers - moe.denseLayers);
    }
    await write(file, out, moe, made, options.topK);
  } finally {
    close();
  }
}

/** A layer's new tensors: a router, and experts one by one. */
interface Rewritten {
  index: number;
  router: Tensor<'f32'>;
  bias: Tensor<'f32'> | undefined;
  experts: Record<(typeof parts)[number], QuantizedTensor>[];
}

async function rewriteLayer(
  file: GGUFFile,
  index: number,
  change: (layer: ExpertLayer, index: number) => ExpertLayer | Promise<ExpertLayer>,
  format: Format | undefined,
): Promise<Rewritten> {
  const stored = storedExperts(file, index);
  const prefix = `blk.${index}`;
  const given: ExpertLayer = {
    router: dequantize(storedMatrix(file, tensorOf(file, `${prefix}.ffn_gate_inp.weight`))),
    experts: stored.map(decodedExpert),
  };
  const changed = await change(given, index);
  const former = changed.experts.map((expert) => given.experts.indexOf(expert));
  const biasTensor = file.tensors.get(`${prefix}.exp_probs_b.bias`);
  if (biasTensor !== undefined && former.includes(-1)) {
    throw unsupportedModel(`${prefix} has a router with a bias, expected experts as they were`);
  }
  const bias = biasTensor && new Tensor('f32', biasTensor.data(), biasTensor.shape).toArray();
  return {
    index,
    router: changed.router,
    bias:
      bias &&
      new Tensor(
        'f32',
        Float32Array.from(former, (e) => bias[e] as number),
        [former.length],
      ),
    experts: changed.experts.map((expert, i) => {
      const old = stored[former[i] as number];
      return old ?? encoded(expert, stored[0] as (typeof stored)[0], format);
    }),
  };
}

function tensorOf(file: GGUFFile, name: string) {
  const tensor = file.tensors.get(name);
  if (tensor === undefined) throw unsupportedModel(`tensor ${name} is missing`);
  return tensor;
}

function storedExperts(file: GGUFFile, index: number): Rewritten['experts'] {
  const name = (part: string, e?: number) =>
    `blk.${index}.ffn_${part}${e === undefined ? '_exps' : `.${e}`}.weight`;
  if (file.tensors.has(name('up'))) {
    const [gate, up, down] = parts.map((part) => storedStack(file, tensorOf(file, name(part))));
    return (gate as QuantizedTensor[]).map((own, e) => ({
      gate: own,
      up: up?.[e] as QuantizedTensor,
      down: down?.[e] as QuantizedTensor,
    }));
  }
  const experts: Rewritten['experts'] = [];
  while (file.tensors.has(name('up', experts.length))) {
    const e = experts.length;
    const [gate, up, down] = parts.map((part) => storedMatrix(file, tensorOf(file, name(part, e))));
    experts.push({ gate, up, down } as Rewritten['experts'][0]);
  }
  return experts;
}

function encoded(
  expert: DenseExpert,
  like: Rewritten['experts'][0],
  format: Format | undefined,
): Rewritten['experts'][0] {
  const of = (part: (typeof parts)[number]): QuantizedTensor => {
    const values = expert[part];
    if (values === undefined) {
      throw argumentError(
        'BL_INVALID_ARGUMENT',
        'compressModel: an expert has no gate, expected one',
      );
    }
    const { format: former, codebook } = like[part];
    const wanted = format ?? former;
    const cols = values.shape[1] as number;
    if (!rowsFit(wanted, cols)) return quantize(values, 'f32');
    const keeps = codebook !== undefined && wanted === former;
    return quantize(values, wanted, { method: 'mse', ...(keeps ? { codebook } : {}) });
  };
  return { gate: of('gate'), up: of('up'), down: of('down') };
}

/** The file with these layers, other tensors as they are. */
async function write(
  file: GGUFFile,
  out: string,
  moe: MoEConfig,
  layers: Rewritten[],
  topK: number | undefined,
): Promise<void> {
  const architecture = file.metadata.get('general.architecture') as string;
  const metadata = new Map(file.metadata);
  const types = new Map(file.types);
  const isExpert =
    /^blk\.\d+\.(ffn_(gate|up|down)(_exps|\.\d+)\.weight|ffn_gate_inp\.weight|exp_probs_b\.bias)$/;
  const tensors: GGUFTensorInput[] = [...file.tensors.values()]
    .filter(({ name }) => !isExpert.test(name))
    .map(({ name, type, shape, data }) => ({ name, type, shape, data: () => data() }));
  for (const key of metadata.keys()) {
    if (/^bitloom\.\w+\.blk\.\d+\.ffn_(gate|up|down)(_exps|\.\d+)\./.test(key))
      metadata.delete(key);
  }
  const most = Math.max(...layers.map(({ experts }) => experts.length));
  const least = Math.min(...layers.map(({ experts }) => experts.length));
  const used = topK ?? Math.min(moe.route.topK, least);
  if (!Number.isInteger(used) || used < 1 || used > most) {
    throw argumentError(
      'BL_OUT_OF_RANGE',
      `compressModel: topK is ${used}, expected 1 to ${most} (experts of a layer)`,
    );
  }
  metadata.set(`${architecture}.expert_count`, most);
  metadata.set(`${architecture}.expert_used_count`, used);
  const add = (name: string, shape: number[], matrices: QuantizedTensor[]): void => {
    const [{ format, codebook, tensorScale }] = matrices as [QuantizedTensor];
    const made = storeMatrix(name, format, shape, { codebook, tensorScale }, () =>
      Buffer.concat(matrices.map(({ bytes }) => bytes)),
    );
    tensors.push(made.tensor);
    for (const [key, value, type] of made.metadata) {
      metadata.set(key, value);
      types.set(key, type);
    }
  };
  const together = most === least && layers.every(({ experts }) => canStack(experts));
  for (const { index, router, bias, experts } of layers) {
    const prefix = `blk.${index}`;
    add(`${prefix}.ffn_gate_inp.weight`, [...router.shape], [quantize(router, 'f32')]);
    if (bias !== undefined) {
      tensors.push({
        ...{ name: `${prefix}.exp_probs_b.bias`, type: 'f32' },
        ...{ shape: bias.shape, data: bias.bytes },
      });
    }
    for (const part of parts) {
      const matrices = experts.map((expert) => expert[part]);
      if (together) {
        const [{ rows, cols }] = matrices as [QuantizedTensor];
        add(`${prefix}.ffn_${part}_exps.weight`, [matrices.length, rows, cols], matrices);
        continue;
      }
      for (const [e, matrix] of matrices.entries()) {
        add(`${prefix}.ffn_${part}.${e}.weight`, [matrix.rows, matrix.cols], [matrix]);
      }
    }
  }
  await writeGGUF(out, { metadata, types, tensors, alignment: file.alignment });
}

/** Whether matrices of experts may lie in one tensor. */
function canStack(experts: Rewritten['experts']): boolean {
  const [first] = experts as [Rewritten['experts'][0]];
  return experts.every((expert) =>
    parts.every((part) => {
      const [a, b] = [expert[part], first[part]];
      const sameTable =
        a.codebook === b.codebook || a.codebook?.every((x, i) => x === b.codebook?.[i]) === true;
      return (
        a.format === b.format &&
        a.rows === b.rows &&
        a.cols === b.cols &&
        a.tensorScale === b.tensorScale &&
        sameTable
      );
    }),
  );
}
