/**
 * Stable error codes: `BL_` and a status name in capitals. Argument errors are `TypeError` or
 * `RangeError` with such a `.code`; everything else is a {@link BitloomError}.
 */
export type BitloomErrorCode =
  | 'BL_INVALID_ARGUMENT'
  | 'BL_INVALID_DTYPE'
  | 'BL_INVALID_FORMAT'
  | 'BL_INVALID_SHAPE'
  | 'BL_INVALID_LAYOUT'
  | 'BL_OUT_OF_RANGE'
  | 'BL_BUFFER_TOO_SMALL'
  | 'BL_NON_FINITE'
  | 'BL_UNSUPPORTED'
  | 'BL_OUT_OF_MEMORY'
  | 'BL_INVALID_FILE'
  | 'BL_FILE_CHANGED'
  | 'BL_NOT_FOUND'
  | 'BL_ABORTED'
  | 'BL_DETACHED'
  | 'BL_DEVICE_LOST';

/** An error that is not about an argument: a file, a missing binary, an aborted call. */
export class BitloomError extends Error {
  override readonly name = 'BitloomError';

  /** @param message of the form `operator: argument is actual, expected expected` */
  constructor(
    readonly code: BitloomErrorCode,
    message: string,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }

  /** What raised it: the message up to its first colon. */
  get operator(): string {
    return this.message.split(':', 1)[0] as string;
  }
}

const rangeCodes = new Set<BitloomErrorCode>([
  'BL_INVALID_SHAPE',
  'BL_OUT_OF_RANGE',
  'BL_BUFFER_TOO_SMALL',
  'BL_NON_FINITE',
  'BL_OUT_OF_MEMORY',
]);

/** Makes the `TypeError` or `RangeError` that the native layer would throw for `code`. */
export function argumentError(
  code: BitloomErrorCode,
  message: string,
): (TypeError | RangeError) & { code: BitloomErrorCode } {
  const error = rangeCodes.has(code) ? new RangeError(message) : new TypeError(message);
  return Object.assign(error, { code });
}
