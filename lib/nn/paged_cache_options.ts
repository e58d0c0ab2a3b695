// Options of a PagedDecoderCache, and the pages that they make.
import { checkOptions, checkTensor, described } from '../arguments.js';
import { argumentError } from '../errors.js';
import { type KVFormat, kvFormats } from '../generated.js';
import type { AttentionCompute } from '../ops/attention/options.js';
import { defaultPageSize } from '../ops/kv/kv_pages.js';
import type { Tensor } from '../tensor.js';
import type { ModelConfig } from './config.js';
import type { PagedKVCacheOptions } from './paged/kv_options.js';
import { wholeNumber } from './paged/checks.js';
import { checkPolicy } from './policies/contract.js';
import type { CachePolicy } from './policies/index.js';
import { listOption } from './policies/parts.js';

/** `int8`, `int4`, `int2` stand for `i8`, `i4`, `i2`. */
export type CacheFormat = KVFormat | 'int8' | 'int4' | 'int2';

/** Options of {@link PagedDecoderCache}, and of `decoder.generate(prompt, { cache })`. */
export interface PagedCacheOptions {
  /** How keys and values are kept, or each of them. Default `'f16'`. */
  format?: CacheFormat | { keys: CacheFormat; values: CacheFormat };
  /** The newest tokens, which stay in f16. Default: 64 for formats of 2 and 4 bits, else 0. */
  recent?: number;
  /** Tokens of a page. Default 16; of i4 keys 64 and of i2 keys 32, which share scales. */
  pageSize?: number;
  /** Which keys stay when there are more than its budget. Default: all stay. */
  policy?: CachePolicy;
  /** Tokens of a text. Default: the decoder's contextLength. */
  capacity?: number;
  /** How attention computes. Default `'f32'`. */
  compute?: AttentionCompute;
  /**
   * By layer: a mean that is taken off the keys before they are quantized, [numKvHeads, headDim] ({@link fitKeyMean}). Policies and
   * `read()` see keys without it.
   */
  keyMeans?: readonly Tensor<'f32'>[];
}

const known = new Set([
  'format',
  'recent',
  'pageSize',
  'policy',
  'capacity',
  'compute',
  'keyMeans',
]);
const aliases: Record<string, KVFormat> = { int8: 'i8', int4: 'i4', int2: 'i2' };

// Tokens of a step at most (chunkTokens of decoder.ts), and tokens that are added one by one before a policy decides anew.
export const stepTokens = 256;
export const interval = 64;

function formatOf(format: CacheFormat): KVFormat {
  const name = Object.hasOwn(aliases, format) ? aliases[format] : format;
  if (typeof name === 'string' && Object.hasOwn(kvFormats, name)) return name as KVFormat;
  throw argumentError(
    'BL_INVALID_FORMAT',
    `PagedDecoderCache: format is ${described(format)}, expected one of ${Object.keys(kvFormats).join(', ')}`,
  );
}

/** What a cache is made of. */
export interface PagedCachePlan {
  readonly capacity: number;
  readonly keyMeans: readonly Tensor<'f32'>[] | undefined;
  readonly pool: PagedKVCacheOptions;
}

/** Checks options and counts pages; layers are sequences of one pool. */
export function planPagedCache(
  config: ModelConfig,
  contextLength: number,
  options: PagedCacheOptions,
): PagedCachePlan {
  checkOptions('PagedDecoderCache', options, known);
  const { capacity = contextLength, policy, format = 'f16' } = options;
  if (!Number.isInteger(capacity) || capacity < 1 || capacity > config.contextLength) {
    throw argumentError(
      'BL_OUT_OF_RANGE',
      `PagedDecoderCache: capacity is ${described(capacity)}, expected 1 to ${config.contextLength} (= config.contextLength)`,
    );
  }
  if (policy !== undefined) checkPolicy(policy);
  const both = typeof format === 'object' && format !== null;
  const keys = formatOf(both ? format.keys : format);
  const values = formatOf(both ? format.values : format);
  const isSmall = [keys, values].some((name) => kvFormats[name].bits <= 4);
  const { recent = isSmall ? 64 : 0, pageSize = defaultPageSize(keys) } = options;
  wholeNumber('PagedDecoderCache', 'recent', recent, 0, 2 ** 30);
  wholeNumber('PagedDecoderCache', 'pageSize', pageSize, 8, 256);
  const { numLayers, numKvHeads, headDim, valueDim } = config;
  const most = Math.min(capacity, (policy?.budget ?? capacity) + interval);
  // Layers have the budget on average; each has a page that is not full, and the tokens of a step come on top.
  const pages = (tokens: number): number => Math.ceil(tokens / pageSize) + 2;
  const probe = policy?.probe?.length ?? 0;
  const step = Math.min(policy?.block ?? stepTokens, stepTokens, capacity) + probe;
  return {
    capacity,
    keyMeans: checkedMeans(options.keyMeans, config),
    pool: {
      numLayers: 1,
      numKvHeads,
      headDim,
      valueDim,
      pageSize,
      format: { keys, values },
      recent,
      numPages: numLayers * pages(policy === undefined ? capacity : most + step),
      ...(recent > 0 || kvFormats[keys].scale === 'channel'
        ? { numRecentPages: numLayers * pages(recent + step) }
        : {}),
    },
  };
}

function checkedMeans(
  means: readonly Tensor<'f32'>[] | undefined,
  { numLayers, numKvHeads, headDim }: ModelConfig,
): readonly Tensor<'f32'>[] | undefined {
  if (means === undefined) return undefined;
  listOption('PagedDecoderCache', 'keyMeans', means);
  if (means.length !== numLayers) {
    throw argumentError(
      'BL_INVALID_SHAPE',
      `PagedDecoderCache: keyMeans.length is ${means.length}, expected ${numLayers} (= numLayers)`,
    );
  }
  const expected = [numKvHeads, headDim].join();
  for (const [layer, mean] of means.entries()) {
    checkTensor('PagedDecoderCache', `keyMeans[${layer}]`, mean);
    if (mean.dtype === 'f32' && mean.shape.join() === expected) continue;
    throw argumentError(
      'BL_INVALID_SHAPE',
      `PagedDecoderCache: keyMeans[${layer}] is ${mean.dtype} [${mean.shape}], expected f32 [${expected}]`,
    );
  }
  return [...means];
}
