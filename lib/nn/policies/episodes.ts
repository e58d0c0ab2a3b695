import { checkObject } from '../../arguments.js';
import { argumentError } from '../../errors.js';
import { embedding } from '../../ops/embedding/embedding.js';
import { Tensor } from '../../tensor.js';
import type { Decoder } from '../decoder.js';
import { tokenIds } from '../decoder_arguments.js';
import type { PagedCacheOptions } from '../paged_cache_options.js';
import type { PagedDecoderCache } from '../paged_decoder_cache.js';
import { type EpiCacheOptions, epiCache } from './epi_cache.js';
import { functionOption, listOption, wholeOption } from './parts.js';
import { cosine } from './scores.js';

/** Segments of a conversation in groups. */
export interface Episodes {
  /** [episodes][dim] */
  centers: Float64Array[];
  /** Episode of each segment. */
  labels: number[];
  /** Of each episode, the segment nearest to its center. */
  medoids: number[];
}

/**
 * k-means on vectors of unit length (cosine), with k-means++ beginnings and Lloyd's steps until nothing moves (100 at most); the same for
 * the same seed. Episodes without a segment are left out.
 *
 * @throws `BL_INVALID_ARGUMENT` without vectors, `BL_INVALID_SHAPE` for vectors of different lengths, `BL_OUT_OF_RANGE` for one
 *   that is not finite
 */
export function clusterEpisodes(
  vectors: readonly ArrayLike<number>[],
  episodes: number,
  seed = 1,
): Episodes {
  wholeOption('clusterEpisodes', 'episodes', episodes, 1);
  if (listOption('clusterEpisodes', 'vectors', vectors).length === 0) {
    throw argumentError(
      'BL_INVALID_ARGUMENT',
      'clusterEpisodes: vectors is empty, expected at least one',
    );
  }
  for (const [i, vector] of vectors.entries()) {
    listOption('clusterEpisodes', `vectors[${i}]`, vector as readonly number[]);
  }
  wholeOption('clusterEpisodes', 'seed', seed, 0);
  const bad = vectors.findIndex((x) => !Array.from(x).every(Number.isFinite));
  if (bad >= 0) {
    throw argumentError(
      'BL_OUT_OF_RANGE',
      `clusterEpisodes: vectors[${bad}] has a number that is not finite`,
    );
  }
  const units = vectors.map(unit);
  let centers = beginnings(units, Math.min(episodes, units.length), seed);
  let labels: number[] = [];
  for (let i = 0; i < 100; i++) {
    const next = units.map((x) => nearestOf(centers, x));
    if (next.every((label, j) => label === labels[j])) break;
    labels = next;
    centers = centers.map((center, c) => {
      const members = units.filter((_, j) => labels[j] === c);
      return members.length === 0 ? center : meanOf(members);
    });
  }
  const used = [...new Set(labels)].sort((a, b) => a - b);
  const medoids = used.map((c) => {
    const members = [...units.keys()].filter((j) => labels[j] === c);
    const center = centers[c] as Float64Array;
    return members.reduce((best, j) =>
      cosine(units[j] as Float64Array, center) > cosine(units[best] as Float64Array, center)
        ? j
        : best,
    );
  });
  return {
    centers: used.map((c) => centers[c] as Float64Array),
    labels: labels.map((label) => used.indexOf(label)),
    medoids,
  };
}

function unit(x: ArrayLike<number>): Float64Array {
  const values = Float64Array.from(x);
  const length = Math.hypot(...values);
  return length > 0 ? values.map((value) => value / length) : values;
}

function meanOf(members: readonly Float64Array[]): Float64Array {
  const sum = new Float64Array((members[0] as Float64Array).length);
  for (const x of members)
    for (const [i, value] of x.entries()) sum[i] = (sum[i] as number) + value;
  return sum.map((value) => value / members.length);
}

/** The most alike by cosine; the first of equals. */
function nearestOf(centers: readonly Float64Array[], x: ArrayLike<number>): number {
  const cosines = centers.map((center) => cosine(center, x));
  return cosines.indexOf(Math.max(...cosines));
}

