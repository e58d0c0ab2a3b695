// Compares a report with the committed one, count by count.

// Which way is worse: 1 a larger value, -1 a smaller one.
const kernelCounts = {
  registers: 1,
  localInstructions: 1,
  stackBytes: 1,
  sharedBytes: 1,
  warps: -1,
  'loop.instructions': 1,
  'loop.instructionsPerMma': 1,
};
const dynamicCounts = {
  loadBytesUsed: -1,
  storeBytesUsed: -1,
  wavefrontsPerIdeal: 1,
  matrixWavefrontsPerIdeal: 1,
  neverExecuted: 1,
};

const at = (row, path) => path.split('.').reduce((value, key) => value?.[key] ?? null, row);

function compareRows(committed, current, nameOf, counts, result) {
  const before = new Map(committed.map((row) => [nameOf(row), row]));
  for (const row of current) {
    const name = nameOf(row);
    const old = before.get(name);
    if (!old) {
      result.worse.push(`${name}: no line in the committed report`);
      continue;
    }
    for (const [path, sign] of Object.entries(counts)) {
      const [was, is] = [at(old, path), at(row, path)];
      if (was === is) continue;
      const line = `${name}: ${path} is ${is}, was ${was}`;
      // What can no longer be counted is worse too.
      if (is === null || (was !== null && (is - was) * sign > 0)) result.worse.push(line);
      else result.better.push(line);
    }
  }
}

/**
 * `{ worse, better }`: a line for each count of `current` that differs from `committed`. Kernels and architectures that
 * only the committed report has are not looked at: a build may hold a part of them.
 */
export function compare(committed, current) {
  const result = { worse: [], better: [] };
  compareRows(
    committed.kernels,
    current.kernels,
    (r) => `${r.module} ${r.kernel} sm_${r.arch}`,
    kernelCounts,
    result,
  );
  compareRows(
    committed.dynamic,
    current.dynamic,
    (r) => `${r.kernel} ${r.target}`,
    dynamicCounts,
    result,
  );
  return result;
}
