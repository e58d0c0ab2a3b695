import type { KVPages } from '../../ops/kv/kv_pages.js';
import type { Tensor } from '../../tensor.js';
import type { PageCopy } from './changes.js';

/** Bytes of pages in all layers. */
export class PageMemory {
  readonly #tensors: Tensor<'u8'>[];

  constructor(readonly layers: readonly KVPages[]) {
    this.#tensors = layers.flatMap(({ keys, values }) =>
      values === undefined ? [keys] : [keys, values],
    );
  }

  get bytes(): number {
    return this.layers.reduce((sum, pages) => sum + pages.bytes, 0);
  }

  /** Bytes of a page in all layers. */
  get pageBytes(): number {
    return this.layers.reduce((sum, pages) => sum + pages.pageBytes, 0);
  }

  copy(copies: readonly PageCopy[]): void {
    for (const { from, to } of copies) {
      for (const tensor of this.#tensors) {
        const stride = tensor.strides[0] as number;
        tensor.bytes.copyWithin(to * stride, from * stride, (from + 1) * stride);
      }
    }
  }

  /** The bytes of a page, layer after layer. */
  save(page: number): Uint8Array {
    const saved = new Uint8Array(this.pageBytes);
    let at = 0;
    for (const tensor of this.#tensors) {
      const stride = tensor.strides[0] as number;
      saved.set(tensor.bytes.subarray(page * stride, (page + 1) * stride), at);
      at += stride;
    }
    return saved;
  }

  /** Writes what {@link save} gave. */
  restore(page: number, saved: Uint8Array): void {
    let at = 0;
    for (const tensor of this.#tensors) {
      const stride = tensor.strides[0] as number;
      tensor.bytes.set(saved.subarray(at, at + stride), page * stride);
      at += stride;
    }
  }

  dispose(): void {
    for (const pages of this.layers) pages.dispose();
  }
}
