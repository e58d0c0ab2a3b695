import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import {
  type Algorithm,
  machine,
  matmul,
  matmulKernel,
  matmulTuning,
  quantize,
  saveTuning,
  setMatmulTuning,
  Tensor,
  tuneMatmul,
} from '../../lib/index.js';
import { native } from '../../lib/native.js';
import { applySavedTuning, type SavedTuning } from '../../lib/saved_tuning.js';
import { gaussian } from '../reference/random.js';

const { isa } = machine();
const builtIn = matmulTuning();
const folder = mkdtempSync(join(tmpdir(), 'bitloom-tuning-'));
afterEach(() => setMatmulTuning(isa, undefined));

const rows = (count: number): number[] => new Array(9).fill(count);
const a = new Tensor('f32', gaussian(5 * 64, 1), [5, 64]);
const b = quantize(new Tensor('f32', gaussian(32 * 64, 2), [32, 64]), 'u2_g32');
const kernel = () => matmulKernel(a, b, { compute: 'i8' }) as string;

describe('the rule of algorithm auto', () => {
  it('starts with a table for every level', () => {
    expect(builtIn.lutRows).toHaveLength(9);
    expect(builtIn.tileRows.every((count) => count >= 1)).toBe(true);
  });

  it('decides which kernel runs, and only that', () => {
    const forced = (algorithm: Algorithm) => matmul(a, b, { compute: 'i8', algorithm }).toArray();
    const auto = () => matmul(a, b, { compute: 'i8' }).toArray();
    for (const [algorithm, lutRows, tileRows] of [
      ['lut', 5, 6],
      ['dequant', 4, 6],
      ['tile', 4, 5],
    ] as const) {
      const before = forced(algorithm);
      setMatmulTuning(isa, { lutRows: rows(lutRows), tileRows: rows(tileRows) });
      expect(kernel()).toContain(`matmul_${algorithm}_`);
      expect(auto()).toEqual(before);
      expect(forced(algorithm)).toEqual(before);
    }
    setMatmulTuning(isa, undefined);
    expect(matmulTuning()).toEqual(builtIn);
  });

  it('falls back where the algorithm does not take the format', () => {
    setMatmulTuning(isa, { lutRows: rows(100), tileRows: rows(1000) });
    const wide = quantize(new Tensor('f32', gaussian(32 * 64, 2), [32, 64]), 'q8_0');
    expect(matmulKernel(a, wide, { compute: 'i8' })).toContain('matmul_dequant_i8_');
  });

  it.each([
    [{ lutRows: rows(1), tileRows: rows(0) }],
    [{ lutRows: rows(-1), tileRows: rows(1) }],
    [{ lutRows: [1], tileRows: rows(1) }],
    [{ lutRows: rows(1.5), tileRows: rows(1) }],
    [{}],
  ])('refuses %j', (tuning) => {
    expect(() => setMatmulTuning(isa, tuning as never)).toThrow(
      expect.objectContaining({ code: 'BL_INVALID_ARGUMENT' }),
    );
    expect(matmulTuning()).toEqual(builtIn);
  });
});

describe('tuning', () => {
  it('measures a table that is valid, and keeps it', () => {
    let done = 0;
    const tuning = tuneMatmul({
      shape: [64, 128],
      budget: 0.01,
      onProgress: (share) => (done = share),
    });
    expect(done).toBe(1);
    setMatmulTuning(isa, tuning);
    expect(matmulTuning()).toEqual(tuning);
    const path = saveTuning({ [isa]: tuning }, join(folder, 'deep', 'tuning.json'));
    setMatmulTuning(isa, undefined);
    expect(applySavedTuning(native, path)).toBe(true);
    expect(matmulTuning()).toEqual(tuning);
  });

  it('does not take a file that is absent, broken or of another machine', () => {
    const path = join(folder, 'other.json');
    const table = { lutRows: rows(3), tileRows: rows(7) };
    saveTuning({ [isa]: table }, path);
    const good = JSON.parse(readFileSync(path, 'utf8')) as SavedTuning;
    const refused = (text: string) => {
      writeFileSync(path, text);
      expect(applySavedTuning(native, path)).toBe(false);
      expect(matmulTuning()).toEqual(builtIn);
    };
    refused('');
    refused('null');
    refused('{"matmul": 3');
    refused(JSON.stringify({ ...good, processor: 'another' }));
    refused(JSON.stringify({ ...good, bitloom: '0.0.0' }));
    refused(JSON.stringify({ ...good, matmul: {} }));
    refused(JSON.stringify({ ...good, matmul: { 99: table } }));
    refused(JSON.stringify({ ...good, matmul: { 0: { lutRows: rows(1) } } }));
    refused(JSON.stringify({ ...good, matmul: { 0: { ...table, tileRows: rows(2 ** 40) } } }));
    rmSync(path);
    expect(applySavedTuning(native, path)).toBe(false);
    writeFileSync(path, JSON.stringify(good));
    expect(applySavedTuning(native, path)).toBe(true);
    expect(matmulTuning()).toEqual(table);
    rmSync(folder, { recursive: true });
  });
});
