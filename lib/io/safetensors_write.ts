import { argumentError } from '../errors.js';
import { writeAtomically } from './atomic_write.js';
import { quote } from './cursor.js';
import { SAFETENSORS_TYPES, tensorBytes } from './safetensors.js';
import { checkData, produce, type TensorData } from './tensor_data.js';
import { isWellFormed } from './text.js';

/** A tensor to write. */
export interface SafetensorsTensorInput {
  readonly name: string;
  /** Element type in lower case; see {@link SAFETENSORS_TYPES}. */
  readonly type: string;
  readonly shape: readonly number[];
  readonly data: TensorData;
}

/** What goes into a safetensors file. */
export interface SafetensorsContent {
  readonly metadata?: ReadonlyMap<string, string> | Readonly<Record<string, string>>;
  readonly tensors: Iterable<SafetensorsTensorInput>;
}

interface PlannedTensor {
  readonly input: SafetensorsTensorInput;
  readonly width: number;
  readonly bytes: number;
}

/**
 * Writes a safetensors file. Tensors of wide elements come first, otherwise in the order given, so that each begins at
 * a multiple of its element's width. The file appears under its name only when it is complete.
 *
 * @throws TypeError `BL_INVALID_ARGUMENT` for wrong content, errors of `node:fs` as they are.
 *
 * @example
 * await writeSafetensors('tiny.safetensors', {
 *   metadata: { format: 'pt' },
 *   tensors: [{ name: 'w', type: 'f32', shape: [2, 2], data: new Uint8Array(16) }],
 * });
 */
export async function writeSafetensors(path: string, content: SafetensorsContent): Promise<void> {
  const operator = 'writeSafetensors';
  const { header, tensors } = plan(content, operator);
  await writeAtomically(path, operator, chunks(header, tensors, operator));
}

/**
 * The bytes of a safetensors file, for small ones and tests; takes what {@link writeSafetensors} takes, but no
 * promises.
 */
export function safetensorsBytes(content: SafetensorsContent): Uint8Array {
  const operator = 'safetensorsBytes';
  const { header, tensors } = plan(content, operator);
  const parts = tensors.map((tensor) => check(produce(tensor.input.data), tensor, operator));
  return new Uint8Array(Buffer.concat([header, ...parts]));
}

async function* chunks(
  header: Uint8Array,
  tensors: readonly PlannedTensor[],
  operator: string,
): AsyncGenerator<Uint8Array> {
  yield header;
  for (const tensor of tensors) yield check(await produce(tensor.input.data), tensor, operator);
}

function check(data: unknown, { input, bytes }: PlannedTensor, operator: string): Uint8Array {
  const shown = `${input.type} [${input.shape.join(', ')}]`;
  return checkData(data, `${operator}: tensor ${quote(input.name)}`, bytes, shown);
}

function plan(
  { metadata, tensors: inputs }: SafetensorsContent,
  operator: string,
): { header: Uint8Array; tensors: PlannedTensor[] } {
  const tensors = [...inputs].map((input) => planTensor(input, operator));
  tensors.sort((a, b) => b.width - a.width);
  const members: string[] = [];
  if (metadata !== undefined) {
    const entries = metadata instanceof Map ? [...metadata] : Object.entries(metadata);
    const pairs = entries.map(([key, value]) => {
      const what = `${operator}: metadata ${quote(String(key))}`;
      return `${json(key, what)}:${json(value, what)}`;
    });
    members.push(`"__metadata__":{${pairs.join()}}`);
  }
  const names = new Set(['__metadata__']);
  let at = 0;
  for (const { input, bytes } of tensors) {
    const what = `${operator}: tensor ${quote(String(input.name))}`;
    if (names.has(input.name)) {
      throw argumentError(
        'BL_INVALID_ARGUMENT',
        `${what} has a name that is taken, expected unique names`,
      );
    }
    names.add(input.name);
    const dtype = input.type.toUpperCase();
    members.push(
      `${json(input.name, what)}:{"dtype":"${dtype}","shape":[${input.shape.join()}],"data_offsets":[${at},${at + bytes}]}`,
    );
    at += bytes;
  }
  const encoded = new TextEncoder().encode(`{${members.join()}}`);
  // Spaces, so that the data begins at a multiple of 64: elements of every width do, and cache lines.
  const header = new Uint8Array(Math.ceil((8 + encoded.length) / 64) * 64).fill(0x20);
  new DataView(header.buffer).setBigUint64(0, BigInt(header.length - 8), true);
  header.set(encoded, 8);
  return { header, tensors };
}

function planTensor(input: SafetensorsTensorInput, operator: string): PlannedTensor {
  const { type, shape } = input;
  const what = `${operator}: tensor ${quote(String(input.name))}`;
  const width = SAFETENSORS_TYPES.get(type);
  if (width === undefined) {
    const known = [...SAFETENSORS_TYPES.keys()].join(', ');
    throw argumentError(
      'BL_INVALID_ARGUMENT',
      `${what} has type ${quote(String(type))}, expected one of ${known}`,
    );
  }
  const wholes = Array.isArray(shape) && shape.every((n) => Number.isSafeInteger(n) && n >= 0);
  const bytes = wholes ? tensorBytes(shape, width) : undefined;
  if (bytes === undefined) {
    throw argumentError(
      'BL_INVALID_ARGUMENT',
      `${what} has shape [${String(shape)}], expected whole numbers and less than 2^53 bytes`,
    );
  }
  return { input, width, bytes };
}

function json(text: unknown, what: string): string {
  if (typeof text !== 'string' || !isWellFormed(text)) {
    throw argumentError(
      'BL_INVALID_ARGUMENT',
      `${what} has ${typeof text} that is not text, expected valid Unicode`,
    );
  }
  return JSON.stringify(text);
}