/** k-means++: the first at random, each next one with a probability in proportion to its squared distance. */
function beginnings(units: readonly Float64Array[], count: number, seed: number): Float64Array[] {
  let state = seed >>> 0;
  const random = (): number => {
    // mulberry32
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  const centers = [units[Math.floor(random() * units.length)] as Float64Array];
  while (centers.length < count) {
    const distances = units.map((x) => 1 - Math.max(...centers.map((center) => cosine(center, x))));
    const total = distances.reduce((a, b) => a + Math.max(b, 0), 0);
    if (total <= 1e-12) break; // all stand on a center
    let at = random() * total;
    const chosen = distances.findIndex((distance) => {
      at -= Math.max(distance, 0);
      return at < 0;
    });
    centers.push(units[chosen < 0 ? units.length - 1 : chosen] as Float64Array);
  }
  return centers;
}

/** Mean of the rows of a decoder's embedding table: a vector for a piece of text that needs no other model. */
export function meanEmbedding(decoder: Decoder, tokens: readonly number[]): Float32Array {
  const list = listOption('meanEmbedding', 'tokens', tokens);
  const ids = new Tensor('i32', tokenIds(list, decoder.config.vocabSize), [tokens.length]);
  const { data, shape } = embedding(decoder.parts.embedding, ids);
  const dim = shape[1] as number;
  const mean = new Float32Array(dim);
  for (let i = 0; i < data.length; i++) {
    mean[i % dim] = (mean[i % dim] as number) + (data[i] as number) / tokens.length;
  }
  return mean;
}

/** Options of {@link EpisodicCache}. */
export interface EpisodicCacheOptions
  extends Omit<EpiCacheOptions, 'patch'>,
    Pick<PagedCacheOptions, 'format' | 'recent' | 'pageSize'> {
  /** Caches at most. Default 4. */
  episodes?: number;
  /** Tokens that a patch has at most: the first of the nearest segment. Default 64. */
  patchTokens?: number;
  /** A vector for a piece of text. Default: {@link meanEmbedding}; the paper uses a sentence encoder. */
  embed?: (tokens: readonly number[]) => ArrayLike<number>;
  seed?: number;
}

/**
 * A long conversation in several caches, one for each of its episodes (EpiCache, Kim et al. 2025): its segments are clustered, and the whole
 * is read once for each episode, in blocks, with the segment nearest to the episode's center deciding what stays. A question goes on
 * in the cache of the episode that it is nearest to.
 *
 * Each cache is {@link epiCache}'s; a question and its answer change the cache that they are asked in.
 *
 * @example
 * ```ts
 * import { EpisodicCache, load } from 'bitloom/nn';
 *
 * const decoder = await load('model.gguf');
 * const encode = (text: string) => decoder.tokenizer?.encode(text, { addBos: false }) ?? [];
 * const turns = ['Ann has a house by the sea.', 'Tim found a ball.', 'The ball was red.'].map(encode);
 * const memory = await EpisodicCache.create(decoder, turns, { budget: 512, block: 128, episodes: 2 });
 * const question = encode('What did Ann say of the house?');
 * const cache = memory.match(question);
 * console.log(await decoder.generate(question, { cache, maxTokens: 50 }).text());
 * memory.dispose();
 * ```
 */
export class EpisodicCache {
  private constructor(
    readonly episodes: Episodes,
    readonly caches: readonly PagedDecoderCache[],
    private readonly embed: (tokens: readonly number[]) => ArrayLike<number>,
  ) {}

  /** @throws `BL_INVALID_ARGUMENT` without segments, and what the policy and the decoder throw */
  static async create(
    decoder: Decoder,
    segments: readonly (readonly number[])[],
    options: EpisodicCacheOptions,
  ): Promise<EpisodicCache> {
    checkObject('EpisodicCache', 'options', options);
    for (const [i, segment] of listOption('EpisodicCache', 'segments', segments).entries()) {
      listOption('EpisodicCache', `segments[${i}]`, segment);
    }
    const {
      episodes = 4,
      patchTokens = 64,
      seed,
      embed,
      format,
      recent,
      pageSize,
      ...rest
    } = options;
    wholeOption('EpisodicCache', 'patchTokens', patchTokens, 1);
    functionOption('EpisodicCache', 'embed', embed);
    const embedding = embed ?? ((tokens: readonly number[]) => meanEmbedding(decoder, tokens));
    const found = clusterEpisodes(segments.map(embedding), episodes, seed);
    const { bosId, addBos } = decoder.tokenizer ?? {};
    const text = [...(addBos === true && bosId !== undefined ? [bosId] : []), ...segments.flat()];
    const caches: PagedDecoderCache[] = [];
    try {
      for (const medoid of found.medoids) {
        const patch = (segments[medoid] as readonly number[]).slice(0, patchTokens);
        const cache = decoder.createPagedCache({
          ...(format === undefined ? {} : { format }),
          ...(recent === undefined ? {} : { recent }),
          ...(pageSize === undefined ? {} : { pageSize }),
          policy: epiCache({ ...rest, patch }),
        });
        caches.push(cache);
        await decoder.forwardAsync(text, { cache });
      }
    } catch (error) {
      for (const cache of caches) cache.dispose();
      throw error;
    }
    return new EpisodicCache(found, caches, embedding);
  }

  /** Number of the episode that tokens are nearest to. */
  nearest(tokens: readonly number[]): number {
    return nearestOf(this.episodes.centers, this.embed(tokens));
  }

  /** The cache of that episode. */
  match(tokens: readonly number[]): PagedDecoderCache {
    return this.caches[this.nearest(tokens)] as PagedDecoderCache;
  }

  /** Frees all caches. */
  dispose(): void {
    for (const cache of this.caches) cache.dispose();
  }

  /** {@link dispose}, for `using`. */
  [Symbol.dispose](): void {
    this.dispose();
  }
}
