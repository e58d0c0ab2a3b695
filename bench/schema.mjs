// The shape of the bench's JSON, checked in words: what is wrong, or nothing.

const number = (value) => typeof value === 'number' && Number.isFinite(value);
const positive = (value) => number(value) && value > 0;
const whole = (value) => Number.isInteger(value) && value >= 0;
const string = (value) => typeof value === 'string' && value.length > 0;

const peer = (value) =>
  value === null ||
  (string(value.name) &&
    string(value.version) &&
    positive(value.median_us) &&
    positive(value.ratio));

const resultFields = {
  family: string,
  op: string,
  case: string,
  format: string,
  m: whole,
  n: whole,
  k: whole,
  isa: string,
  algorithm: string,
  threads: (value) => whole(value) && value > 0,
  cold: (value) => typeof value === 'boolean',
  median_us: positive,
  p10_us: positive,
  p90_us: positive,
  bytes: positive,
  operations: (value) => number(value) && value >= 0,
  floor_us: positive,
  floor_ratio: positive,
  bound: (value) => value === 'memory' || value === 'compute',
  error: (value) => number(value) && value >= 0,
  peer,
};
const topFields = ['machine', 'date', 'commit', 'roofs', 'results'];

/** Every way in which `report` is not what bench/README.md says; empty if it is. */
export function problems(report) {
  const found = [];
  const keys = Object.keys(report);
  if (keys.join() !== topFields.join()) found.push(`top level has ${keys}, expected ${topFields}`);
  if (!(report.results?.length > 0)) found.push('results is empty');
  const names = Object.keys(resultFields);
  for (const [index, result] of (report.results ?? []).entries()) {
    if (Object.keys(result).join() !== names.join()) {
      found.push(`results[${index}] has ${Object.keys(result)}, expected ${names}`);
      continue;
    }
    for (const [name, valid] of Object.entries(resultFields)) {
      if (!valid(result[name]))
        found.push(`results[${index}].${name} is ${JSON.stringify(result[name])}`);
    }
    if (!(result.p10_us <= result.median_us && result.median_us <= result.p90_us)) {
      found.push(`results[${index}]: p10, median, p90 are not in order`);
    }
  }
  for (const kind of ['read', 'multiply']) {
    if (!Array.isArray(report.roofs?.[kind])) found.push(`roofs.${kind} is missing`);
  }
  return found;
}
