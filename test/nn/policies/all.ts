// Every policy by name, with options that suit the example model.
import {
  adore,
  type CachePolicy,
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

/** Some token ids of the example model, for policies that are told what the text will be asked for. */
const words = [40, 41, 42, 43];

export const policies: Record<string, (budget: number) => CachePolicy> = {
  streamingLLM: (budget) => streamingLLM({ budget }),
  tova: (budget) => tova({ budget }),
  h2o: (budget) => h2o({ budget }),
  scissorhands: (budget) => scissorhands({ budget }),
  snapKV: (budget) => snapKV({ budget }),
  pyramidKV: (budget) => pyramidKV({ budget }),
  cake: (budget) => cake({ budget }),
  chunkKV: (budget) => chunkKV({ budget, reuse: 2 }),
  d2o: (budget) => d2o({ budget }),
  ems: (budget) => ems({ budget }),
  compressKV: (budget) => compressKV({ budget }),
  epiCache: (budget) => epiCache({ budget, patch: words }),
  lookM: (budget) => lookM({ budget }),
  'lookM with images': (budget) => lookM({ budget, images: [[10, 40]], merge: 'weighted' }),
  elasticCache: (budget) => elasticCache({ budget }),
  prefixKV: (budget) => prefixKV({ budget }),
  guiKV: (budget) => guiKV({ budget }),
  'guiKV with screens': (budget) =>
    guiKV({
      budget,
      screens: [
        [5, 30],
        [40, 70],
      ],
    }),
  citrus: (budget) => citrus({ budget, instruction: words }),
  adore: (budget) => adore({ budget }),
  infiniRetri: (budget) => infiniRetri({ budget, question: words }),
};
