// Element types: their names, and the typed arrays that hold them.
import { described } from './arguments.js';
import { argumentError } from './errors.js';
import { type DType, dtypes } from './generated.js';

/** Typed array that holds elements of each dtype. f16, bf16 and f8 are raw bits. */
export interface DataTypes {
  f32: Float32Array;
  f16: Uint16Array;
  bf16: Uint16Array;
  i8: Int8Array;
  u8: Uint8Array;
  i32: Int32Array;
  f8e4m3: Uint8Array;
  f8e5m2: Uint8Array;
}

/** The element names of ONNX Runtime, accepted wherever a dtype is. */
const aliases: Record<string, DType> = {
  float32: 'f32',
  float16: 'f16',
  bfloat16: 'bf16',
  int8: 'i8',
  uint8: 'u8',
  int32: 'i32',
  float8e4m3fn: 'f8e4m3',
  float8e5m2: 'f8e5m2',
};

/** ONNX Runtime's spelling of a dtype, and the dtype it means. */
export interface DTypeAliases {
  float32: 'f32';
  float16: 'f16';
  bfloat16: 'bf16';
  int8: 'i8';
  uint8: 'u8';
  int32: 'i32';
  float8e4m3fn: 'f8e4m3';
  float8e5m2: 'f8e5m2';
}
export type DTypeName = DType | keyof DTypeAliases;
export type Normalized<N extends DTypeName> = N extends keyof DTypeAliases ? DTypeAliases[N] : N;

/** Dtypes that operators take as activations. */
export type FloatDType = 'f32' | 'f16' | 'bf16';

/** The dtype that `name` means; throws `BL_INVALID_DTYPE` for an unknown one. */
export function dtypeOf(name: string): DType {
  const dtype = Object.hasOwn(aliases, name) ? aliases[name] : name;
  if (dtype === undefined || !Object.hasOwn(dtypes, dtype)) {
    throw argumentError(
      'BL_INVALID_DTYPE',
      `Tensor: dtype is ${described(name)}, expected one of ${Object.keys(dtypes).join(', ')}`,
    );
  }
  return dtype as DType;
}

/** The constructors of {@link DataTypes}. */
export const typedArrays = {
  Float32Array,
  Uint16Array,
  Int8Array,
  Uint8Array,
  Int32Array,
} as const;
