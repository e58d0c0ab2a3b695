// Sampling in float64, written from the description: sorts everything, keeps sets.

export interface SamplingReferenceOptions {
  temperature?: number;
  topK?: number;
  topP?: number;
  minP?: number;
  repetitionPenalty?: number;
  previous?: readonly number[];
}

const mask = (1n << 64n) - 1n;

/** SplitMix64 (Steele, Lea and Flood 2014) from its published text: a state that is stepped. */
export function* splitmix64(seed: bigint): Generator<bigint> {
  for (let state = seed; ; ) {
    state = (state + 0x9e3779b97f4a7c15n) & mask;
    let z = state;
    z = ((z ^ (z >> 30n)) * 0xbf58476d1ce4e5b9n) & mask;
    z = ((z ^ (z >> 27n)) * 0x94d049bb133111ebn) & mask;
    yield z ^ (z >> 31n);
  }
}

/** Number `position` of the sequence, in [0, 1) with 53 bits. */
export function uniform(seed: bigint, position: bigint): number {
  const start = (seed + position * 0x9e3779b97f4a7c15n) & mask;
  return Number((splitmix64(start).next().value as bigint) >> 11n) * 2 ** -53;
}

/** Tokens that are left, likeliest first, with their probabilities. */
export function distribution(
  logits: ArrayLike<number>,
  options: SamplingReferenceOptions,
): { token: number; probability: number }[] {
  const {
    temperature = 1,
    topK = 0,
    topP = 1,
    minP = 0,
    repetitionPenalty = 1,
    previous = [],
  } = options;
  const seen = new Set(previous);
  let left = Array.from(logits, (value, token) => {
    const penalized = value > 0 ? value / repetitionPenalty : value * repetitionPenalty;
    return { token, logit: seen.has(token) ? Math.fround(penalized) : value, probability: 0 };
  });
  left.sort((a, b) => (a.logit === b.logit ? a.token - b.token : b.logit - a.logit));
  const largest = left[0]?.logit as number;
  if (temperature === 0) return [{ token: left[0]?.token as number, probability: 1 }];
  if (topK > 0) left = left.slice(0, topK);
  for (const each of left) {
    each.probability = each.logit === largest ? 1 : Math.exp((each.logit - largest) / temperature);
  }
  if (topP > 0 && topP < 1) {
    // On weights, not yet normalized: exact where they are whole, so that ties at topP are decided alike.
    const total = left.reduce((sum, { probability }) => sum + probability, 0);
    let sum = 0;
    const enough = left.findIndex(({ probability }) => {
      sum += probability;
      return sum >= Math.fround(topP) * total;
    });
    if (enough >= 0) left = left.slice(0, enough + 1);
  }
  const most = left[0]?.probability as number;
  left = left.filter(
    ({ probability }) => probability > 0 && probability >= Math.fround(minP) * most,
  );
  const total = left.reduce((sum, { probability }) => sum + probability, 0);
  return left.map((each) => ({ ...each, probability: each.probability / total }));
}
