import { BitloomError } from '../errors.js';

/** The error of a model file whose metadata or tensors contradict themselves or each other. */
export function invalidModel(message: string): BitloomError {
  return new BitloomError('BL_INVALID_FILE', `load: ${message}`);
}

/** The error of a sound model file that bitloom does not run. */
export function unsupportedModel(message: string): BitloomError {
  return new BitloomError('BL_UNSUPPORTED', `load: ${message}`);
}
