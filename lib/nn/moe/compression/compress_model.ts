// Models whose experts are changed, as files.
import { checkOptions, described } from '../../../arguments.js';
import { argumentError } from '../../../errors.js';
import type { Format } from '../../../generated.js';
import { type GGUFFile, type GGUFTensorInput, readGGUF, writeGGUF } from '../../../io/index.js';
import { dequantize } from '../../../ops/quantize/dequantize.js';
import { quantize } from '../../../ops/quantize/quantize.js';
import { formatInfo, type QuantizedTensor } from '../../../quantized_tensor.js';
import { Tensor } from '../../../tensor.js';
import { readConfig } from '../../config.js';
import { unsupportedModel } from '../../model_error.js';
import { type ModelSource, openSource } from '../../model_source.js';
import { rowsFit } from '../../requantize.js';
import { storedMatrix, storedStack, storedVector, storeMatrix } from '../../stored_tensor.js';
import type { MoEConfig } from '../config.js';
import {
  type ExpertPart,
  expertParts,
  expertTensor,
  usedCountKey,
  usedExperts,
} from '../expert_tensors.js';
import { decodedExpert } from './factors.js';
import { checkLayer, type DenseExpert, type ExpertLayer, takeBias } from './layer.js';

const known = new Set(['format', 'topK', 'onProgress', 'signal']);

// What experts have that lie in one tensor.
const stackedParts = ['gate', 'up', 'down'] as const;

/** Options of {@link compressModel}. */
export interface CompressModelOptions {
  /** Format of experts that are new. Default: that of the layer's former ones, where their rows fit its blocks, else f32. */
  format?: Format;
  /** Experts of a token from now on, for layers whose `topK` is not changed. Default: as before, at most as many as a layer has. */
  topK?: number;
  /** Called after each layer. */
  onProgress?: (done: number, total: number) => void;
  signal?: AbortSignal;
}

/**
 * Writes a GGUF model with experts that `change` has made of each layer's: pruned (`pruneByUsage`), merged (`mergeExperts`), found
 * by a search (`applyExpertPlan`), decomposed (`lowRankExperts`). Experts that come back as they were given keep their bytes.
 * {@link load} reads the file; so does llama.cpp where all layers have as many experts, of one width and of full rank. Layers whose
 * tokens go to fewer experts than others' say so in metadata, `bitloom.blk.N.expert_used_count`; the model's
 * `expert_used_count` is the most. One layer is in memory, in f32, at a time; experts in factors are given multiplied out.
 *
 * @param change of layer `index` of the model; without one a layer stays as it is
 * @param out path; it appears when it is complete
 * @throws `BL_UNSUPPORTED` for a model without experts; for new experts without `bias` where the router has one (DeepSeek-V3); for another
 *   number of experts where the router has groups, but for those that were given, equally many of each group
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
  checkOptions('compressModel', options, known);
  if (options.format !== undefined) formatInfo(options.format);
  if (typeof change !== 'function') {
    throw argumentError(
      'BL_INVALID_ARGUMENT',
      `compressModel: change is ${described(change)}, expected a function`,
    );
  }
  const { source, close } = openSource(from);
  try {
    const file = readGGUF(source);
    const config = readConfig(file);
    const { moe } = config;
    if (moe === undefined) throw unsupportedModel('the model has no experts, expected some');
    const made: Rewritten[] = [];
    for (let i = moe.denseLayers; i < config.numLayers; i++) {
      options.signal?.throwIfAborted();
      made.push(await rewriteLayer(file, i, moe, change, options));
      options.onProgress?.(made.length, config.numLayers - moe.denseLayers);
    }
    await write(file, out, made);
  } finally {
    close();
  }
}

/** An expert's matrices by part. */
type Stored = Partial<Record<ExpertPart, QuantizedTensor>>;

/** A layer's new tensors: a router, and experts one by one. */
interface Rewritten {
  index: number;
  router: Tensor<'f32'>;
  bias: Tensor<'f32'> | undefined;
  experts: Stored[];
  topK: number;
}

