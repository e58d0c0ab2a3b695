/** Value below which a share `q` of the sorted `values` lies, linear in between. */
export function quantile(sorted, q) {
  const position = (sorted.length - 1) * q;
  const low = Math.floor(position);
  const high = Math.min(low + 1, sorted.length - 1);
  return sorted[low] + (sorted[high] - sorted[low]) * (position - low);
}

/** { median, p10, p90 } of unsorted values. */
export function summary(values) {
  const sorted = Float64Array.from(values).sort();
  return { median: quantile(sorted, 0.5), p10: quantile(sorted, 0.1), p90: quantile(sorted, 0.9) };
}

/** Relative error |values - reference| / |reference| in the Euclidean norm; 0 where both are 0. */
export function relativeError(values, reference) {
  let difference = 0;
  let size = 0;
  for (let i = 0; i < reference.length; i++) {
    difference += (values[i] - reference[i]) ** 2;
    size += reference[i] ** 2;
  }
  return difference === 0 ? 0 : Math.sqrt(difference / size);
}
