// How experts are named in a GGUF file.
import type { GGUFFile } from '../../io/index.js';
import { invalidModel } from '../model_error.js';

/** What an expert may have: a tensor for each, `blk.N.ffn_<part>.E.weight`; the first three may lie in stacks. */
export const expertParts = [
  'gate',
  'up',
  'down',
  // Of low rank: gate and up take `reduce x`, and `expand` is multiplied by what down gives.
  'reduce',
  'expand',
  // Neurons besides, whole.
  'gate_kept',
  'up_kept',
  'down_kept',
] as const;

export type ExpertPart = (typeof expertParts)[number];

/** The tensor of a part of expert e of layer `index`; without e, of the stack of all. */
export const expertTensor = (index: number, part: ExpertPart, e?: number): string =>
  `blk.${index}.ffn_${part}${e === undefined ? '_exps' : `.${e}`}.weight`;

/** Metadata of layers whose tokens go to fewer experts than `expert_used_count` says. */
export const usedCountKey = (index: number): string => `bitloom.blk.${index}.expert_used_count`;

/** Experts of a token of layer `index`, which has `numExperts`. @throws `BL_INVALID_FILE` */
export function usedExperts(
  file: GGUFFile,
  index: number,
  numExperts: number,
  ofModel: number,
): number {
  const own = file.metadata.get(usedCountKey(index));
  if (own === undefined) return Math.min(ofModel, numExperts);
  if (typeof own !== 'number' || !Number.isInteger(own) || own < 1 || own > numExperts) {
    throw invalidModel(
      `metadata ${usedCountKey(index)} is ${String(own).slice(0, 80)}, expected 1 to ${numExperts} (experts of the layer)`,
    );
  }
  return own;
}