async function rewriteLayer(
  file: GGUFFile,
  index: number,
  moe: MoEConfig,
  change: (layer: ExpertLayer, index: number) => ExpertLayer | Promise<ExpertLayer>,
  { format, topK }: CompressModelOptions,
): Promise<Rewritten> {
  const stored = storedExperts(file, index);
  const prefix = `blk.${index}`;
  const biasTensor = file.tensors.get(`${prefix}.exp_probs_b.bias`);
  const bias = biasTensor && new Tensor('f32', storedVector(biasTensor).toArray(), [stored.length]);
  const given: ExpertLayer = {
    router: dequantize(storedMatrix(file, tensorOf(file, `${prefix}.ffn_gate_inp.weight`))),
    experts: stored.map(decoded),
    bias,
    topK: usedExperts(file, index, stored.length, moe.route.topK),
  };
  const changed = await change(given, index);
  checkLayer('compressModel', changed);
  const former = changed.experts.map((expert) => given.experts.indexOf(expert));
  if (bias !== undefined && changed.bias === undefined && former.includes(-1)) {
    throw unsupportedModel(`${prefix} has a router with a bias, expected one of new experts too`);
  }
  const own = changed.topK === given.topK ? undefined : changed.topK;
  const wanted = own ?? topK ?? (given.topK as number);
  if (!Number.isInteger(wanted) || wanted < 1 || (topK ?? 0) > moe.numExperts) {
    throw argumentError(
      'BL_OUT_OF_RANGE',
      `compressModel: topK is ${wanted}, expected 1 to ${moe.numExperts} (experts of a layer)`,
    );
  }
  const used = Math.min(wanted, former.length);
  checkGroups(prefix, former, stored.length, used, moe);
  return {
    index,
    router: changed.router,
    topK: used,
    bias: changed.bias ?? takeBias(bias, former).bias,
    experts: changed.experts.map((expert, i) => {
      const old = stored[former[i] as number];
      return old ?? encoded(expert, stored[0] as Stored, format);
    }),
  };
}

/** Groups are of consecutive experts, equally many in each. @param former number of each expert, -1: new */
function checkGroups(
  prefix: string,
  former: readonly number[],
  count: number,
  topK: number,
  { route: { numGroups = 1, topGroups = numGroups } }: MoEConfig,
): void {
  const own = former.length / numGroups;
  const stay = former.every(
    (e, i) => e >= 0 && Math.floor((e * numGroups) / count) === Math.floor(i / own),
  );
  const fits = Number.isInteger(own) && topGroups * own >= topK;
  if (numGroups === 1 || (fits && (former.length === count || stay))) return;
  throw unsupportedModel(
    `${prefix} has ${former.length} experts now, expected ${count}, or equally many of each of ${numGroups} groups ` +
      `whose ${topGroups} best have room for ${topK}`,
  );
}

function tensorOf(file: GGUFFile, name: string) {
  const tensor = file.tensors.get(name);
  if (tensor === undefined) throw unsupportedModel(`tensor ${name} is missing`);
  return tensor;
}

function storedExperts(file: GGUFFile, index: number): Stored[] {
  if (file.tensors.has(expertTensor(index, 'up'))) {
    const [gate, up, down] = stackedParts.map((part) =>
      storedStack(file, tensorOf(file, expertTensor(index, part))),
    );
    return (gate as QuantizedTensor[]).map((own, e) => ({
      gate: own,
      up: up?.[e] as QuantizedTensor,
      down: down?.[e] as QuantizedTensor,
    }));
  }
  const experts: Stored[] = [];
  while (file.tensors.has(expertTensor(index, 'up', experts.length))) {
    const own: Stored = {};
    for (const part of expertParts) {
      const tensor = file.tensors.get(expertTensor(index, part, experts.length));
      if (tensor !== undefined) own[part] = storedMatrix(file, tensor);
    }
    experts.push(own);
  }
  return experts;
}

function decoded(stored: Stored): DenseExpert {
  const { gate, up, down, reduce, expand, gate_kept, up_kept, down_kept } = stored;
  if (up === undefined || down === undefined) {
    throw unsupportedModel('an expert has no up or down, expected both');
  }
  if (up_kept === undefined || down_kept === undefined) {
    return decodedExpert({ gate, up, down, reduce, expand });
  }
  return decodedExpert(
    { gate, up, down, reduce, expand },
    { gate: gate_kept, up: up_kept, down: down_kept },
  );
}

// In whose format new matrices are.
const like: Record<ExpertPart, (typeof stackedParts)[number]> = {
  ...{ gate: 'gate', up: 'up', down: 'down', reduce: 'up', expand: 'down' },
  ...{ gate_kept: 'gate', up_kept: 'up', down_kept: 'down' },
};

