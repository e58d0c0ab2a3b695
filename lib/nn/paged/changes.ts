// What a change of a sequence asks the owner of the memory to do.

/** A page whose bytes are to be copied to another one. */
export interface PageCopy {
  readonly from: number;
  readonly to: number;
}

/** A page to be copied, with its keys turned on by `delta` positions. */
export interface PageReposition extends PageCopy {
  readonly delta: number;
}

/** What {@link PagedSequence.append} asks for: the copies, then the tokens. */
export interface Appended {
  /** Where each token goes: page * page_size + token of the page. */
  readonly slots: Int32Array;
  /** At most one: the last page, where it was shared. */
  readonly copies: readonly PageCopy[];
}

/**
 * What {@link PagedSequence.removeRange} asks for: the copies, then the moves, in order. None goes to a slot that a later
 * one reads.
 */
export interface Removed {
  readonly copies: readonly PageCopy[];
  /** Slots that tokens come from, and go to. */
  readonly from: Int32Array;
  readonly to: Int32Array;
}
