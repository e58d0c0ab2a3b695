// Packed weights in a file, to be mapped and used where they lie: a safetensors file of one u8 tensor per matrix, its
// bytes as they are in memory. What they mean stands in the metadata, as JSON, under `bitloom.weights.<name>`:
//
//   {"format":"u4_g128","layout":"lanes16","rows":4096,"cols":4096}
//
// and "codebook": [2^bits numbers] for cb<bits>, [tables * 2^bits] for cbs<bits> with tables of its own, "tensorScale": number where it is not 1.
import { argumentError, BitloomError } from '../errors.js';
import { formats } from '../generated.js';
import {
  type Layout,
  QuantizedTensor,
  type QuantizedTensorOptions,
  weightsBytes,
} from '../quantized_tensor.js';
import { quote } from './cursor.js';
import { mapFile } from './map_file.js';
import { readSafetensors, type SafetensorsFile, type SafetensorsTensor } from './safetensors.js';
import { type SafetensorsContent, writeSafetensors } from './safetensors_write.js';
import type { ByteSource } from './source.js';

const PREFIX = 'bitloom.weights.';
const members = ['format', 'layout', 'rows', 'cols', 'codebook', 'tensorScale'] as const;
const layouts: readonly string[] = ['canonical', 'lanes16', 'fragments'] satisfies Layout[];

/** Matrices by name. */
export type NamedWeights =
  | ReadonlyMap<string, QuantizedTensor>
  | Readonly<Record<string, QuantizedTensor>>;

/** What {@link loadPacked} gives. */
export interface PackedFile {
  /** The matrices, as views of the mapped file. */
  readonly weights: ReadonlyMap<string, QuantizedTensor>;
  /** Unmaps the file; no matrix of it may be used after. */
  dispose(): void;
  /** {@link dispose}, for `using`. */
  [Symbol.dispose](): void;
}

/**
 * Writes matrices to a file that {@link loadPacked} maps, each in the layout it has: pack them first. The file appears
 * under its name only when it is complete.
 *
 * @throws TypeError `BL_INVALID_ARGUMENT` for what is no matrix or a name that is no text, `BL_DETACHED` for a matrix
 *   that is disposed of, errors of `node:fs` as they are
 *
 * @example
 * await savePacked('layer.safetensors', { up: packWeights(up), down: packWeights(down) });
 */
export async function savePacked(path: string, weights: NamedWeights): Promise<void> {
  await writeSafetensors(path, packedContent(weights));
}

/** The safetensors file that holds these matrices. */
export function packedContent(weights: NamedWeights): SafetensorsContent {
  const entries = weights instanceof Map ? [...weights] : Object.entries(weights);
  const metadata = new Map<string, string>();
  const tensors = entries.map(([name, matrix]) => {
    if (!(matrix instanceof QuantizedTensor)) {
      throw argumentError(
        'BL_INVALID_ARGUMENT',
        `savePacked: ${quote(String(name))} is no QuantizedTensor`,
      );
    }
    const { format, layout, rows, cols, codebook, tensorScale } = matrix;
    const bytes = weightsBytes(format, rows, cols, layout);
    const description = {
      format,
      layout,
      rows,
      cols,
      ...(codebook && { codebook: [...codebook] }),
      ...(tensorScale === 1 ? {} : { tensorScale }),
    };
    metadata.set(PREFIX + name, JSON.stringify(description));
    return { name, type: 'u8', shape: [bytes], data: matrix.bytes.subarray(0, bytes) };
  });
  // The data begins at a multiple of 64, a cache line; matrices of whole lines come first and so keep to it.
  tensors.sort((a, b) => Number(a.data.length % 64 !== 0) - Number(b.data.length % 64 !== 0));
  return { metadata, tensors };
}

/**
 * Maps a file that {@link savePacked} wrote: the matrices are views of the mapping, nothing is copied, and no weight is
 * read before it is used. Everything the file says about them is checked.
 *
 * @throws BitloomError `BL_INVALID_FILE` for a damaged file or one of other contents, `BL_UNSUPPORTED` for formats and
 *   layouts this version does not know, `BL_NOT_FOUND` without such a file
 *
 * @example
 * const file = loadPacked('layer.safetensors');
 * const y = matmul(x, file.weights.get('up')!);
 * file.dispose();
 */
