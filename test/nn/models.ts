import { join } from 'node:path';

/** Folder of the example model and what belongs to it. */
export const examples = join(import.meta.dirname, '../../examples');

/** A llama of 1.2 million parameters with a byte-level tokenizer, weights in q8_0. */
export const tinyModel = join(examples, 'tiny.gguf');
