import { readFileSync } from 'node:fs';
import { join } from 'node:path';

/** Folder of the example model and what belongs to it. */
export const examples = join(import.meta.dirname, '../../examples');

/** A llama of 1.2 million parameters with a byte-level tokenizer, weights in q8_0. */
export const tinyModel = join(examples, 'tiny.gguf');

/** A mixture of 8 experts, trained on all but the last chapter of {@link aliceChapters}. */
export const tinyMoEModel = join(examples, 'tiny-moe.gguf');

/** The book that the mixture has read, a chapter each. */
export const aliceChapters = (): string[] =>
  readFileSync(join(examples, 'train-moe/alice.txt'), 'utf8').split('\n\n');
