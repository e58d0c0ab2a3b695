// Runs operators on a device in place of the processor, so that the suites of the operators test the device's kernels and
// the whole way to them: BITLOOM_TEST_DEVICE=cuda:0. Memory that tensors of a call share, they share on the device as
// well. A call goes to the processor where it forces level scalar, and where the device says that it does
// not do it (BL_UNSUPPORTED); each test file ends with how many ran where.
import { afterAll, expect } from 'vitest';
import { deviceNumber } from '../../lib/device.js';
import { isas, operators } from '../../lib/generated.js';
import { type BitloomError, type DeviceName, whyNoDevice } from '../../lib/index.js';
import { type NativeCalls, type NativeMemory, type NativeValue, native } from '../../lib/native.js';

type Operator = (...values: NativeValue[]) => void;

const device = process.env.BITLOOM_TEST_DEVICE as DeviceName | undefined;
const counts = { device: 0, processor: 0 };
// Of operators that are called tens of thousands of times in a file, the first calls do.
// Products are slow there, and their kernels have tests of their own: the suites are about the way to them.
const mostCalls = new Map([
  ['sample', 300],
  ['quantize', 300],
  ['dequantize', 300],
  ['matmul', 150],
]);
/** The layout of devices, as descriptors of weights have it. */
const fragments = 2;
const calls = new Map<string, number>();
const reasons = new Map<string, number>();

/** Memory of one buffer, from its first byte that a tensor of the call uses. */
interface Copy {
  buffer: ArrayBufferLike;
  begin: number;
  end: number;
  memory?: NativeMemory;
}

const isTensor = (values: readonly NativeValue[], i: number): boolean =>
  ArrayBuffer.isView(values[i]) && values[i + 1] instanceof Float64Array;

function copiesOf(values: readonly NativeValue[]): Copy[] {
  const copies = new Map<ArrayBufferLike, Copy>();
  for (let i = 0; i + 1 < values.length; i++) {
    if (!isTensor(values, i)) continue;
    const { buffer, byteOffset, byteLength } = values[i] as Uint8Array;
    const copy = copies.get(buffer) ?? { buffer, begin: byteOffset, end: byteOffset };
    copy.begin = Math.min(copy.begin, byteOffset);
    copy.end = Math.max(copy.end, byteOffset + byteLength);
    copies.set(buffer, copy);
    i++;
  }
  return [...copies.values()];
}

// Where b begins among matmul's values: after a, which is memory and a descriptor, or undefined.
const placeOfWeights = (values: readonly NativeValue[]): number =>
  values[0] === undefined ? 1 : 2;

/** Whether b has no weights: there is nothing to pack then. */
const isEmpty = (values: readonly NativeValue[]): boolean =>
  (values[placeOfWeights(values)] as Uint8Array).byteLength === 0;

/** matmul's values with b in the layout of devices. */
function withFragments(values: readonly NativeValue[]): NativeValue[] {
  const at = placeOfWeights(values);
  const [bytes, descriptor, codebook] = values.slice(at, at + 3);
  const [format, layout, rows, cols, scale] = descriptor as Float64Array as never as number[];
  if (layout === fragments) return [...values];
  const wanted = Float64Array.of(
    format as number,
    fragments,
    rows as number,
    cols as number,
    scale as number,
  );
  const size = native.weightsBytes(format as number, fragments, rows as number, cols as number);
  const packed = new Uint8Array(size);
  native.pack(bytes, descriptor, codebook, packed, wanted, codebook, undefined);
  return [...values.slice(0, at), packed, wanted, codebook, ...values.slice(at + 3)];
}

