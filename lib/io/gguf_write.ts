import { argumentError } from '../errors.js';
import { writeAtomically } from './atomic_write.js';
import { quote } from './cursor.js';
import { GGUF_DEFAULT_ALIGNMENT } from './gguf.js';
import { ByteWriter, encodeValue, inferType } from './gguf_encode.js';
import {
  type GGMLType,
  type GGUFValue,
  type GGUFValueType,
  ggmlType,
  tensorBytes,
} from './gguf_types.js';
import { checkData, produce, type TensorData } from './tensor_data.js';
import { isWellFormed } from './text.js';

/** A tensor to write. */
export interface GGUFTensorInput {
  /** At most 63 bytes of UTF-8, the bound of GGML. */
  readonly name: string;
  /** Type name, such as `q4_0`; see {@link GGML_TYPES}. */
  readonly type: string;
  /** Row-major shape `[rows..., cols]`. */
  readonly shape: readonly number[];
  readonly data: TensorData;
}

/** What goes into a GGUF file. */
export interface GGUFContent {
  readonly metadata?: ReadonlyMap<string, GGUFValue> | Readonly<Record<string, GGUFValue>>;
  /** Types of metadata values. A key without one gets `bool`, `string`, the first of `u32`, `i32`, `u64`, `i64` that holds the value, or `f32`. */
  readonly types?: ReadonlyMap<string, GGUFValueType> | Readonly<Record<string, GGUFValueType>>;
  readonly tensors: Iterable<GGUFTensorInput>;
  /** A power of two; `general.alignment` if the metadata has it, otherwise 32. */
  readonly alignment?: number;
}

interface Plan {
  /** Everything before the tensor data, padded. */
  readonly header: Uint8Array;
  readonly tensors: readonly PlannedTensor[];
}

interface PlannedTensor {
  readonly input: GGUFTensorInput;
  readonly type: GGMLType;
  readonly bytes: number;
  /** Zeros after the data. */
  readonly padding: number;
}

/**
 * Writes a GGUF file (version 3). Everything but the bytes of the tensors is checked before the file is made. The file
 * appears under its name only when it is complete.
 *
 * @throws TypeError `BL_INVALID_ARGUMENT` and RangeError `BL_OUT_OF_RANGE` for wrong content, errors of `node:fs` as
 * they are.
 *
 * @example
 * await writeGGUF('tiny.gguf', {
 *   metadata: { 'general.architecture': 'llama', 'llama.rope.freq_base': 10000 },
 *   types: { 'llama.rope.freq_base': 'f32' },
 *   tensors: [{ name: 'output_norm.weight', type: 'f32', shape: [64], data: () => new Uint8Array(256) }],
 * });
 */
export async function writeGGUF(path: string, content: GGUFContent): Promise<void> {
  const operator = 'writeGGUF';
  const plan = planGGUF(content, operator);
  await writeAtomically(path, operator, chunks(plan, operator));
}

/**
 * The bytes of a GGUF file, for small ones and tests; takes what {@link writeGGUF} takes, but no promises.
 *
 * @example
 * const file = readGGUF(memorySource(ggufBytes({ metadata: { answer: 42 }, tensors: [] })));
 */
export function ggufBytes(content: GGUFContent): Uint8Array {
  const operator = 'ggufBytes';
  const { header, tensors } = planGGUF(content, operator);
  const total = tensors.reduce((sum, tensor) => sum + tensor.bytes + tensor.padding, header.length);
  const out = new Uint8Array(total);
  out.set(header);
  let at = header.length;
  for (const tensor of tensors) {
    out.set(check(produce(tensor.input.data), tensor, operator), at);
    at += tensor.bytes + tensor.padding;
  }
  return out;
}

async function* chunks(plan: Plan, operator: string): AsyncGenerator<Uint8Array> {
  yield plan.header;
  for (const tensor of plan.tensors) {
    yield check(await produce(tensor.input.data), tensor, operator);
    yield new Uint8Array(tensor.padding);
  }
}

function check(data: unknown, tensor: PlannedTensor, operator: string): Uint8Array {
  const { name, shape } = tensor.input;
  const shown = `${tensor.type.name} [${shape.join(', ')}]`;
  return checkData(data, `${operator}: tensor ${quote(name)}`, tensor.bytes, shown);
}