function encoded(expert: DenseExpert, former: Stored, format: Format | undefined): Stored {
  const { gate, up, down, reduce, expand, kept } = expert;
  if (gate === undefined) {
    throw argumentError(
      'BL_INVALID_ARGUMENT',
      'compressModel: an expert has no gate, expected one',
    );
  }
  const values: Partial<Record<ExpertPart, Tensor<'f32'> | undefined>> = {
    ...{ gate, up, down, reduce, expand },
    ...{ gate_kept: kept?.gate, up_kept: kept?.up, down_kept: kept?.down },
  };
  const made: Stored = {};
  for (const part of expertParts) {
    const matrix = values[part];
    if (matrix !== undefined) {
      made[part] = encodedMatrix(matrix, former[like[part]] as QuantizedTensor, format);
    }
  }
  return made;
}

function encodedMatrix(
  values: Tensor<'f32'>,
  former: QuantizedTensor,
  format: Format | undefined,
): QuantizedTensor {
  const wanted = format ?? former.format;
  if (!rowsFit(wanted, values.shape[1] as number)) return quantize(values, 'f32');
  const { codebook } = former;
  const keeps = codebook !== undefined && wanted === former.format;
  return quantize(values, wanted, { method: 'mse', ...(keeps ? { codebook } : {}) });
}

/** The file with these layers, other tensors as they are. */
async function write(file: GGUFFile, out: string, layers: Rewritten[]): Promise<void> {
  const architecture = file.metadata.get('general.architecture') as string;
  const metadata = new Map(file.metadata);
  const types = new Map(file.types);
  const isExpert =
    /^blk\.\d+\.(ffn_(gate|up|down|reduce|expand)(_exps|(_kept)?\.\d+)\.weight|ffn_gate_inp\.weight|exp_probs_b\.bias)$/;
  const tensors: GGUFTensorInput[] = [...file.tensors.values()]
    .filter(({ name }) => !isExpert.test(name))
    .map(({ name, type, shape, data }) => ({ name, type, shape, data: () => data() }));
  for (const key of metadata.keys()) {
    if (
      /^bitloom\.\w+\.blk\.\d+\.ffn_(gate|up|down|reduce|expand)(_exps|(_kept)?\.\d+)\./.test(
        key,
      ) ||
      /^bitloom\.blk\.\d+\.expert_used_count$/.test(key)
    ) {
      metadata.delete(key);
      types.delete(key);
    }
  }
  const most = Math.max(...layers.map(({ experts }) => experts.length));
  const least = Math.min(...layers.map(({ experts }) => experts.length));
  const used = Math.max(...layers.map((layer) => layer.topK));
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
  for (const { index, router, bias, experts, topK } of layers) {
    const prefix = `blk.${index}`;
    if (topK !== Math.min(used, experts.length)) {
      metadata.set(usedCountKey(index), topK);
      types.set(usedCountKey(index), 'u32');
    }
    add(`${prefix}.ffn_gate_inp.weight`, [...router.shape], [quantize(router, 'f32')]);
    if (bias !== undefined) {
      tensors.push({
        ...{ name: `${prefix}.exp_probs_b.bias`, type: 'f32' },
        ...{ shape: bias.shape, data: bias.bytes },
      });
    }
    for (const part of expertParts) {
      const matrices = experts.map((expert) => expert[part]);
      if (together && matrices[0] !== undefined) {
        const { rows, cols } = matrices[0];
        const all = matrices as QuantizedTensor[];
        add(expertTensor(index, part), [all.length, rows, cols], all);
        continue;
      }
      for (const [e, matrix] of matrices.entries()) {
        if (matrix === undefined) continue;
        add(expertTensor(index, part, e), [matrix.rows, matrix.cols], [matrix]);
      }
    }
  }
  await writeGGUF(out, { metadata, types, tensors, alignment: file.alignment });
}

/** Whether matrices of experts may lie in one tensor. */
function canStack(experts: Stored[]): boolean {
  const [first = {}] = experts;
  return experts.every((expert) =>
    expertParts.every((part) => {
      const [a, b] = [expert[part], first[part]];
      // Factors and neurons that were kept have tensors of their own.
      if (part !== like[part]) return a === undefined;
      if (a === undefined || b === undefined) return false;
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
