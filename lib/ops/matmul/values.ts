// matmul's options as native/node/ops/matmul/matmul.cc reads them.
import { checkNumber, checkObject, described } from '../../arguments.js';
import { argumentError } from '../../errors.js';
import type { NativeValue } from '../../native.js';
import { type AsyncOptions, checkedTensorValues } from '../../run.js';
import type { Tensor } from '../../tensor.js';
import type {
  Activation,
  Algorithm,
  Compute,
  MatmulOptions,
  OutputDType,
  Tables,
} from './options.js';
import type { PreparedActivations } from './prepared_activations.js';

const computes: Record<Compute, number> = { f32: 0, i8: 1, bf16: 2, i1: 3, e4m3: 4 };
const algorithms: Record<Algorithm, number> = { auto: 0, lut: 1, dequant: 2, tile: 3 };
const tableKinds: Record<Tables, number> = { lossless: 0, fast: 1 };
const activations: Record<Activation, number> = {
  none: 0,
  silu: 1,
  gelu: 2,
  geluTanh: 3,
  relu: 4,
  swiglu: 5,
  geglu: 6,
};
// Every option, and those of matmulAsync: the compiler sees to it that none is missing.
const everyOption: Record<keyof (MatmulOptions<OutputDType> & AsyncOptions), true> = {
  isa: true,
  threads: true,
  stream: true,
  signal: true,
  bias: true,
  out: true,
  compute: true,
  algorithm: true,
  tables: true,
  scale: true,
  rowScale: true,
  addend: true,
  lowRank: true,
  adapters: true,
  outliers: true,
  activation: true,
  residual: true,
  cScales: true,
  cScale: true,
  aScales: true,
  columnScale: true,
  columnOrder: true,
  activationBits: true,
  activationGroup: true,
  batch: true,
};
/** The names of {@link MatmulOptions}. */
export const optionNames: ReadonlySet<string> = new Set(Object.keys(everyOption));

const activationBits: Record<number, number> = { 8: 8, 4: 4 };
const activationGroups: Record<string, number> = { 32: 2, row: 1 };

/** The number that `word` stands for; throws `BL_INVALID_ARGUMENT` for one that is not in the list. */
function idOf(
  name: string,
  ids: Record<string, number>,
  word: string | number,
  op = 'matmul',
): number {
  if (Object.hasOwn(ids, word)) return ids[word] as number;
  const words = Object.keys(ids);
  throw argumentError(
    'BL_INVALID_ARGUMENT',
    `${op}: ${name} is ${described(word)}, expected ${words.slice(0, -1).join(', ')} or ${words.at(-1)}`,
  );
}

export const computeId = (compute: Compute, op = 'matmul'): number =>
  idOf('compute', computes, compute, op);
export const algorithmId = (word: Algorithm, op = 'matmul'): number =>
  idOf('algorithm', algorithms, word, op);
/** What an algorithm computes in where activations are floats and nothing is said. */
export function defaultCompute(algorithm: Algorithm | undefined): Compute {
  if (algorithm === 'lut') return 'i8';
  return algorithm === 'tile' ? 'bf16' : 'f32';
}
export const tablesId = (word: Tables, op = 'matmul'): number =>
  idOf('tables', tableKinds, word, op);

/** True for the activations that take two rows of weights for an output. */
export const isGated = (activation: Activation | undefined): boolean =>
  activation === 'swiglu' || activation === 'geglu';

function tensor(name: string, value: Tensor): [NativeValue, NativeValue] {
  return checkedTensorValues('matmul', name, value);
}

// Whether they are finite is checked natively.
function factor(name: string, value: number): number {
  checkNumber('matmul', name, value, 'a finite number other than 0', (x) => x !== 0);
  return value;
}

function outputScale(value: number): number {
  checkNumber('matmul', 'cScale', value, 'a number above 0', (x) => x !== 0);
  return value;
}

function batches(value: number): number {
  const isCount = (x: number): boolean => Number.isSafeInteger(x) && x >= 1;
  checkNumber('matmul', 'batch', value, 'a whole number of at least 1', isCount);
  return value;
}

function lowRankValues(options: MatmulOptions<OutputDType>): NativeValue[] {
  const { lowRank, adapters } = options;
  if (lowRank !== undefined && adapters !== undefined) {
    throw argumentError(
      'BL_INVALID_ARGUMENT',
      'matmul: lowRank and adapters are given, expected one of them',
    );
  }
  const name = lowRank === undefined ? 'adapters' : 'lowRank';
  const term = lowRank ?? (adapters as NonNullable<typeof adapters>);
  checkObject('matmul', name, term);
  const scale = term.scale ?? 1;
  checkNumber('matmul', `${name}.scale`, scale, 'a number', () => true);
  return [
    ...tensor(`${name}.down`, term.down),
    ...tensor(`${name}.up`, term.up),
    ...(adapters === undefined ? [undefined, undefined] : tensor('adapters.ids', adapters.ids)),
    scale,
  ];
}

/** A bit for each option that is given, in the order of read_matmul, and then their values. */
export function optionValues(
  options: MatmulOptions<OutputDType>,
  prepared?: PreparedActivations,
): NativeValue[] {
  const values: NativeValue[] = [0];
  let given = 0;
  const add = (bit: number, ...more: NativeValue[]): void => {
    given |= 1 << bit;
    values.push(...more);
  };
  const o = options;
  if (o.activation !== undefined) add(0, idOf('activation', activations, o.activation));
  if (o.scale !== undefined) add(1, factor('scale', o.scale));
  if (o.rowScale !== undefined) add(2, ...tensor('rowScale', o.rowScale));
  if (o.addend !== undefined) add(3, ...tensor('addend', o.addend));
  if (o.residual !== undefined) add(4, ...tensor('residual', o.residual));
  if (o.cScales !== undefined) add(5, ...tensor('cScales', o.cScales));
  if (o.cScale !== undefined) add(6, outputScale(o.cScale));
  if (o.aScales !== undefined) add(7, ...tensor('aScales', o.aScales));
  if (o.columnScale !== undefined) add(8, ...tensor('columnScale', o.columnScale));
  if (o.columnOrder !== undefined) add(9, ...tensor('columnOrder', o.columnOrder));
  if (o.activationBits !== undefined)
    add(10, idOf('activationBits', activationBits, o.activationBits));
  if (o.activationGroup !== undefined)
    add(11, idOf('activationGroup', activationGroups, o.activationGroup));
  if (o.batch !== undefined) add(12, batches(o.batch));
  if (o.lowRank !== undefined || o.adapters !== undefined) add(13, ...lowRankValues(o));
  if (o.outliers !== undefined) {
    checkObject('matmul', 'outliers', o.outliers);
    const { rowOffsets, columns, values: weights } = o.outliers;
    add(
      14,
      ...tensor('outliers.rowOffsets', rowOffsets),
      ...tensor('outliers.columns', columns),
      ...tensor('outliers.values', weights),
    );
  }
  if (prepared !== undefined) add(15, prepared.bytes);
  if (o.tables !== undefined) add(16, tablesId(o.tables));
  values[0] = given;
  return values;
}