function runThere(op: Operator, values: readonly NativeValue[]): void {
  const number = deviceNumber(device as string);
  const copies = copiesOf(values);
  try {
    for (const copy of copies) {
      const bytes = new Uint8Array(copy.buffer, copy.begin, copy.end - copy.begin);
      copy.memory = native.deviceAllocate(number, bytes.byteLength);
      native.deviceUpload(copy.memory, bytes);
    }
    const moved = [...values];
    for (let i = 0; i + 1 < values.length; i++) {
      if (!isTensor(values, i)) continue;
      const view = values[i] as Uint8Array;
      const copy = copies.find(({ buffer }) => buffer === view.buffer) as Copy;
      moved[i] = native.deviceSlice(copy.memory as NativeMemory, view.byteOffset - copy.begin);
      i++;
    }
    op(...moved);
    for (const { buffer, begin, end, memory } of copies) {
      native.deviceDownload(new Uint8Array(buffer, begin, end - begin), memory as NativeMemory);
    }
  } finally {
    for (const { memory } of copies) if (memory !== undefined) native.deviceFree(memory);
  }
}

const isMatmulSuite = (expect.getState().testPath ?? '').includes('/test/matmul/');

/**
 * Suites walk over the levels of the processor: those above scalar stand for the device. matmul's own suite asks for bits
 * that calls have in common, so that all calls of a test run there, but of the levels only the first.
 */
function isForDevice(name: string, run: NativeValue): boolean {
  // Values of indices and codes are not looked at in a device's memory, but kept within bounds there.
  if (expect.getState().currentTestName?.includes('refuses with BL_OUT_OF_RANGE')) return false;
  if (isMatmulSuite) {
    const isa = run instanceof Int32Array ? run[0] : -1;
    return isa === -1 || isa === isas.avx2 || isa === isas.neon;
  }
  const before = calls.get(name) ?? 0;
  if (before >= (mostCalls.get(name) ?? Number.POSITIVE_INFINITY)) return false;
  calls.set(name, before + 1);
  if (!(run instanceof Int32Array)) return true;
  return run[0] !== 0;
}

function runEither(name: string, op: Operator, values: readonly NativeValue[]): void {
  const isProduct = name === 'matmul';
  if (isForDevice(name, values.at(-1)) && !(isProduct && isEmpty(values))) {
    try {
      const given = isProduct ? withFragments(values) : values;
      runThere(op, [...given.slice(0, -1), undefined]);
      counts.device++;
      return;
    } catch (error) {
      const { code, message } = error as BitloomError;
      // Matrices of a stack begin at multiples of 16 rows there.
      const isLayout = name === 'matmul' && code === 'BL_INVALID_LAYOUT';
      if (code !== 'BL_UNSUPPORTED' && !isLayout) throw error;
      const reason = message
        .replaceAll(/[0-9]+/g, '#')
        .replace(/is [a-z0-9#_]+, expected an integer/, 'is ..., expected an integer');
      reasons.set(reason, (reasons.get(reason) ?? 0) + 1);
    }
  }
  counts.processor++;
  op(...values);
}

// Tests of the devices themselves say where their tensors are.
const isOperator = !(expect.getState().testPath ?? '').includes('/test/cuda/');

if (device !== undefined && isOperator) {
  // The emulated driver finds what is one byte out of bounds, if no memory is shared or rounded up.
  process.env.BITLOOM_CUDA_ALLOCATOR ??= 'exact';
  if (whyNoDevice() !== undefined) throw new Error(`no device: ${whyNoDevice()}`);
  const names = Object.keys(operators) as (keyof typeof operators)[];
  const originals = names.map((name) => native[name] as Operator);
  names.forEach((name, i) => {
    native[name] = (...values) => runEither(name, originals[i] as Operator, values);
  });
  // Recorded lists stay as they are, and their calls are made one by one too.
  const runList = (calls: NativeValue[][]): void => {
    for (const [op, ...values] of calls) {
      const i = names.findIndex((name) => operators[name] === op);
      runEither(names[i] as string, originals[i] as Operator, values);
    }
  };
  native.recordCalls = (calls) => calls as unknown as NativeCalls;
  native.runRecorded = (calls) => runList(calls as unknown as NativeValue[][]);
  native.freeRecorded = () => undefined;
  native.runAsync = async (calls) => runList(calls as NativeValue[][]);
  afterAll(() => {
    const list = [...reasons].map(([reason, times]) => `\n    ${times} x ${reason}`).join('');
    console.log(`${counts.device} calls on ${device}, ${counts.processor} on the processor${list}`);
  });
}
