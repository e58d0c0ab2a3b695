// How layers share a budget.

/**
 * How layers share `budget` keys each: `least` for everyone, the rest in proportion to `weights` (equally, if they have no finite
 * sum above 0). What a layer has no keys for goes to the others, in the same proportion. The numbers are whole and sum to the budget of
 * all layers, or to all keys there are.
 *
 * @param most keys that each layer has
 */
export function cappedShares(
  budget: number,
  least: number,
  weights: readonly number[],
  most: readonly number[],
): number[] {
  const sum = (list: readonly number[]): number => list.reduce((a, b) => a + b, 0);
  const total = Math.min(budget * weights.length, sum(most));
  const parts = [...most];
  let open = weights.map((_, l) => l);
  while (open.length > 0) {
    const rest = total - sum(parts.filter((_, l) => !open.includes(l)));
    const all = sum(open.map((l) => weights[l] as number));
    const isUsable = all > 0 && Number.isFinite(all);
    const low = Math.min(least, rest / open.length);
    for (const l of open) {
      const share = isUsable ? (weights[l] as number) / all : 1 / open.length;
      parts[l] = low + (rest - low * open.length) * share;
    }
    const fitting = open.filter((l) => (parts[l] as number) <= (most[l] as number));
    if (fitting.length === open.length) break;
    for (const l of open) parts[l] = Math.min(parts[l] as number, most[l] as number);
    open = fitting;
  }
  return rounded(parts, total, most);
}

/** Whole numbers that sum to `total`, none above `most[l]`: those with the largest fractions are rounded up. */
function rounded(parts: readonly number[], total: number, most: readonly number[]): number[] {
  const whole = parts.map(Math.floor);
  const fraction = (l: number): number => (parts[l] as number) - (whole[l] as number);
  const order = [...parts.keys()].sort((a, b) => fraction(b) - fraction(a) || a - b);
  let missing = total - whole.reduce((a, b) => a + b, 0);
  for (const l of order) {
    if (missing <= 0) break;
    if ((whole[l] as number) >= (most[l] as number)) continue;
    whole[l] = (whole[l] as number) + 1;
    missing--;
  }
  return whole;
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