export function loadPacked(path: string): PackedFile {
  const source = mapFile(path);
  try {
    const weights = readPacked(source);
    const dispose = () => {
      for (const matrix of weights.values()) matrix.dispose();
      source.dispose();
    };
    return { weights, dispose, [Symbol.dispose]: dispose };
  } catch (error) {
    source.dispose();
    throw error;
  }
}

/** {@link loadPacked} of a source of one's own, which stays open: the matrices are views of it. */
export function readPacked(source: ByteSource): Map<string, QuantizedTensor> {
  const file = readSafetensors(source);
  const weights = new Map<string, QuantizedTensor>();
  for (const tensor of file.tensors.values()) weights.set(tensor.name, matrixOf(file, tensor));
  for (const key of file.metadata.keys()) {
    if (key.startsWith(PREFIX) && !weights.has(key.slice(PREFIX.length))) {
      fail(`metadata ${quote(key)} describes no tensor of the file`);
    }
  }
  return weights;
}

function fail(
  message: string,
  code: 'BL_INVALID_FILE' | 'BL_UNSUPPORTED' = 'BL_INVALID_FILE',
): never {
  throw new BitloomError(code, `readPacked: ${message}`);
}

function matrixOf(file: SafetensorsFile, tensor: SafetensorsTensor): QuantizedTensor {
  const what = `tensor ${quote(tensor.name)}`;
  const { format, layout, rows, cols, codebook, tensorScale } = descriptionOf(
    file,
    tensor.name,
    what,
  );
  if (typeof format !== 'string' || !Object.hasOwn(formats, format)) {
    fail(`${what} has format ${show(format)}, expected e.g. q4_0 or u4_g128`, 'BL_UNSUPPORTED');
  }
  if (typeof layout !== 'string' || !layouts.includes(layout)) {
    fail(`${what} has layout ${show(layout)}, expected ${layouts.join(' or ')}`, 'BL_UNSUPPORTED');
  }
  const name = format as keyof typeof formats;
  const options: QuantizedTensorOptions = { layout: layout as Layout };
  if (codebook !== undefined) options.codebook = checkedNumbers(codebook, what);
  if (tensorScale !== undefined)
    options.tensorScale = checkedNumbers([tensorScale], what)[0] as number;
  let expected: number;
  try {
    // The tensors' own checks: whole numbers, rows that the format takes, a codebook where one is needed.
    expected = weightsBytes(name, rows as number, cols as number, options.layout);
    if (tensor.type === 'u8' && tensor.shape.length === 1 && tensor.bytes === expected) {
      return new QuantizedTensor(name, tensor.data(), [rows as number, cols as number], options);
    }
  } catch (cause) {
    throw new BitloomError('BL_INVALID_FILE', `readPacked: ${what}: ${messageOf(cause)}`, {
      cause,
    });
  }
  return fail(
    `${what} is ${tensor.type} [${tensor.shape.join(', ')}], expected u8 [${expected}] (${name} [${rows}, ${cols}])`,
  );
}

function descriptionOf(
  file: SafetensorsFile,
  name: string,
  what: string,
): Record<(typeof members)[number], unknown> {
  const text = file.metadata.get(PREFIX + name);
  if (text === undefined) fail(`${what} has no metadata ${quote(PREFIX + name)}`);
  let value: unknown;
  try {
    value = JSON.parse(text as string);
  } catch {
    fail(`metadata ${quote(PREFIX + name)} is not JSON`);
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    fail(`metadata ${quote(PREFIX + name)} is ${show(value)}, expected an object`);
  }
  // Own members only: a name such as "constructor" must not be found where the file has none.
  const own = (key: string) =>
    Object.hasOwn(value as object, key) ? (value as Record<string, unknown>)[key] : undefined;
  return Object.fromEntries(members.map((key) => [key, own(key)])) as ReturnType<
    typeof descriptionOf
  >;
}

function checkedNumbers(values: unknown, what: string): number[] {
  const ok = Array.isArray(values) && values.every((entry) => typeof entry === 'number');
  if (!ok) fail(`${what} has ${show(values)}, expected numbers`);
  return values as number[];
}

/** A value from a file, short enough for a message. */
function show(value: unknown): string {
  const text = JSON.stringify(value) ?? 'undefined';
  return text.length > 80 ? `${text.slice(0, 80)}…` : text;
}

function messageOf(cause: unknown): string {
  return String((cause as Error).message).slice(0, 300);
}
