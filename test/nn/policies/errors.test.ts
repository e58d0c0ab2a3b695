// Options that policies refuse.
import { describe, expect, it } from 'vitest';
import {
  adore,
  cake,
  chunkKV,
  citrus,
  compressKV,
  d2o,
  elasticCache,
  ems,
  epiCache,
  guiKV,
  h2o,
  infiniRetri,
  lookM,
  prefixKV,
  pyramidKV,
  scissorhands,
  snapKV,
  streamingLLM,
  tova,
} from '../../../lib/nn/index.js';
import { expectError } from '../../reference/op_checks.js';
import { compress, nested, newLayer, step, weights } from './drive.js';

const whole = (low: number) => `expected a whole number of at least ${low}`;

describe('options of policies', () => {
  it.each<[string, () => unknown, string, string]>([
    ['budget', () => d2o({ budget: 1.5 }), 'BL_OUT_OF_RANGE', `d2o: budget is 1.5, ${whole(2)}`],
    [
      'beta',
      () => d2o({ budget: 8, beta: 2 }),
      'BL_OUT_OF_RANGE',
      'd2o: beta is 2, expected 0 to 1',
    ],
    [
      'window',
      () => ems({ budget: 8, window: 8 }),
      'BL_OUT_OF_RANGE',
      'ems: window is 8, expected less than 8 (= budget)',
    ],
    [
      'threshold',
      () => ems({ budget: 8, threshold: Number.NaN }),
      'BL_OUT_OF_RANGE',
      'ems: threshold is NaN, expected 0 to 1',
    ],
    [
      'mergeable',
      () => ems({ budget: 8, mergeable: -1 }),
      'BL_OUT_OF_RANGE',
      'ems: mergeable is -1, expected at least 0',
    ],
    [
      'errors',
      () => compressKV({ budget: 8, errors: [1, -1] }),
      'BL_OUT_OF_RANGE',
      'compressKV: errors[1] is -1, expected at least 0',
    ],
    [
      'pool',
      () => compressKV({ budget: 8, pool: 2 }),
      'BL_OUT_OF_RANGE',
      'compressKV: pool is 2, expected an odd number',
    ],
    [
      'patch',
      () => epiCache({ budget: 8, patch: [] }),
      'BL_INVALID_ARGUMENT',
      'epiCache: patch is empty, expected token ids, at least one',
    ],
    [
      'similarity',
      () => epiCache({ budget: 8, patch: [1], similarity: [2] }),
      'BL_OUT_OF_RANGE',
      'epiCache: similarity is 2, expected -1 to 1',
    ],
    [
      'images',
      () =>
        lookM({
          budget: 8,
          images: [
            [4, 8],
            [6, 9],
          ],
        }),
      'BL_OUT_OF_RANGE',
      'lookM: images[1] is [6,9], expected whole numbers begin < end, begin at least 8',
    ],
    [
      'merge',
      () => lookM({ budget: 8, merge: 'mean' as 'average' }),
      'BL_INVALID_ARGUMENT',
      'lookM: merge is "mean", expected one of average, pivotal, weighted, none',
    ],
    [
      'distance',
      () => elasticCache({ budget: 8, distance: 0 }),
      'BL_OUT_OF_RANGE',
      `elasticCache: distance is 0, ${whole(1)}`,
    ],
    [
      'sinks',
      () => prefixKV({ budget: 8, sinks: -1 }),
      'BL_OUT_OF_RANGE',
      `prefixKV: sinks is -1, ${whole(0)}`,
    ],
    [
      'rank',
      () => guiKV({ budget: 8, rank: 0 }),
      'BL_OUT_OF_RANGE',
      `guiKV: rank is 0, ${whole(1)}`,
    ],
    [
      'instruction',
      () => citrus({ budget: 8, instruction: [1, -2] }),
      'BL_INVALID_ARGUMENT',
      'citrus: instruction[1] is -2, expected a token id',
    ],
    [
      'block',
      () => citrus({ budget: 8, instruction: [1], block: 0 }),
      'BL_OUT_OF_RANGE',
      `citrus: block is 0, ${whole(1)}`,
    ],
    [
      'decay',
      () => adore({ budget: 8, decay: 1.5 }),
      'BL_OUT_OF_RANGE',
      'adore: decay is 1.5, expected 0 to 1',
    ],
    [
      'phrase',
      () => infiniRetri({ budget: 8, question: [1], phrase: 0 }),
      'BL_OUT_OF_RANGE',
      `infiniRetri: phrase is 0, ${whole(1)}`,
    ],
    [
      'an option that is not known',
      () => h2o({ budget: 8, windw: 2 } as never),
      'BL_INVALID_ARGUMENT',
      'h2o: option "windw" is not known, expected one of budget, window',
    ],
    [
      'tau1',
      () => cake({ budget: 8, tau1: 0 }),
      'BL_OUT_OF_RANGE',
      'cake: tau1 is 0, expected at least 0.001',
    ],
    [
      'tau2',
      () => cake({ budget: 8, tau2: '1' as never }),
      'BL_OUT_OF_RANGE',
      'cake: tau2 is "1", expected at least 0.001',
    ],
    [
      'gamma',
      () => cake({ budget: 8, gamma: Number.NaN }),
      'BL_OUT_OF_RANGE',
      'cake: gamma is NaN, expected at least 0',
    ],
    [
      'heads',
      () => compressKV({ budget: 8, heads: 5 as never }),
      'BL_INVALID_ARGUMENT',
      'compressKV: heads is 5, expected an array',
    ],
    [
      'a range that is none',
      () => lookM({ budget: 8, images: [5 as never] }),
      'BL_INVALID_ARGUMENT',
      'lookM: images[0] is 5, expected an array',
    ],
    [
      'question',
      () => infiniRetri({ budget: 8 } as never),
      'BL_INVALID_ARGUMENT',
      'infiniRetri: question is undefined, expected an array',
    ],
    [
      'sentences',
      () => infiniRetri({ budget: 8, question: [1], sentences: [5, 3] }),
      'BL_OUT_OF_RANGE',
      'infiniRetri: sentences[1] is 3, expected a whole number of at least 5',
    ],
    [
      'controller',
      () => adore({ budget: 8, controller: 5 as never }),
      'BL_INVALID_ARGUMENT',
      'adore: controller is 5, expected a function',
    ],
  ])('%s', (_, body, code, message) => {
    expectError(body, code, message);
    expect(body).toThrow(code === 'BL_OUT_OF_RANGE' ? RangeError : TypeError);
  });

  it.each([
    ...[streamingLLM, tova, h2o, scissorhands, snapKV, pyramidKV, cake, chunkKV, d2o, ems],
    ...[compressKV, epiCache, lookM, elasticCache, prefixKV, guiKV, citrus, adore, infiniRetri],
  ])('%o without options', (factory) => {
    expectError(
      () => factory(undefined as never),
      'BL_INVALID_ARGUMENT',
      `${factory.name}: options is undefined, expected an object`,
    );
  });

  it('a window that is undefined is none', () => {
    const window = { budget: 64, window: undefined as never };
    expect(snapKV(window).observes(100)).toBe(32);
    // The newest half stays.
    const [layer, policy] = [newLayer(1), h2o(window)];
    step(policy, [layer], 70, () => weights(1, 70, 70, 1));
    expect(compress(policy, [layer]).kept[0]?.[0]?.slice(-32)).toEqual(nested(32, (i) => 38 + i));
  });

  it('what does not fit the model, once it is seen', () => {
    const layers = [newLayer(2)];
    const score = (heads: number[][]) => () =>
      step(compressKV({ budget: 4, heads }), layers, 6, () => weights(4, 2, 6, 1));
    expectError(
      score([[0], [1]]),
      'BL_INVALID_SHAPE',
      'compressKV: heads.length is 2, expected 1 (layers)',
    );
    expectError(
      score([[4]]),
      'BL_OUT_OF_RANGE',
      'compressKV: heads[0] is [4], expected at least one of 0 to 3',
    );
    const policy = epiCache({ budget: 4, patch: [1], similarity: [0.5, 0.5] });
    expectError(
      () => compress(policy, layers),
      'BL_INVALID_SHAPE',
      'epiCache: similarity.length is 2, expected 1 (layers)',
    );
  });
});
