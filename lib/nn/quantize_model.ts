import type { Format } from '../generated.js';
import {
  type GGUFFile,
  type GGUFTensor,
  type GGUFTensorInput,
  type GGUFValue,
  type GGUFValueType,
  readGGUF,
  writeGGUF,
} from '../io/index.js';
import type { QuantizeMethod } from '../ops/quantize/quantize.js';
import { formatInfo, type QuantizedTensor, takesCodebook } from '../quantized_tensor.js';
import type { RunOptions } from '../run.js';
import { readConfig } from './config.js';
import type { Progress } from './load.js';
import { type ModelSource, openSource } from './model_source.js';
import { defaultTensorScale, requantize, rowsFit } from './requantize.js';
import {
  isRouter,
  isStorageKey,
  storedMatrix,
  storedShape,
  storeMatrix,
  tensorFormat,
} from './stored_tensor.js';

/** Options of {@link quantizeModel}. */
export interface QuantizeModelOptions extends RunOptions {
  /** Default: `'minmax'`. */
  method?: QuantizeMethod;
  /** Table of the cb<bits> formats. */
  codebook?: Float32Array | readonly number[];
  /** Format of the embedding and the output matrix, which low bits hurt most. Default: the format of all. */
  embedding?: Format;
  /** Called after each tensor. */
  onProgress?: (progress: Progress) => void;
  signal?: AbortSignal;
}

// `general.file_type` of llama.cpp for a file that is mostly of one type; other formats have none.
const fileTypes: Partial<Record<Format, number>> = {
  f32: 0,
  f16: 1,
  q4_0: 2,
  q4_1: 3,
  q8_0: 7,
  q5_0: 8,
  q5_1: 9,
  q2_k: 10,
  q3_k: 12,
  q4_k: 15,
  q5_k: 17,
  q6_k: 18,
  iq4_nl: 25,
  bf16: 32,
  tq1_0: 36,
  tq2_0: 37,
};

/**
 * Writes a GGUF model with its matrices in another format, one matrix in memory at a time. Vectors (norms, biases) and
 * matrices whose rows do not fit the format's blocks stay as they are. Types of GGUF are written as such, and
 * llama.cpp reads the file; bitloom's own formats are bytes that only bitloom reads (`stored_tensor.ts` says how).
 *
 * @param out path; it appears when it is complete
 * @throws as `load`; errors of `node:fs` as they are
 *
 * @example
 * ```ts
 * await quantizeModel('model-f16.gguf', 'model-q4_0.gguf', 'q4_0', { method: 'mse' });
 * ```
 */
export async function quantizeModel(
  from: ModelSource,
  out: string,
  format: Format,
  options: QuantizeModelOptions = {},
): Promise<void> {
  formatInfo(format);
  if (options.embedding !== undefined) formatInfo(options.embedding);
  const { source, close } = openSource(from);
  try {
    const file = readGGUF(source);
    readConfig(file);
    const plans = [...file.tensors.values()].map((tensor) => plan(file, tensor, format, options));
    const total = plans.reduce((sum, { weights }) => sum + weights, 0);
    const tensors: GGUFTensorInput[] = [];
    const { metadata, types } = header(file, format);
    let done = 0;
    for (const { tensor, target, weights } of plans) {
      if (target === undefined) {
        tensors.push({
          name: tensor.name,
          type: tensor.type,
          shape: tensor.shape,
          data: () => tensor.data(),
        });
        continue;
      }
      const { stored, codebook } = target;
      const tensorScale =
        target.format === stored.format
          ? stored.tensorScale
          : await defaultTensorScale(stored, target.format, options);
      const made = storeMatrix(
        tensor.name,
        target.format,
        storedShape(file, tensor),
        { codebook, tensorScale },
        async () => {
          options.signal?.throwIfAborted();
          const matrix = await convert(stored, target.format, { ...options, tensorScale });
          done += weights;
          options.onProgress?.({ tensor: tensor.name, done, total });
          return matrix.bytes;
        },
      );
      tensors.push(made.tensor);
      for (const [key, value, type] of made.metadata) {
        metadata.set(key, value);
        types.set(key, type);
      }
    }
    await writeGGUF(out, { metadata, types, tensors, alignment: file.alignment });
  } finally {
    close();
  }
}

interface TensorPlan {
  tensor: GGUFTensor;
  /** What to make of it; undefined: a copy. */
  target?: { stored: QuantizedTensor; format: Format; codebook: Float32Array | undefined };
  /** Weights of a matrix to write; 0 for a copy. */
  weights: number;
}

function plan(
  file: GGUFFile,
  tensor: GGUFTensor,
  format: Format,
  { embedding, codebook }: QuantizeModelOptions,
): TensorPlan {
  const shape = storedShape(file, tensor);
  const isMatrix = shape.length === 2 || shape.length === 3;
  if (!isMatrix || isRouter(tensor.name) || tensorFormat(file, tensor) === undefined) {
    return { tensor, weights: 0 };
  }
  const stored = storedMatrix(file, tensor);
  const isTable = tensor.name === 'token_embd.weight' || tensor.name === 'output.weight';
  const wanted = isTable ? (embedding ?? format) : format;
  const target = rowsFit(wanted, stored.cols) ? wanted : stored.format;
  const table = target === stored.format ? stored.codebook : tableOf(target, codebook);
  const weights = stored.rows * stored.cols;
  return { tensor, weights, target: { stored, format: target, codebook: table } };
}

function tableOf(
  format: Format,
  codebook: QuantizeModelOptions['codebook'],
): Float32Array | undefined {
  if (!takesCodebook(format) || codebook === undefined) return undefined;
  return Float32Array.from(codebook);
}

async function convert(
  stored: QuantizedTensor,
  format: Format,
  {
    method,
    codebook,
    tensorScale,
    signal,
    isa,
    threads,
  }: QuantizeModelOptions & { tensorScale: number },
): Promise<QuantizedTensor> {
  if (format === stored.format) return stored;
  return requantize(stored, format, {
    tensorScale,
    ...(method === undefined ? {} : { method }),
    ...(tableOf(format, codebook) === undefined ? {} : { codebook: codebook as Float32Array }),
    ...(signal === undefined ? {} : { signal }),
    ...(isa === undefined ? {} : { isa }),
    ...(threads === undefined ? {} : { threads }),
  });
}

/** Metadata of the new file: the old one's, but for what the types of the tensors change. */
function header(
  file: GGUFFile,
  format: Format,
): { metadata: Map<string, GGUFValue>; types: Map<string, GGUFValueType> } {
  const metadata = new Map([...file.metadata].filter(([key]) => !isStorageKey(key)));
  const types = new Map([...file.types].filter(([key]) => metadata.has(key)));
  const fileType = fileTypes[format];
  metadata.delete('general.file_type');
  types.delete('general.file_type');
  if (fileType !== undefined) {
    metadata.set('general.file_type', fileType);
    types.set('general.file_type', 'u32');
  }
  metadata.set('general.quantization_version', 2);
  types.set('general.quantization_version', 'u32');
  return { metadata, types };
}
