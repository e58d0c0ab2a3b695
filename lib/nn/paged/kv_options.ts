import { checkOptions, checkTensor, described } from '../../arguments.js';
import { argumentError } from '../../errors.js';
import { type KVFormat, kvFormats } from '../../generated.js';
import { defaultPageSize, kvPageBytes } from '../../ops/kv/kv_pages.js';
import type { RopeOptions } from '../../ops/rope/rope.js';
import { type RunOptions, runValue } from '../../run.js';
import type { Tensor } from '../../tensor.js';
import type { Shortage } from './block_pool.js';
import { wholeNumber } from './checks.js';

/** Shape, format and size of a {@link PagedKVCache}. */
export interface PagedKVCacheOptions extends Pick<RunOptions, 'isa' | 'threads'> {
  numLayers: number;
  numKvHeads: number;
  /** Channels of a key head. */
  headDim: number;
  /** Channels of a value head; 0: none, a value is the first channels of its key. Default: headDim. */
  valueDim?: number;
  /** Tokens of a page, a multiple of 8 from 8 to 256. Default 16; of i4 keys 64 and of i2 keys 32, which share scales. */
  pageSize?: number;
  /** How keys and values are kept, or each of them. Default `'f16'`. */
  format?: KVFormat | { keys: KVFormat; values: KVFormat };
  /** Pages, each of all layers; or {@link budgetBytes}. */
  numPages?: number;
  /** Memory of all pages together, of which as many are made as fit. */
  budgetBytes?: number;
  /**
   * The newest tokens of a sequence that are kept in {@link recentFormat}. Older ones are quantized by whole pages ('sealed').
   * Default 0; i4 and i2 keys, which have scales per channel of a page, still keep those that fill no page.
   */
  recent?: number;
  /** Default `'f16'`. */
  recentFormat?: 'f16' | 'bf16' | 'f32';
  /**
   * Pages for recent tokens; a sequence needs ceil(recent / pageSize) + 2 at most while it gets a token at a time.
   * Default: for 16 sequences, a quarter of the budget at most.
   */
  numRecentPages?: number;
  /** Rotary embedding of the keys, to turn those that come to stand elsewhere; by layer, where layers differ. */
  rope?: RopeSetting | ((layer: number) => RopeSetting);
  /** By layer: a mean that is taken off the keys before they are quantized, [numKvHeads, headDim] (SageAttention). */
  keyMeans?: readonly (Tensor<'f32'> | undefined)[];
  /** Called where pages are lacking, as {@link BlockPoolOptions.evict}. */
  evict?: (shortage: KVShortage) => void;
}

/** How keys are rotated. */
export type RopeSetting = Omit<RopeOptions, 'out' | keyof RunOptions>;

/** What {@link PagedKVCacheOptions.evict} is told. */
export interface KVShortage extends Shortage {
  /** Which pages are lacking. */
  pages: 'sealed' | 'recent';
}

/** Options of {@link PagedKVCache}, complete. */
export interface CachePlan {
  numLayers: number;
  numKvHeads: number;
  headDim: number;
  valueDim: number;
  pageSize: number;
  keyFormat: KVFormat;
  valueFormat: KVFormat;
  recent: number;
  recentFormat: KVFormat;
  numPages: number;
  /** 0: all tokens are written to their pages at once. */
  numRecentPages: number;
}

const known: ReadonlySet<string> = new Set<keyof PagedKVCacheOptions>([
  'numLayers',
  'numKvHeads',
  'headDim',
  'valueDim',
  'pageSize',
  'format',
  'numPages',
  'budgetBytes',
  'recent',
  'recentFormat',
  'numRecentPages',
  'rope',
  'keyMeans',
  'evict',
  'isa',
  'threads',
]);

function refuse(name: string, value: unknown, expected: string): never {
  throw argumentError(
    'BL_INVALID_ARGUMENT',
    `PagedKVCache: ${name} is ${described(value)}, expected ${expected}`,
  );
}

