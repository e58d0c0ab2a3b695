/** A tensor type of GGML as it stands in GGUF files. */
export interface GGMLType {
  /** Lower-case name, such as `q4_0`. */
  readonly name: string;
  /** Number in the file. */
  readonly id: number;
  /** Values in a block; the length of a row is a multiple of it. */
  readonly blockSize: number;
  /** Bytes of a block. */
  readonly blockBytes: number;
}

// name, id, values in a block, bytes of a block. Names and ids: ggml.h; sizes: the structs in ggml-common.h, written as
// scales + codes. q8_1 is two halves and 32 codes there (some tables elsewhere still show its older 40 bytes).
const ROWS: readonly (readonly [string, number, number, number])[] = [
  ['f32', 0, 1, 4],
  ['f16', 1, 1, 2],
  ['q4_0', 2, 32, 2 + 16],
  ['q4_1', 3, 32, 4 + 16],
  ['q5_0', 6, 32, 2 + 4 + 16],
  ['q5_1', 7, 32, 4 + 4 + 16],
  ['q8_0', 8, 32, 2 + 32],
  ['q8_1', 9, 32, 4 + 32],
  ['q2_k', 10, 256, 4 + 16 + 64],
  ['q3_k', 11, 256, 2 + 12 + 32 + 64],
  ['q4_k', 12, 256, 4 + 12 + 128],
  ['q5_k', 13, 256, 4 + 12 + 32 + 128],
  ['q6_k', 14, 256, 2 + 16 + 64 + 128],
  ['q8_k', 15, 256, 4 + 32 + 256],
  ['iq2_xxs', 16, 256, 2 + 64],
  ['iq2_xs', 17, 256, 2 + 8 + 64],
  ['iq3_xxs', 18, 256, 2 + 32 + 64],
  ['iq1_s', 19, 256, 2 + 16 + 32],
  ['iq4_nl', 20, 32, 2 + 16],
  ['iq3_s', 21, 256, 2 + 4 + 8 + 32 + 64],
  ['iq2_s', 22, 256, 2 + 8 + 8 + 64],
  ['iq4_xs', 23, 256, 2 + 2 + 4 + 128],
  ['i8', 24, 1, 1],
  ['i16', 25, 1, 2],
  ['i32', 26, 1, 4],
  ['i64', 27, 1, 8],
  ['f64', 28, 1, 8],
  ['iq1_m', 29, 256, 8 + 16 + 32],
  ['bf16', 30, 1, 2],
  ['tq1_0', 34, 256, 2 + 4 + 48],
  ['tq2_0', 35, 256, 2 + 64],
  ['mxfp4', 39, 32, 1 + 16],
  ['nvfp4', 40, 64, 4 + 32],
  ['q1_0', 41, 128, 2 + 16],
  ['q2_0', 42, 64, 2 + 16],
];

// Numbers that once were types: an old file deserves a better answer than "unknown type".
const REMOVED: ReadonlyMap<number, string> = new Map([
  [4, 'q4_2'],
  [5, 'q4_3'],
  [31, 'q4_0_4_4'],
  [32, 'q4_0_4_8'],
  [33, 'q4_0_8_8'],
  [36, 'iq4_nl_4_4'],
  [37, 'iq4_nl_4_8'],
  [38, 'iq4_nl_8_8'],
]);

/** Every tensor type that GGUF files may hold, in the order of their numbers. */
export const GGML_TYPES: readonly GGMLType[] = ROWS.map(([name, id, blockSize, blockBytes]) => ({
  name,
  id,
  blockSize,
  blockBytes,
}));

const BY_NAME: ReadonlyMap<string, GGMLType> = new Map(GGML_TYPES.map((type) => [type.name, type]));
const BY_ID: ReadonlyMap<number, GGMLType> = new Map(GGML_TYPES.map((type) => [type.id, type]));

/** The type with a name (`q4_0`) or a number (2), if there is one. */
export function ggmlType(nameOrId: string | number): GGMLType | undefined {
  return typeof nameOrId === 'string' ? BY_NAME.get(nameOrId) : BY_ID.get(nameOrId);
}

/** Name of a type that GGML dropped, if the number was once in use. */
export function removedGGMLType(id: number): string | undefined {
  return REMOVED.get(id);
}

/** Result of {@link tensorBytes}: the bytes, or why the shape does not work, ready for an error message. */
export type TensorBytes = { readonly bytes: number } | { readonly problem: string };

/**
 * Bytes of a tensor: rows of `cols / blockSize` blocks, without gaps.
 *
 * @param shape `[rows..., cols]`, at most 4 entries, each at least 1; `[]` is one value.
 */
export function tensorBytes(type: GGMLType, shape: readonly number[]): TensorBytes {
  if (shape.length > 4) return { problem: `${shape.length} dimensions, expected at most 4` };
  let elements = 1;
  for (const length of shape) {
    if (!Number.isSafeInteger(length) || length < 1) {
      return { problem: `shape [${shape.join(', ')}], expected whole numbers of at least 1` };
    }
    elements *= length;
    if (elements > Number.MAX_SAFE_INTEGER) {
      return { problem: `shape [${shape.join(', ')}], expected at most 2^53 - 1 values in all` };
    }
  }
  const cols = shape.at(-1) ?? 1;
  if (cols % type.blockSize !== 0) {
    return {
      problem: `rows of ${cols} values, expected a multiple of ${type.blockSize} (the block of ${type.name})`,
    };
  }
  const bytes = (elements / type.blockSize) * type.blockBytes;
  if (bytes > Number.MAX_SAFE_INTEGER) {
    return { problem: `shape [${shape.join(', ')}], expected at most 2^53 - 1 bytes in all` };
  }
  return { bytes };
}

/** Number types of a metadata value, with their number in the file and their width in bytes. */
export const GGUF_NUMBERS = {
  u8: { id: 0, width: 1, min: 0n, max: 2n ** 8n - 1n },
  i8: { id: 1, width: 1, min: -(2n ** 7n), max: 2n ** 7n - 1n },
  u16: { id: 2, width: 2, min: 0n, max: 2n ** 16n - 1n },
  i16: { id: 3, width: 2, min: -(2n ** 15n), max: 2n ** 15n - 1n },
  u32: { id: 4, width: 4, min: 0n, max: 2n ** 32n - 1n },
  i32: { id: 5, width: 4, min: -(2n ** 31n), max: 2n ** 31n - 1n },
  f32: { id: 6, width: 4, min: 0n, max: 0n },
  u64: { id: 10, width: 8, min: 0n, max: 2n ** 64n - 1n },
  i64: { id: 11, width: 8, min: -(2n ** 63n), max: 2n ** 63n - 1n },
  f64: { id: 12, width: 8, min: 0n, max: 0n },
} as const;

export type GGUFNumberType = keyof typeof GGUF_NUMBERS;

/** Numbers of the metadata types that are not numbers. */
export const GGUF_BOOL = 7;
export const GGUF_STRING = 8;
export const GGUF_ARRAY = 9;

/**
 * Type of a metadata value: a number type, `bool`, `string`, or an array of such (`i32[]`, `string[]`, nested at most
 * `GGUF_MAX_DEPTH` deep: `u8[][]`).
 */
export type GGUFValueType = GGUFNumberType | 'bool' | 'string' | `${string}[]`;

/** A metadata value. Whole numbers of 64 bits are a `bigint` only where a `number` could not hold them. */
export type GGUFValue = number | bigint | string | boolean | GGUFValue[];

/** Deepest nesting of metadata arrays. No known file nests at all; the bound keeps hostile ones from using up the stack. */
export const GGUF_MAX_DEPTH = 4;
