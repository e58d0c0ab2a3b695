import { argumentError, BitloomError } from '../errors.js';
import { quote } from './cursor.js';
import { SAFETENSORS_TYPES, tensorBytes } from './safetensors.js';
import { checkData } from './tensor_data.js';

/** A tensor of a checkpoint: one of a {@link readSafetensors} file, or anything of this form. */
export interface CheckpointTensor {
  /** For messages only. */
  readonly name: string;
  /** Element type in lower case, such as `i32`; see {@link SAFETENSORS_TYPES}. */
  readonly type: string;
  /** Row-major shape. */
  readonly shape: readonly number[];
  /** The little-endian data, exactly as many bytes as type and shape need. */
  data(): Uint8Array;
}

/** A tensor whose type and shape are what a format says; its data is checked when it is asked for. */
export class CheckedTensor {
  readonly what: string;
  readonly type: string;
  readonly shape: readonly number[];
  readonly #tensor: CheckpointTensor;

  /** @param argument the tensor's name in the format, e.g. `qweight` */
  constructor(operator: string, argument: string, tensor: unknown) {
    if (typeof tensor !== 'object' || tensor === null) {
      const given = tensor === null ? 'null' : typeof tensor;
      throw argumentError(
        'BL_INVALID_ARGUMENT',
        `${operator}: ${argument} is ${given}, expected a tensor with name, type, shape and data()`,
      );
    }
    const { name, type, shape, data } = tensor as Partial<CheckpointTensor>;
    this.what = `${operator}: ${argument}${typeof name === 'string' ? ` ${quote(name)}` : ''}`;
    if (typeof type !== 'string' || !SAFETENSORS_TYPES.has(type)) {
      throw argumentError(
        'BL_INVALID_DTYPE',
        `${this.what} has type ${shown(type)}, expected e.g. i32, f16`,
      );
    }
    const whole = (length: unknown) => Number.isSafeInteger(length) && (length as number) >= 0;
    if (!Array.isArray(shape) || !shape.every(whole) || typeof data !== 'function') {
      throw argumentError(
        'BL_INVALID_ARGUMENT',
        `${this.what} is no tensor, expected a shape of whole numbers and a function data()`,
      );
    }
    this.type = type;
    this.shape = [...shape];
    this.#tensor = tensor as CheckpointTensor;
  }

  /** Throws `BL_INVALID_DTYPE` unless the type is one of these. */
  expectType(...types: string[]): this {
    if (types.includes(this.type)) return this;
    throw argumentError(
      'BL_INVALID_DTYPE',
      `${this.what} has type ${this.type}, expected ${types.join(' or ')}`,
    );
  }

  /** Throws `BL_INVALID_SHAPE` unless this is the shape; `undefined` stands for any length of at least 1. */
  expectShape(lengths: readonly (number | undefined)[], why: string): this {
    const fits = (length: number, i: number) =>
      lengths[i] === undefined ? length > 0 : length === lengths[i];
    if (this.shape.length === lengths.length && this.shape.every(fits)) return this;
    const expected = lengths.map((length) => length ?? 'at least 1').join(', ');
    throw argumentError(
      'BL_INVALID_SHAPE',
      `${this.what} has shape [${this.shape.join(', ')}], expected [${expected}] (= ${why})`,
    );
  }

  /** One length of a shape that {@link expectShape} has checked. */
  length(axis: number): number {
    return this.shape[axis] as number;
  }

  int32(): Int32Array {
    const bytes = this.#bytes(4);
    return new Int32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
  }

  int64(): BigInt64Array {
    const bytes = this.#bytes(8);
    return new BigInt64Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 8);
  }

  uint16(): Uint16Array {
    const bytes = this.#bytes(2);
    return new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 2);
  }

  int8(): Int8Array {
    const bytes = this.#bytes(1);
    return new Int8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  float32(): Float32Array {
    const bytes = this.#bytes(4);
    return new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
  }

  /** The data at a multiple of `alignment`: a view where it lies so, otherwise a copy. */
  #bytes(alignment: number): Uint8Array {
    const needed = tensorBytes(this.shape, SAFETENSORS_TYPES.get(this.type) as number);
    const type = `${this.type} [${this.shape.join(', ')}]`;
    const bytes = checkData(this.#tensor.data(), this.what, needed ?? Infinity, type);
    return bytes.byteOffset % alignment === 0 ? bytes : new Uint8Array(bytes);
  }
}

/** The tensor called `name`; throws `BL_NOT_FOUND`. */
export function tensorNamed(
  operator: string,
  tensors: ReadonlyMap<string, CheckpointTensor>,
  name: string,
): CheckpointTensor {
  const tensor = tensors.get(name);
  if (tensor !== undefined) return tensor;
  throw new BitloomError(
    'BL_NOT_FOUND',
    `${operator}: tensor ${quote(name)} is not among the ${tensors.size} tensors of the file`,
  );
}

/** A value of any kind for an error message. */
export function shown(value: unknown): string {
  if (typeof value === 'string') return quote(value);
  const plain = ['number', 'boolean', 'undefined', 'bigint'].includes(typeof value);
  return value === null || plain ? String(value) : typeof value;
}
