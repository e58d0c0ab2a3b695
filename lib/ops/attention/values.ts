// Options of attention as native/node/ops/attention/attention.cc reads them.
import { checkNumber, checkObject, checkOptions, checkTensor, described } from '../../arguments.js';
import { argumentError } from '../../errors.js';
import { kvFormats } from '../../generated.js';
import type { NativeValue } from '../../native.js';
import {
  type AsyncOptions,
  checkedTensorValues,
  optionalTensorValues,
  tensorValues,
} from '../../run.js';
import type { FloatDType, Tensor } from '../../tensor.js';
import { ropeNumbers } from '../rope/values.js';
import type {
  AttentionCompute,
  AttentionOptions,
  AttentionRope,
  AttentionScores,
  KVSegment,
  PagesView,
  RaggedOptions,
} from './options.js';

const computes: Record<AttentionCompute, number> = { f32: 0, i8: 1, bf16: 2 };

type Options = AttentionOptions<FloatDType> & RaggedOptions;
const shared: Record<keyof (AttentionOptions<FloatDType> & AsyncOptions), true> = {
  isa: true,
  threads: true,
  stream: true,
  signal: true,
  scale: true,
  causal: true,
  window: true,
  sinkTokens: true,
  windows: true,
  sinkCounts: true,
  prefix: true,
  causalBlock: true,
  softCap: true,
  slopes: true,
  sinks: true,
  mask: true,
  blockMask: true,
  rope: true,
  compute: true,
  lse: true,
  probabilities: true,
  scores: true,
  out: true,
};
/** The names of the options of decodeAttention. */
export const decodeOptionNames: ReadonlySet<string> = new Set([
  ...Object.keys(shared).filter((name) => name !== 'blockMask'),
  'cuQueries',
]);
const optionNames: ReadonlySet<string> = new Set([...Object.keys(shared), 'cuQueries', 'cuKeys']);

const scoreNames: ReadonlySet<string> = new Set<keyof AttentionScores>([
  'queries',
  'sums',
  'squares',
  'entropy',
  'variance',
]);

const ropeNames: ReadonlySet<string> = new Set<keyof AttentionRope>([
  'mode',
  'rotaryDim',
  'theta',
  'scaling',
  'freqFactors',
  'queryPositions',
  'keyPositions',
]);

function formatId(op: string, name: string, format: string): number {
  const row = Object.hasOwn(kvFormats, format)
    ? kvFormats[format as keyof typeof kvFormats]
    : undefined;
  if (row !== undefined) return row.id;
  throw argumentError(
    'BL_INVALID_FORMAT',
    `${op}: ${name} is ${described(format)}, expected one of ${Object.keys(kvFormats).join(', ')}`,
  );
}

/** Of pages native code takes the bytes as they lie. */
function bytesValues(op: string, name: string, tensor: Tensor): NativeValue[] {
  checkTensor(op, name, tensor);
  if (tensor.contiguous) return tensorValues(tensor);
  throw argumentError(
    'BL_INVALID_SHAPE',
    `${op}: ${name} has strides [${tensor.strides}], expected contiguous memory`,
  );
}

function pagesValues(op: string, pages: PagesView): NativeValue[] {
  checkObject(op, 'pages', pages);
  const { values, pageSize, numKvHeads, keyDim, valueDim, numPages } = pages;
  const isWhole = Number.isSafeInteger;
  checkNumber(op, 'pages.pageSize', pageSize, 'a whole number', isWhole);
  checkNumber(op, 'pages.numKvHeads', numKvHeads, 'a whole number', isWhole);
  checkNumber(op, 'pages.keyDim', keyDim, 'a whole number', isWhole);
  checkNumber(op, 'pages.valueDim', valueDim, 'a whole number', isWhole);
  checkNumber(op, 'pages.numPages', numPages, 'a whole number', isWhole);
  // Native code takes pages without memory for none given.
  if (numPages === 0) {
    throw argumentError(
      'BL_INVALID_SHAPE',
      `${op}: pages.numPages is 0, expected at least 1, also where no sequence has a token`,
    );
  }
  return [
    ...bytesValues(op, 'pages.keys', pages.keys),
    formatId(op, 'pages.keyFormat', pages.keyFormat),
    pageSize,
    numKvHeads,
    keyDim,
    numPages,
    ...(values === undefined ? [undefined, undefined] : bytesValues(op, 'pages.values', values)),
    formatId(op, 'pages.valueFormat', pages.valueFormat),
    valueDim,
  ];
}