/** What is not needed before it is used: checked all the same. */
function checkLater({ numLayers, numKvHeads, headDim, ...options }: PagedKVCacheOptions): void {
  const { rope, keyMeans, evict, isa, threads } = options;
  if (evict !== undefined && typeof evict !== 'function') refuse('evict', evict, 'a function');
  const isRope = typeof rope === 'function' || (typeof rope === 'object' && rope !== null);
  if (rope !== undefined && !isRope) refuse('rope', rope, 'an object or a function');
  runValue({
    ...(isa === undefined ? {} : { isa }),
    ...(threads === undefined ? {} : { threads }),
  });
  if (keyMeans === undefined) return;
  if (!Array.isArray(keyMeans)) refuse('keyMeans', keyMeans, 'an array');
  const expected = [numKvHeads, headDim];
  for (let layer = 0; layer < numLayers; layer++) {
    const mean: unknown = keyMeans[layer];
    if (mean === undefined) continue;
    checkTensor('PagedKVCache', `keyMeans[${layer}]`, mean);
    if (mean.dtype === 'f32' && mean.shape.join() === expected.join()) continue;
    throw argumentError(
      'BL_INVALID_SHAPE',
      `PagedKVCache: keyMeans[${layer}] is ${mean.dtype} [${mean.shape}], expected f32 [${expected}]`,
    );
  }
}

/** Checks options and divides the budget. */
export function planCache(options: PagedKVCacheOptions): CachePlan {
  checkOptions('PagedKVCache', options, known);
  const { numLayers, numKvHeads, headDim, valueDim = headDim } = options;
  const { format = 'f16', recent = 0, recentFormat = 'f16', numPages, budgetBytes } = options;
  const { keys: keyFormat, values: valueFormat } =
    typeof format === 'object' && format !== null ? format : { keys: format, values: format };
  const { pageSize = defaultPageSize(keyFormat) } = options;
  const check = (name: string, value: number, min: number, max: number): number =>
    wholeNumber('PagedKVCache', name, value, min, max);
  check('numLayers', numLayers, 1, 65536);
  check('numKvHeads', numKvHeads, 1, 65536);
  check('headDim', headDim, 1, 1024);
  check('valueDim', valueDim, 0, 1024);
  if (!(Number.isInteger(pageSize) && pageSize >= 8 && pageSize <= 256 && pageSize % 8 === 0)) {
    throw argumentError(
      'BL_INVALID_SHAPE',
      `PagedKVCache: pageSize is ${described(pageSize)}, expected a multiple of 8 from 8 to 256`,
    );
  }
  check('recent', recent, 0, 2 ** 30);
  /** Of all layers. */
  const pageBytes = (keys: KVFormat, values: KVFormat): number => {
    const ofKeys = kvPageBytes(keys, 'keys', pageSize, headDim);
    const ofValues = valueDim === 0 ? 0 : kvPageBytes(values, 'values', pageSize, valueDim);
    return numLayers * numKvHeads * (ofKeys + ofValues);
  };
  const sealedBytes = pageBytes(keyFormat, valueFormat);
  const recentBytes = pageBytes(recentFormat, recentFormat);
  if (!['f16', 'bf16', 'f32'].includes(recentFormat)) {
    throw argumentError(
      'BL_INVALID_FORMAT',
      `PagedKVCache: recentFormat is ${JSON.stringify(recentFormat)}, expected f16, bf16 or f32`,
    );
  }
  if ((numPages === undefined) === (budgetBytes === undefined)) {
    throw argumentError(
      'BL_INVALID_ARGUMENT',
      'PagedKVCache: expected one of numPages and budgetBytes',
    );
  }
  const maxPages = Math.floor((2 ** 31 - 1) / pageSize); // slots are i32
  const hasRecent = recent > 0 || kvFormats[keyFormat].scale === 'channel';
  const perSequence = Math.ceil(recent / pageSize) + 2;
  let numRecentPages = 0;
  if (hasRecent) {
    const quarter = Math.floor((budgetBytes ?? Number.POSITIVE_INFINITY) / 4 / recentBytes);
    const chosen = Math.max(perSequence, Math.min(16 * perSequence, quarter));
    numRecentPages = check('numRecentPages', options.numRecentPages ?? chosen, 1, maxPages);
  }
  let pages = numPages;
  if (pages === undefined) {
    const rest = check('budgetBytes', budgetBytes as number, 1, Number.MAX_SAFE_INTEGER);
    pages = Math.floor((rest - numRecentPages * recentBytes) / sealedBytes);
    if (pages < 1) {
      const least = numRecentPages * recentBytes + sealedBytes;
      throw argumentError(
        'BL_OUT_OF_MEMORY',
        `PagedKVCache: budgetBytes is ${budgetBytes}, expected at least ${least} (for one page)`,
      );
    }
    pages = Math.min(pages, maxPages);
  }
  checkLater(options);
  return {
    numLayers,
    numKvHeads,
    headDim,
    valueDim,
    pageSize,
    keyFormat,
    valueFormat,
    recent,
    recentFormat,
    numPages: check('numPages', pages, 1, maxPages),
    numRecentPages,
  };
}
