// How weights stand in a GGUF file: GGUF's own types as they are, bitloom's formats as bytes.
//
// GGUF has no numbers for bitloom's formats (u4_g128, nf4_g64, ...). Such a matrix is a tensor of type i8 and shape
// [bytes], and the metadata says what the bytes mean:
//
//   bitloom.format.<tensor>    "u4_g128"
//   bitloom.shape.<tensor>     [rows, cols], or [count, rows, cols]: as many matrices, one after the other
//   bitloom.codebook.<tensor>  [2^bits floats] or, cbs formats with tables of their own, [tables * 2^bits]
//   bitloom.tensor_scale.<tensor>  what decoded weights are multiplied by, if not 1
import { type Format, type FormatInfo, formats } from '../generated.js';
import type {
  GGUFFile,
  GGUFTensor,
  GGUFTensorInput,
  GGUFValue,
  GGUFValueType,
} from '../io/index.js';
import { QuantizedTensor, weightsBytes } from '../quantized_tensor.js';
import { Tensor } from '../tensor.js';
import { invalidModel, unsupportedModel } from './model_error.js';

const prefixes = {
  format: 'bitloom.format.',
  shape: 'bitloom.shape.',
  codebook: 'bitloom.codebook.',
  tensorScale: 'bitloom.tensor_scale.',
} as const;

/** Whether a metadata key is part of this scheme. */
export function isStorageKey(key: string): boolean {
  return Object.values(prefixes).some((prefix) => key.startsWith(prefix));
}

/** What chooses a layer's experts: never quantized, since it is small and llama.cpp wants floats. */
export const isRouter = (name: string): boolean => name.includes('ffn_gate_inp');

/** Shape that a tensor of the file means, `[rows..., cols]`. */
export function storedShape(file: GGUFFile, tensor: GGUFTensor): readonly number[] {
  return storedFormat(file, tensor.name)?.shape ?? tensor.shape;
}

interface StoredFormat {
  format: Format;
  shape: number[];
  codebook: number[] | undefined;
  tensorScale: number;
}

function storedFormat(file: GGUFFile, name: string): StoredFormat | undefined {
  const format = file.metadata.get(prefixes.format + name);
  if (format === undefined) return undefined;
  if (typeof format !== 'string' || !Object.hasOwn(formats, format)) {
    throw unsupportedModel(
      `metadata ${prefixes.format}${name} is ${JSON.stringify(String(format).slice(0, 80))}, expected a weight format`,
    );
  }
  const shape = numbers(file, prefixes.shape + name);
  if (
    shape === undefined ||
    (shape.length !== 2 && shape.length !== 3) ||
    !shape.every((size) => Number.isSafeInteger(size) && size > 0)
  ) {
    throw invalidModel(
      `metadata ${prefixes.shape}${name} is [${shape ?? ''}], expected [rows, cols] or [count, rows, cols]`,
    );
  }
  return {
    format: format as Format,
    shape,
    codebook: numbers(file, prefixes.codebook + name),
    tensorScale: tensorScale(file, prefixes.tensorScale + name),
  };
}

function tensorScale(file: GGUFFile, key: string): number {
  const value = file.metadata.get(key) ?? 1;
  if (typeof value !== 'number' || !(value > 0) || !Number.isFinite(value)) {
    throw invalidModel(
      `metadata ${key} is ${String(value).slice(0, 80)}, expected a positive number`,
    );
  }
  return value;
}

function numbers(file: GGUFFile, key: string): number[] | undefined {
  const value = file.metadata.get(key);
  if (value === undefined) return undefined;
  if (!Array.isArray(value) || !value.every((entry) => typeof entry === 'number')) {
    throw invalidModel(`metadata ${key} is not an array of numbers`);
  }
  return value as number[];
}

/** Weight format that a tensor of the file has, if bitloom computes with it. */
export function tensorFormat(file: GGUFFile, tensor: GGUFTensor): Format | undefined {
  const stored = storedFormat(file, tensor.name);
  if (stored !== undefined) return stored.format;
  const info = Object.hasOwn(formats, tensor.type) ? formats[tensor.type as Format] : undefined;
  return info !== undefined && info.ggufType >= 0 ? (tensor.type as Format) : undefined;
}