function segmentValues(op: string, segment: KVSegment): NativeValue[] {
  checkObject(op, 'segment', segment);
  return [
    ...pagesValues(op, segment.pages),
    ...checkedTensorValues(op, 'segment.blockTable', segment.blockTable),
    ...checkedTensorValues(op, 'segment.lengths', segment.lengths),
  ];
}

function ropeValues(op: string, rope: AttentionRope): NativeValue[] {
  checkOptions(`${op}: rope`, rope, ropeNames);
  return [
    ...ropeNumbers(op, 'rope.', rope),
    ...optionalTensorValues(op, 'rope.freqFactors', rope.freqFactors),
    ...optionalTensorValues(op, 'rope.queryPositions', rope.queryPositions),
    ...optionalTensorValues(op, 'rope.keyPositions', rope.keyPositions),
  ];
}

/** Values after q and output: numbers, which options there are, and those. */
export function attentionValues(
  op: string,
  options: Options,
  source: { k: Tensor; v: Tensor } | { segments: readonly KVSegment[] },
): NativeValue[] {
  checkOptions(op, options, 'k' in source ? optionNames : decodeOptionNames);
  const { compute = 'f32', blockMask } = options;
  if (!Object.hasOwn(computes, compute)) {
    throw argumentError(
      'BL_INVALID_ARGUMENT',
      `${op}: compute is ${described(compute)}, expected f32, bf16 or i8`,
    );
  }
  let given = 0;
  const values: NativeValue[] = [];
  const add = (bit: number, more: NativeValue[]): void => {
    given |= 1 << bit;
    values.push(...more);
  };
  const tensor = (bit: number, name: string, value: Tensor | undefined): void => {
    if (value !== undefined) add(bit, checkedTensorValues(op, name, value));
  };
  const number = (bit: number, value: number | undefined): void => {
    if (value !== undefined) add(bit, [value]);
  };
  if ('k' in source) {
    add(0, [...checkedTensorValues(op, 'k', source.k), ...checkedTensorValues(op, 'v', source.v)]);
  } else {
    for (const [i, segment] of source.segments.entries()) add(1 + i, segmentValues(op, segment));
  }
  tensor(3, 'cuQueries', options.cuQueries);
  tensor(4, 'cuKeys', options.cuKeys);
  number(5, options.softCap);
  tensor(6, 'slopes', options.slopes);
  tensor(7, 'sinks', options.sinks);
  tensor(8, 'mask', options.mask);
  if (blockMask !== undefined) {
    checkObject(op, 'blockMask', blockMask);
    add(9, [
      ...checkedTensorValues(op, 'blockMask.mask', blockMask.mask),
      blockMask.queries,
      blockMask.keys,
    ]);
  }
  number(10, options.prefix);
  number(11, options.causalBlock);
  number(12, options.sinkTokens);
  tensor(13, 'windows', options.windows);
  tensor(14, 'sinkCounts', options.sinkCounts);
  tensor(15, 'lse', options.lse);
  tensor(16, 'probabilities', options.probabilities);
  const { scores } = options;
  if (scores !== undefined) {
    checkOptions(`${op}: scores`, scores, scoreNames);
    number(17, scores.queries);
    tensor(18, 'scores.sums', scores.sums);
    tensor(19, 'scores.squares', scores.squares);
    tensor(20, 'scores.entropy', scores.entropy);
    tensor(21, 'scores.variance', scores.variance);
  }
  if (options.rope !== undefined) add(22, ropeValues(op, options.rope));
  const { causal = 'segments' in source } = options;
  if (typeof causal !== 'boolean') {
    throw argumentError(
      'BL_INVALID_ARGUMENT',
      `${op}: causal is ${described(causal)}, expected true or false`,
    );
  }
  return [
    options.scale ?? 0,
    causal ? 1 : 0,
    options.window ?? 0,
    computes[compute],
    given,
    ...values,
  ];
}
