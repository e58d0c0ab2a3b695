/** What the two kinds of tokenizers do in their own way; the rest is in `tokenizer.ts`. */
export interface TokenizerModel {
  /** Whether texts begin with BOS if the file does not say. */
  readonly addBos: boolean;
  /** Whether text at the beginning, and after a special token, gets a space in front; decoding takes the first away. */
  readonly spacePrefix: boolean;
  /** Appends the tokens of text that has no special tokens in it. */
  encode(text: string, out: number[]): void;
  /** Bytes that a normal token stands for. */
  bytes(id: number): Uint8Array;
}
