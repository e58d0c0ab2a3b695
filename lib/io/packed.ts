// Packed weights in a file, to be mapped and used where they lie: a safetensors file of one u8 tensor per matrix, its
// bytes as they are in memory. What they mean stands in the metadata, as JSON, under `bitloom.weights.<name>`:
//
//   {"format":"u4_g128","layout":"lanes16","rows":4096,"cols":4096}
//
// and "codebook": [2^bits numbers] for cb<bits>, [tables * 2^bits] for cbs<bits> with tables of its own, "tensorScale": number where it is not 1.
// Of a mixed tensor, whose matrices follow each other, each from a multiple of 64 on:
//
//   {"rows":4096,"cols":512,"groupSize":128,"widths":"4223","parts":[{"format":"u2_g128",...},...]}
//
// with a digit for the bits of each group of columns, and a part for each width that occurs, narrowest first.
import { argumentError } from '../errors.js';
import { MixedTensor } from '../mixed_tensor.js';
import { QuantizedTensor } from '../quantized_tensor.js';
import { quote } from './cursor.js';
import { mapFile } from './map_file.js';
import { type Described, describe, fail, matrixOf } from './packed_description.js';
import { readSafetensors, type SafetensorsFile, type SafetensorsTensor } from './safetensors.js';
import { type SafetensorsContent, writeSafetensors } from './safetensors_write.js';
import type { ByteSource } from './source.js';

const PREFIX = 'bitloom.weights.';

/** Matrices by name. */
export type NamedWeights =
  | ReadonlyMap<string, QuantizedTensor | MixedTensor>
  | Readonly<Record<string, QuantizedTensor | MixedTensor>>;

/** What {@link readPacked} gives: views of the source. */
export interface PackedWeights {
  readonly weights: ReadonlyMap<string, QuantizedTensor>;
  /** Those whose groups of columns have widths of their own. */
  readonly mixed: ReadonlyMap<string, MixedTensor>;
}

/** What {@link loadPacked} gives: views of the mapped file. */
export interface PackedFile extends PackedWeights {
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
    if (!(matrix instanceof QuantizedTensor) && !(matrix instanceof MixedTensor)) {
      throw argumentError(
        'BL_INVALID_ARGUMENT',
        `savePacked: ${quote(String(name))} is no QuantizedTensor or MixedTensor`,
      );
    }
    const described = describe(matrix);
    metadata.set(PREFIX + name, described.json);
    return { name, type: 'u8', shape: [described.bytes], data: () => joined(described) };
  });
  // The data begins at a multiple of 64, a cache line; matrices of whole lines come first and so keep to it.
  const crooked = ({ shape }: { shape: number[] }) => Number((shape[0] as number) % 64 !== 0);
  tensors.sort((a, b) => crooked(a) - crooked(b));
  return { metadata, tensors };
}

/** A matrix that lies in one piece is not copied. */
function joined({ bytes, pieces }: Described): Uint8Array {
  const [first] = pieces;
  if (pieces.length === 1 && first !== undefined) return first.bytes;
  const all = new Uint8Array(bytes);
  for (const piece of pieces) all.set(piece.bytes, piece.offset);
  return all;
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
    const { weights, mixed } = readPacked(source);
    const dispose = () => {
      for (const matrix of [...weights.values(), ...mixed.values()]) matrix.dispose();
      source.dispose();
    };
    return { weights, mixed, dispose, [Symbol.dispose]: dispose };
  } catch (error) {
    source.dispose();
    throw error;
  }
}

/** {@link loadPacked} of a source of one's own, which stays open: the matrices are views of it. */
export function readPacked(source: ByteSource): PackedWeights {
  const file = readSafetensors(source);
  const weights = new Map<string, QuantizedTensor>();
  const mixed = new Map<string, MixedTensor>();
  for (const tensor of file.tensors.values()) {
    const matrix = readMatrix(file, tensor);
    if (matrix instanceof MixedTensor) mixed.set(tensor.name, matrix);
    else weights.set(tensor.name, matrix);
  }
  for (const key of file.metadata.keys()) {
    if (key.startsWith(PREFIX) && !file.tensors.has(key.slice(PREFIX.length))) {
      fail(`metadata ${quote(key)} describes no tensor of the file`);
    }
  }
  return { weights, mixed };
}

function readMatrix(
  file: SafetensorsFile,
  tensor: SafetensorsTensor,
): QuantizedTensor | MixedTensor {
  const what = `tensor ${quote(tensor.name)}`;
  const key = PREFIX + tensor.name;
  const text = file.metadata.get(key);
  if (text === undefined) return fail(`${what} has no metadata ${quote(key)}`);
  return matrixOf(text, key, what, (bytes, shown) => {
    if (tensor.type === 'u8' && tensor.shape.length === 1 && tensor.bytes === bytes) {
      return tensor.data();
    }
    return fail(
      `${what} is ${tensor.type} [${tensor.shape.join(', ')}], expected u8 [${bytes}] (${shown})`,
    );
  });
}
