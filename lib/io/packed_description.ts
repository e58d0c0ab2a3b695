// What the metadata of a file of packed weights says of a matrix, and how it is held against the file; packed.ts has
// the format.
import { BitloomError } from '../errors.js';
import { formats } from '../generated.js';
import { MixedTensor } from '../mixed_tensor.js';
import {
  type Layout,
  QuantizedTensor,
  type QuantizedTensorOptions,
  weightsBytes,
} from '../quantized_tensor.js';
import { quote } from './cursor.js';

const layouts: readonly string[] = ['canonical', 'lanes16', 'fragments'] satisfies Layout[];
/** The matrices of a mixed tensor begin at multiples of a cache line. */
const LINE = 64;
/** Columns that a mixed tensor without rows may have: nothing else in the file bounds them. */
const COLUMNS_WITHOUT_ROWS = 2 ** 20;

type Description = Readonly<Record<string, unknown>>;

/** A description as JSON, and the bytes it describes in the pieces that follow each other. */
export interface Described {
  readonly json: string;
  readonly bytes: number;
  /** Written one after the other, each at its offset; what is between is zero. */
  readonly pieces: readonly { readonly offset: number; readonly bytes: Uint8Array }[];
}

/** What is to be written of a matrix; throws `BL_DETACHED` for one that is disposed of. */
export function describe(matrix: QuantizedTensor | MixedTensor): Described {
  if (matrix instanceof QuantizedTensor) {
    const bytes = weightsBytes(matrix.format, matrix.rows, matrix.cols, matrix.layout);
    const pieces = [{ offset: 0, bytes: matrix.bytes.subarray(0, bytes) }];
    return { json: JSON.stringify(membersOf(matrix)), bytes, pieces };
  }
  const { rows, cols, groupSize, widths, segments } = matrix;
  const matrices = segments.map(({ weights }) => weights);
  const sizes = matrices.map((part) =>
    weightsBytes(part.format, part.rows, part.cols, part.layout),
  );
  const { offsets, bytes } = placed(sizes);
  const pieces = matrices.map((part, i) => ({
    offset: offsets[i] as number,
    bytes: part.bytes.subarray(0, sizes[i]),
  }));
  const members = {
    rows,
    cols,
    groupSize,
    widths: widths.join(''),
    parts: matrices.map(membersOf),
  };
  return { json: JSON.stringify(members), bytes, pieces };
}

function membersOf({ format, layout, rows, cols, codebook, tensorScale }: QuantizedTensor): object {
  return {
    format,
    layout,
    rows,
    cols,
    ...(codebook && { codebook: [...codebook] }),
    ...(tensorScale === 1 ? {} : { tensorScale }),
  };
}

/** Where pieces of these sizes begin, and where the last one ends. */
function placed(sizes: readonly number[]): { offsets: number[]; bytes: number } {
  const offsets: number[] = [];
  let bytes = 0;
  for (const size of sizes) {
    offsets.push(Math.ceil(bytes / LINE) * LINE);
    bytes = (offsets.at(-1) as number) + size;
  }
  return { offsets, bytes };
}

/**
 * The matrix that `text` describes. Nothing that it says is believed.
 *
 * @param what begins messages: the tensor
 * @param take gives the tensor's bytes if it has so many; else throws
 * @throws BitloomError `BL_INVALID_FILE`, `BL_UNSUPPORTED`
 */
export function matrixOf(
  text: string,
  key: string,
  what: string,
  take: (bytes: number, shown: string) => Uint8Array,
): QuantizedTensor | MixedTensor {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    fail(`metadata ${quote(key)} is not JSON`);
  }
  const description = objectOf(value, `metadata ${quote(key)}`);
  if (Object.hasOwn(description, 'parts')) return mixedOf(description, what, take);
  const plan = planOf(description, what);
  const data = take(plan.bytes, `${plan.format} [${plan.shape.join(', ')}]`);
  return checked(what, () => new QuantizedTensor(plan.format, data, plan.shape, plan.options));
}

