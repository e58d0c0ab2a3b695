// How layers share a budget.

/** Budgets in proportion to `weights`, `budget` on average, none below `least`. */
export function shares(budget: number, least: number, weights: readonly number[]): number[] {
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  const all = budget * weights.length;
  const free = all - least * weights.length;
  if (!(total > 0) || !Number.isFinite(total)) return weights.map(() => budget);
  return weights.map((weight) => least + Math.floor((free * weight) / total));
}

/**
 * {@link shares}, none above `most[l]`: what a layer can not use goes to the others, in the same proportion.
 *
 * @param most keys that each layer has
 */
export function cappedShares(
  budget: number,
  least: number,
  weights: readonly number[],
  most: readonly number[],
): number[] {
  const full = new Set<number>();
  for (;;) {
    const open = weights.map((_, l) => l).filter((l) => !full.has(l));
    if (open.length === 0) return [...most];
    let rest = budget * weights.length;
    for (const l of full) rest -= most[l] as number;
    const some = shares(
      rest / open.length,
      Math.min(least, rest / open.length),
      open.map((l) => weights[l] as number),
    );
    const over = open.filter((l, i) => (some[i] as number) >= (most[l] as number));
    if (over.length === 0) {
      const result = [...most];
      for (const [i, l] of open.entries()) result[l] = Math.floor(some[i] as number);
      return result;
    }
    for (const l of over) full.add(l);
  }
}

/**
 * PrefixKV's search: the largest share p of a layer's importance such that the shortest prefixes of the sorted importances
 * with at least that share have `total` keys together at most. Gives their lengths.
 *
 * @param importance by layer, not negative
 */
export function prefixBudgets(importance: readonly Float32Array[], total: number): number[] {
  const cumulative = importance.map((scores) => {
    const sorted = Float64Array.from(scores).sort().reverse();
    const sum = sorted.reduce((a, b) => a + b, 0);
    let so = 0;
    return sorted.map((value) => {
      so += value;
      return sum > 0 ? so / sum : 1;
    });
  });
  const lengths = (p: number): number[] =>
    cumulative.map((shares) => {
      if (p <= 0) return 0;
      let low = 0;
      let high = shares.length;
      while (low < high) {
        const middle = (low + high) >> 1;
        if ((shares[middle] as number) >= p) high = middle;
        else low = middle + 1;
      }
      return Math.min(low + 1, shares.length);
    });
  const count = (list: readonly number[]): number => list.reduce((a, b) => a + b, 0);
  let low = 0;
  let high = 1;
  // 50 halvings: all that a double between 0 and 1 tells apart near 1.
  for (let i = 0; i < 50; i++) {
    const middle = (low + high) / 2;
    if (count(lengths(middle)) <= total) low = middle;
    else high = middle;
  }
  return lengths(low);
}