/** A matrix of the file as a view of its bytes: no copy, no page touched. Of a stack, all of its rows. */
export function storedMatrix(file: GGUFFile, tensor: GGUFTensor): QuantizedTensor {
  const format = tensorFormat(file, tensor);
  if (format === undefined) {
    throw unsupportedModel(
      `tensor ${tensor.name} has type ${tensor.type}, expected f32, f16, bf16, q8_0, q4_0 or another format of bitloom`,
    );
  }
  const stored = storedFormat(file, tensor.name);
  const shape = stored?.shape ?? tensor.shape;
  const cols = shape.at(-1) as number;
  const rows = shape.slice(0, -1).reduce((product, size) => product * size, 1);
  try {
    const options = {
      ...(stored?.codebook === undefined ? {} : { codebook: stored.codebook }),
      tensorScale: stored?.tensorScale ?? 1,
    };
    const expected = weightsBytes(format, rows, cols);
    if (tensor.bytes !== expected) {
      throw invalidModel(
        `tensor ${tensor.name} has ${tensor.bytes} bytes, expected ${expected} (${format} [${rows}, ${cols}])`,
      );
    }
    return new QuantizedTensor(format, tensor.data(), [rows, cols], options);
  } catch (cause) {
    if ((cause as { code?: string }).code === 'BL_INVALID_FILE') throw cause;
    throw Object.assign(invalidModel(`tensor ${tensor.name}: ${(cause as Error).message}`), {
      cause,
    });
  }
}

/** The matrices of a tensor [count, rows, cols] as views of its bytes. */
export function storedStack(file: GGUFFile, tensor: GGUFTensor): QuantizedTensor[] {
  const [count = 0, rows = 0] = storedShape(file, tensor);
  const { format, bytes, cols, codebook, tensorScale } = storedMatrix(file, tensor);
  const each = weightsBytes(format, rows, cols);
  return Array.from(
    { length: count },
    (_, i) =>
      new QuantizedTensor(format, bytes.subarray(i * each, (i + 1) * each), [rows, cols], {
        tensorScale,
        ...(codebook === undefined ? {} : { codebook }),
      }),
  );
}

/** A vector of the file (norm, bias) as a view of its bytes. */
export function storedVector(tensor: GGUFTensor): Tensor<'f32'> | Tensor<'f16'> | Tensor<'bf16'> {
  const { type, name, shape } = tensor;
  if (type !== 'f32' && type !== 'f16' && type !== 'bf16') {
    throw unsupportedModel(`tensor ${name} has type ${type}, expected f32, f16 or bf16`);
  }
  return new Tensor(type, tensor.data(), shape) as Tensor<'f32'>;
}

/** A matrix, or a stack [count, rows, cols], as a tensor to write, with the metadata that its format needs. */
export function storeMatrix(
  name: string,
  format: Format,
  shape: readonly number[],
  { codebook, tensorScale }: { codebook: Float32Array | undefined; tensorScale: number },
  data: GGUFTensorInput['data'],
): { tensor: GGUFTensorInput; metadata: [string, GGUFValue, GGUFValueType][] } {
  const info: FormatInfo = formats[format];
  if (info.ggufType >= 0) return { tensor: { name, type: format, shape, data }, metadata: [] };
  const metadata: [string, GGUFValue, GGUFValueType][] = [
    [prefixes.format + name, format, 'string'],
    [prefixes.shape + name, [...shape], 'u64[]'],
  ];
  if (codebook !== undefined) metadata.push([prefixes.codebook + name, [...codebook], 'f32[]']);
  if (tensorScale !== 1) metadata.push([prefixes.tensorScale + name, tensorScale, 'f32']);
  const rows = shape.slice(0, -1).reduce((product, size) => product * size, 1);
  const bytes = weightsBytes(format, rows, shape.at(-1) as number);
  return { tensor: { name, type: 'i8', shape: [bytes], data }, metadata };
}