function planGGUF(content: GGUFContent, operator: string): Plan {
  const metadata = entries(content.metadata, `${operator}: metadata`);
  const types = entries(content.types, `${operator}: types`);
  const alignment = chooseAlignment(content.alignment, metadata, types, operator);
  const tensors = [...content.tensors].map((input) => planTensor(input, alignment, operator));
  const out = new ByteWriter();
  out.u32(0x46554747); // "GGUF"
  out.u32(3);
  out.u64(tensors.length);
  out.u64(metadata.size);
  for (const [key, value] of metadata) {
    const what = `${operator}: metadata ${quote(key)}`;
    writeName(out, key, 2 ** 16 - 1, what);
    encodeValue(out, value, types.get(key) ?? inferType(value, what), what);
  }
  const names = new Set<string>();
  let offset = 0;
  for (const { input, type, bytes, padding } of tensors) {
    const what = `${operator}: tensor ${quote(input.name)}`;
    if (names.has(input.name)) {
      throw argumentError('BL_INVALID_ARGUMENT', `${what} occurs twice, expected unique names`);
    }
    names.add(input.name);
    writeName(out, input.name, 63, what);
    out.u32(input.shape.length);
    for (const length of [...input.shape].reverse()) out.u64(length);
    out.u32(type.id);
    out.u64(offset);
    offset += bytes + padding;
  }
  out.align(alignment);
  return { header: out.finish(), tensors };
}

function planTensor(input: GGUFTensorInput, alignment: number, operator: string): PlannedTensor {
  const what = `${operator}: tensor ${quote(String(input.name))}`;
  const type = ggmlType(String(input.type));
  if (type === undefined) {
    throw argumentError(
      'BL_INVALID_ARGUMENT',
      `${what} has type ${quote(String(input.type))}, expected one of GGML_TYPES`,
    );
  }
  if (!Array.isArray(input.shape)) {
    throw argumentError('BL_INVALID_ARGUMENT', `${what} has no shape, expected [rows..., cols]`);
  }
  const size = tensorBytes(type, input.shape);
  if ('problem' in size) throw argumentError('BL_INVALID_ARGUMENT', `${what} has ${size.problem}`);
  const { bytes } = size;
  return { input, type, bytes, padding: (alignment - (bytes % alignment)) % alignment };
}

function chooseAlignment(
  asked: number | undefined,
  metadata: Map<string, GGUFValue>,
  types: Map<string, GGUFValueType>,
  operator: string,
): number {
  const key = 'general.alignment';
  const alignment = asked ?? metadata.get(key) ?? GGUF_DEFAULT_ALIGNMENT;
  const isPowerOfTwo =
    typeof alignment === 'number' && alignment > 0 && Number.isInteger(Math.log2(alignment));
  if (!isPowerOfTwo || alignment >= 2 ** 31) {
    throw argumentError(
      'BL_INVALID_ARGUMENT',
      `${operator}: alignment is ${String(alignment)}, expected a power of two below 2^31`,
    );
  }
  if (metadata.has(key) || alignment !== GGUF_DEFAULT_ALIGNMENT) {
    metadata.set(key, alignment);
    types.set(key, 'u32');
  }
  return alignment;
}

function entries<T>(
  from: ReadonlyMap<string, T> | Readonly<Record<string, T>> | undefined,
  what: string,
): Map<string, T> {
  if (from === undefined) return new Map();
  if (from instanceof Map) return new Map(from as ReadonlyMap<string, T>);
  if (typeof from !== 'object' || from === null || Array.isArray(from)) {
    throw argumentError(
      'BL_INVALID_ARGUMENT',
      `${what} is ${typeof from}, expected a Map or an object`,
    );
  }
  return new Map(Object.entries(from));
}

function writeName(out: ByteWriter, name: unknown, most: number, what: string): void {
  if (typeof name !== 'string' || !isWellFormed(name)) {
    throw argumentError('BL_INVALID_ARGUMENT', `${what} is not text, expected valid Unicode`);
  }
  const bytes = Buffer.byteLength(name);
  if (bytes > most) {
    throw argumentError(
      'BL_INVALID_ARGUMENT',
      `${what} has a name of ${bytes} bytes, expected at most ${most}`,
    );
  }
  out.string(name);
}