function mixedOf(
  description: Description,
  what: string,
  take: (bytes: number, shown: string) => Uint8Array,
): MixedTensor {
  const { rows, cols, groupSize, widths, parts } = membersNamed(description, [
    'rows',
    'cols',
    'groupSize',
    'widths',
    'parts',
  ]);
  for (const [name, size] of [
    ['rows', rows],
    ['cols', cols],
  ]) {
    if (!Number.isSafeInteger(size) || (size as number) < 0) {
      fail(`${what}: ${name} is ${show(size)}, expected a whole number of at least 0`);
    }
  }
  if (typeof widths !== 'string' || !/^[1-8]*$/.test(widths)) {
    fail(`${what}: widths is ${show(widths)}, expected digits 1 to 8`);
  }
  // A part for each width.
  if (!Array.isArray(parts) || parts.length > 8) {
    fail(`${what}: parts is ${show(parts)}, expected at most 8 descriptions`);
  }
  const plans = (parts as unknown[]).map((part, i) =>
    planOf(objectOf(part, `${what}: parts[${i}]`), `${what}: parts[${i}]`),
  );
  const { offsets, bytes } = placed(plans.map((plan) => plan.bytes));
  const data = take(bytes, `mixed [${rows}, ${cols}]`);
  // Columns are counted out below, so there must be bytes for them: every part has the same number of rows.
  const sum = plans.reduce((total, plan) => total + plan.shape[1], 0);
  if (sum !== cols) {
    fail(`${what}: parts have ${sum} columns in all, expected ${cols} (= cols)`);
  }
  if (plans.some((plan) => plan.shape[0] !== rows)) {
    fail(`${what}: parts differ in rows, expected ${rows} (= rows)`);
  }
  if (rows === 0 && sum > COLUMNS_WITHOUT_ROWS) {
    fail(`${what}: cols is ${sum}, expected at most ${COLUMNS_WITHOUT_ROWS} without rows`);
  }
  return checked(what, () => {
    const matrices = plans.map((plan, i) => {
      const offset = offsets[i] as number;
      const own = data.subarray(offset, offset + plan.bytes);
      return new QuantizedTensor(plan.format, own, plan.shape, plan.options);
    });
    const map = Uint8Array.from(widths as string, Number);
    return new MixedTensor([rows as number, sum], groupSize as number, map, matrices);
  });
}

interface Plan {
  format: keyof typeof formats;
  shape: [rows: number, cols: number];
  options: QuantizedTensorOptions;
  bytes: number;
}

function planOf(description: Description, what: string): Plan {
  const { format, layout, rows, cols, codebook, tensorScale } = membersNamed(description, [
    'format',
    'layout',
    'rows',
    'cols',
    'codebook',
    'tensorScale',
  ]);
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
  // Its own checks: whole numbers, and rows that the format takes.
  const bytes = checked(what, () =>
    weightsBytes(name, rows as number, cols as number, options.layout),
  );
  return { format: name, shape: [rows as number, cols as number], options, bytes };
}

/** Ends reading: what the file says is wrong, or not known. */
export function fail(
  message: string,
  code: 'BL_INVALID_FILE' | 'BL_UNSUPPORTED' = 'BL_INVALID_FILE',
): never {
  throw new BitloomError(code, `readPacked: ${message}`);
}

/** `body`, whose errors are errors of the file. */
function checked<T>(what: string, body: () => T): T {
  try {
    return body();
  } catch (cause) {
    throw new BitloomError('BL_INVALID_FILE', `readPacked: ${what}: ${messageOf(cause)}`, {
      cause,
    });
  }
}

function objectOf(value: unknown, what: string): Description {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    fail(`${what} is ${show(value)}, expected an object`);
  }
  return value as Description;
}

/** Own members only: a name such as "constructor" must not be found where the file has none. */
function membersNamed<K extends string>(
  description: Description,
  names: readonly K[],
): Record<K, unknown> {
  const own = (key: K) => (Object.hasOwn(description, key) ? description[key] : undefined);
  return Object.fromEntries(names.map((key) => [key, own(key)])) as Record<K, unknown>;
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
