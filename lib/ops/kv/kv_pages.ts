import { checkObject, checkOptions, checkTensor, described } from '../../arguments.js';
import { argumentError } from '../../errors.js';
import { type KVFormat, kvFormats } from '../../generated.js';
import { type NativeValue, native } from '../../native.js';
import { checkedTensorValues, optionalTensorValues } from '../../run.js';
import { Tensor } from '../../tensor.js';

/** What the pages of {@link KVPages} hold. */
export interface KVPagesOptions {
  /** How keys are kept. */
  keyFormat: KVFormat;
  /** How values are kept. Default: as keys. */
  valueFormat?: KVFormat;
  /** Tokens of a page: a multiple of 8, 8 to 256. Default 16. */
  pageSize?: number;
  /** Heads of keys and values in a page: all, or 1 where each head has a block table of its own. */
  numKvHeads: number;
  /** Channels of a key, 1 to 1024. */
  keyDim: number;
  /** Channels of a value; 0: none are kept (a value is the first channels of its key). Default: `keyDim`. */
  valueDim?: number;
  numPages: number;
  /** Memory to use, contiguous and all zero, [numPages, numKvHeads, bytes of a head's page]. Default: new memory. */
  keys?: Tensor<'u8'>;
  /** The same for values. */
  values?: Tensor<'u8'>;
}

const known = new Set<keyof KVPagesOptions>([
  'keyFormat',
  'valueFormat',
  'pageSize',
  'numKvHeads',
  'keyDim',
  'valueDim',
  'numPages',
  'keys',
  'values',
]);

/**
 * Bytes of one head in one page of a paged cache, a multiple of 64. The layout stands in native/formats/kv_page.h.
 *
 * @throws `BL_INVALID_FORMAT`, `BL_INVALID_SHAPE`
 *
 * @example
 * ```ts
 * kvPageBytes('i8', 'keys', 16, 128); // 64 for 16 scales + 2048
 * ```
 */
export function kvPageBytes(
  format: KVFormat,
  of: 'keys' | 'values',
  pageSize: number,
  dim: number,
): number {
  checkWhole('kvPageBytes', 'pageSize', pageSize, 8, 256);
  if (pageSize % 8 !== 0) {
    throw argumentError(
      'BL_INVALID_SHAPE',
      `kvPageBytes: pageSize is ${pageSize}, expected a multiple of 8`,
    );
  }
  checkWhole('kvPageBytes', 'dim', dim, 1, 1024);
  if (of !== 'keys' && of !== 'values') {
    throw argumentError(
      'BL_INVALID_ARGUMENT',
      `kvPageBytes: of is ${described(of)}, expected "keys" or "values"`,
    );
  }
  const { id } = kvFormatInfo('kvPageBytes', 'format', format);
  return native.kvPageBytes(id, of === 'values' ? 1 : 0, pageSize, dim);
}

/**
 * Tokens of a page where nobody says otherwise: 16; of `i4` and `i2` keys, which share their scales by channel among the
 * tokens of a page, 64 and 32 (KIVI, Liu et al. 2024, takes 32 of 2 bits).
 */
export function defaultPageSize(keyFormat: KVFormat): number {
  if (kvFormats[keyFormat]?.scale !== 'channel') return 16;
  return keyFormat === 'i2' ? 32 : 64;
}

/**
 * Memory for the keys and values of one layer in pages: `pageSize` tokens of every head each. Slot `s` is token
 * `s % pageSize` of page `s / pageSize`; {@link kvAppend} writes tokens into slots, {@link kvGather} reads them back,
 * and `attention` reads the pages that a block table names. Which page belongs to whom is the caller's to know.
 *
 * A page is the same number in `keys` and in `values`, so that one block table serves both. Where heads have tables of
 * their own, `numKvHeads` is 1 and a page belongs to one head.
 *
 * @example
 * ```ts
 * const pages = new KVPages({ keyFormat: 'i8', numKvHeads: 8, keyDim: 128, numPages: 64 });
 * kvAppend(k, v, new Tensor('i32', [32, 33], [2]), pages); // two tokens, the first ones of page 2
 * pages.keys.slice(2, 3).bytes; // that page
 * ```
 */
export class KVPages {
  readonly keyFormat: KVFormat;
  readonly valueFormat: KVFormat;
  readonly pageSize: number;
  readonly numKvHeads: number;
  readonly keyDim: number;
  /** 0: there are no values. */
  readonly valueDim: number;
  readonly numPages: number;
  /** [numPages, numKvHeads, bytes of a head's page] */
  readonly keys: Tensor<'u8'>;
  /** The same of values; undefined where `valueDim` is 0. */
  readonly values: Tensor<'u8'> | undefined;

