/**
 * The one error class. The message has the form `operator: argument is actual, expected expected`; the code is stable
 * and is what programs should test.
 *
 * @example
 * try {
 *   readGGUF(source);
 * } catch (error) {
 *   if (error instanceof BitloomError && error.code === 'BL_INVALID_FILE') console.error(error.message);
 * }
 */
export class BitloomError extends Error {
  /** Stable code, such as `BL_INVALID_FILE`. */
  readonly code: string;
  /** What raised it: the message up to its first colon. */
  readonly operator: string;

  constructor(code: string, message: string) {
    super(message);
    this.name = 'BitloomError';
    this.code = code;
    const colon = message.indexOf(':');
    this.operator = colon < 0 ? '' : message.slice(0, colon);
  }
}

/**
 * The error for a wrong argument: a RangeError for `BL_OUT_OF_RANGE`, otherwise a TypeError, with `.code`.
 * It is returned, not thrown, so that the caller's `throw` shows the end of the path.
 */
export function invalid(code: string, message: string): Error & { code: string } {
  const error = code === 'BL_OUT_OF_RANGE' ? new RangeError(message) : new TypeError(message);
  return Object.assign(error, { code });
}