  /**
   * @throws `BL_INVALID_FORMAT`, `BL_INVALID_SHAPE`, `BL_INVALID_ARGUMENT`, `BL_OUT_OF_MEMORY`
   */
  constructor(options: KVPagesOptions) {
    checkObject('KVPages', 'options', options);
    checkOptions('KVPages', options, known);
    const { keyFormat, numKvHeads, keyDim, numPages } = options;
    this.keyFormat = keyFormat;
    this.valueFormat = options.valueFormat ?? keyFormat;
    this.pageSize = options.pageSize ?? 16;
    this.numKvHeads = numKvHeads;
    this.keyDim = keyDim;
    this.valueDim = options.valueDim ?? keyDim;
    this.numPages = numPages;
    kvFormatInfo('KVPages', 'keyFormat', keyFormat);
    kvFormatInfo('KVPages', 'valueFormat', this.valueFormat);
    checkWhole('KVPages', 'pageSize', this.pageSize, 8, 256);
    if (this.pageSize % 8 !== 0) {
      throw argumentError(
        'BL_INVALID_SHAPE',
        `KVPages: pageSize is ${this.pageSize}, expected a multiple of 8`,
      );
    }
    checkWhole('KVPages', 'numKvHeads', numKvHeads, 1, 65536);
    checkWhole('KVPages', 'keyDim', keyDim, 1, 1024);
    checkWhole('KVPages', 'valueDim', this.valueDim, 0, 1024);
    // A slot is an i32.
    checkWhole('KVPages', 'numPages', numPages, 0, Math.floor((2 ** 31 - 1) / this.pageSize));
    this.keys = this.#memory('keys', options.keys, keyFormat, keyDim);
    if (this.valueDim === 0 && options.values !== undefined) {
      throw argumentError(
        'BL_INVALID_ARGUMENT',
        'KVPages: values is given, expected none (valueDim is 0)',
      );
    }
    this.values =
      this.valueDim === 0
        ? undefined
        : this.#memory('values', options.values, this.valueFormat, this.valueDim);
  }

  #memory(
    name: 'keys' | 'values',
    given: Tensor<'u8'> | undefined,
    format: KVFormat,
    dim: number,
  ): Tensor<'u8'> {
    const bytes = kvPageBytes(format, name, this.pageSize, dim);
    const shape = [this.numPages, this.numKvHeads, bytes];
    if (given === undefined) return Tensor.zeros('u8', shape);
    checkTensor('KVPages', name, given);
    const fits =
      given.dtype === 'u8' &&
      given.contiguous &&
      given.rank === 3 &&
      given.shape.every((size, axis) => size === shape[axis]);
    if (fits) return given;
    throw argumentError(
      'BL_INVALID_SHAPE',
      `KVPages: ${name} is ${given.dtype} [${given.shape}], expected contiguous u8 [${shape}]`,
    );
  }

  /** Tokens that there is room for. */
  get numSlots(): number {
    return this.numPages * this.pageSize;
  }

  /** Bytes of a page: keys and values of all its heads. */
  get pageBytes(): number {
    const bytes = (tensor: Tensor<'u8'> | undefined): number => tensor?.shape[2] ?? 0;
    return this.numKvHeads * (bytes(this.keys) + bytes(this.values));
  }

  /** Bytes of all pages. */
  get bytes(): number {
    return this.numPages * this.pageBytes;
  }

  get disposed(): boolean {
    return this.keys.disposed;
  }

  /** Lets go of the memory; what the pages made themselves is freed at once. */
  dispose(): void {
    this.keys.dispose();
    this.values?.dispose();
  }

  /** {@link dispose}, for `using`. */
  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** What native calls read of pages; the order stands in native/node/ops/kv/kv.cc. @internal */
export function pagesValues(op: string, pages: KVPages): NativeValue[] {
  checkPages(op, pages);
  return [
    ...checkedTensorValues(op, 'pages.keys', pages.keys),
    kvFormatInfo(op, 'pages.keyFormat', pages.keyFormat).id,
    pages.pageSize,
    pages.numKvHeads,
    pages.keyDim,
    pages.numPages,
    ...optionalTensorValues(op, 'pages.values', pages.values),
    kvFormatInfo(op, 'pages.valueFormat', pages.valueFormat).id,
    pages.valueDim,
  ];
}

// By properties, not by class: a process may hold the ESM and the CommonJS build of this package.
function checkPages(op: string, pages: unknown): asserts pages is KVPages {
  if (typeof pages === 'object' && pages !== null && 'keyFormat' in pages && 'keys' in pages)
    return;
  throw argumentError(
    'BL_INVALID_ARGUMENT',
    `${op}: pages is ${described(pages)}, expected KVPages`,
  );
}

function kvFormatInfo(op: string, name: string, format: string): (typeof kvFormats)[KVFormat] {
  if (typeof format === 'string' && Object.hasOwn(kvFormats, format)) {
    return kvFormats[format as KVFormat];
  }
  throw argumentError(
    'BL_INVALID_FORMAT',
    `${op}: ${name} is ${described(format)}, expected one of ${Object.keys(kvFormats).join(', ')}`,
  );
}

function checkWhole(op: string, name: string, value: unknown, low: number, high: number): void {
  if (Number.isInteger(value) && (value as number) >= low && (value as number) <= high) return;
  throw argumentError(
    'BL_INVALID_SHAPE',
    `${op}: ${name} is ${described(value)}, expected ${low} to ${high}`,
  );
}
