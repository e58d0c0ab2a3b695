import { describe, expect, it } from 'vitest';
import {
  dds,
  dsd,
  groupedMatmul,
  groupedOuter,
  sdd,
  sequence,
  Tensor,
  type Topology,
  topology,
} from '../../lib/index.js';
import { expectError } from '../reference/op_checks.js';

const zeros = (...shape: number[]) => Tensor.zeros('f32', shape);
const i32 = (...values: number[]) => new Tensor('i32', values, [values.length]);

describe('topology', () => {
  it('reads no offsets that are not there yet', async () => {
    const body = () => topology(i32(0, 5), 8, 16);
    await expect(sequence(body)).rejects.toThrow('topology: called within a sequence');
  });

  it('cuts rows and columns of each expert into blocks, the last ones smaller', () => {
    const t = topology(i32(0, 20, 20, 21), 40, 16);
    expect(t).toMatchObject({ blockSize: 16, blocks: 9, rows: 21, columns: 120 });
    expect(t.rowStarts.toArray()).toEqual([0, 16, 20, 21]);
    expect(t.columnStarts.toArray()).toEqual([0, 16, 32, 40, 56, 72, 80, 96, 112, 120]);
    expect(t.offsets.toArray()).toEqual([0, 3, 6, 9]);
    expect(t.columnIndices.toArray()).toEqual([0, 1, 2, 0, 1, 2, 6, 7, 8]);
    expect(t.rowIndices.toArray()).toEqual([0, 0, 0, 1, 1, 1, 2, 2, 2]);
    expect(t.transposeOffsets.toArray()).toEqual([0, 2, 4, 6, 6, 6, 6, 7, 8, 9]);
    expect(t.transposeIndices.toArray()).toEqual([0, 3, 1, 4, 2, 5, 6, 7, 8]);
  });

  it('takes no rows, no experts and no width', () => {
    expect(topology([0], 10, 16)).toMatchObject({ blocks: 0, rows: 0, columns: 0 });
    expect(topology([0, 0, 0], 10, 16)).toMatchObject({ blocks: 0, rows: 0, columns: 20 });
    expect(topology([0, 5], 0, 16)).toMatchObject({ blocks: 0, rows: 5, columns: 0 });
    const none = sdd(zeros(5, 3), zeros(3, 0), topology([0, 5], 0, 16));
    expect(none.values.shape).toEqual([0, 16, 16]);
    expect(dsd(none, zeros(0, 4)).toArray()).toEqual(new Array(20).fill(0));
    const s = sdd(zeros(0, 3), zeros(3, 20), topology([0, 0, 0], 10, 16));
    expect(dsd(s, zeros(0, 4), { transposeA: true }).shape).toEqual([20, 4]);
  });

  it('names what is wrong', () => {
    const cases: [() => unknown, string, string][] = [
      [() => topology([0, 5], 8, 24), 'OUT_OF_RANGE', 'blockSize is 24, expected 16, 32, 64, 128'],
      [
        () => topology([0, 5, 3], 8, 16),
        'OUT_OF_RANGE',
        'offsets[2] is 3, expected 5 to 2147483647',
      ],
      [() => topology([1, 5], 8, 16), 'OUT_OF_RANGE', 'offsets[0] is 1, expected 0 to 0'],
      [() => topology([], 8, 16), 'INVALID_SHAPE', 'offsets has 0 entries, expected at least 1'],
      [
        () => topology({} as never, 8, 16),
        'INVALID_ARGUMENT',
        'offsets is an Object, expected a Tensor',
      ],
      [
        () => topology([0, 2 ** 31 - 1], 2 ** 20, 16),
        'OUT_OF_RANGE',
        `blocks is ${2 ** 27 * 2 ** 16}, expected below 2147483648`,
      ],
      [
        () => topology([0, 1], -1, 16),
        'OUT_OF_RANGE',
        'ffn is -1, expected a whole number, and experts * ffn below 2147483648',
      ],
    ];
    for (const [body, code, message] of cases) {
      expectError(body, `BL_${code}`, `topology: ${message}`);
    }
  });
});

describe('products', () => {
  it('refuse offsets that fall or lead outside, and shapes that do not fit', () => {
    const [x, w] = [zeros(5, 4), zeros(2, 3, 4)];
    const out = zeros(5, 3).data.fill(7);
    const cases: [() => unknown, string, string][] = [
      [() => groupedMatmul(x, w, i32(0, 6, 6)), 'OUT_OF_RANGE', 'offsets[1] is 6, expected 0 to 5'],
      [() => groupedMatmul(x, w, i32(0, 3, 2)), 'OUT_OF_RANGE', 'offsets[2] is 2, expected 3 to 5'],
      [
        () => groupedMatmul(x, w, i32(-1, 3, 5)),
        'OUT_OF_RANGE',
        'offsets[0] is -1, expected 0 to 5',
      ],
      [
        () => groupedMatmul(x, w, i32(0, 5)),
        'INVALID_SHAPE',
        'b.shape[0] is 2, expected 1 (= offsets.shape[0] - 1)',
      ],
      [
        () => groupedMatmul(x, zeros(2, 3, 5), i32(0, 1, 2)),
        'INVALID_SHAPE',
        'b.shape[2] is 5, expected 4 (= a.shape[1])',
      ],
      [
        () => groupedMatmul(x, w, i32(0, 1, 2), { transposeB: true }),
        'INVALID_SHAPE',
        'b.shape[1] is 3, expected 4 (= a.shape[1])',
      ],
      [
        () => groupedMatmul(x, w, i32(0, 1, 2), { compute: 'i8' as 'f32' }),
        'INVALID_ARGUMENT',
        'compute is "i8", expected f32, bf16',
      ],
      [
        () => groupedMatmul(x, w, i32(0, 1, 2), { transposeB: 1 as never }),
        'INVALID_ARGUMENT',
        'transposeB is 1, expected true or false',
      ],
      [
        () => groupedMatmul(x, w, i32(0, 1, 2), { out: zeros(4, 3) }),
        'INVALID_SHAPE',
        'out.shape[0] is 4, expected 5 (= a.shape[0])',
      ],
      [
        () => groupedMatmul(zeros(5, 3), zeros(2, 3, 3), i32(0, 1, 2), { out: x as never }),
        'INVALID_SHAPE',
        'out.shape[1] is 4, expected 3 (= b.shape[1])',
      ],
      [
        () => groupedMatmul(x, zeros(2, 4, 4), i32(0, 1, 2), { out: x }),
        'INVALID_ARGUMENT',
        'out overlaps a, expected separate memory',
      ],
      [
        () => groupedOuter(x, zeros(4, 2), i32(0, 1, 2)),
        'INVALID_SHAPE',
        'b.shape[0] is 4, expected 5 (= a.shape[0])',
      ],
    ];
    for (const [body, code, message] of cases) {
      expectError(body, `BL_${code}`, `groupedMatmul: ${message}`);
    }
    expect(out.every((value) => value === 7)).toBe(true);
  });

  it('refuse topologies that contradict themselves', () => {
    const t = topology([0, 20], 20, 16); // four blocks
    const s = (own: Partial<Topology>) => ({
      topology: { ...t, ...own },
      values: zeros(4, 16, 16),
    });
    const b = zeros(20, 3);
    const cases: [Partial<Topology>, string, string][] = [
      [{ rowStarts: i32(0, 17, 20) }, 'OUT_OF_RANGE', 'rowStarts[1] is 17, expected 0 to 16'],
      [{ columnStarts: i32(1, 16, 20) }, 'OUT_OF_RANGE', 'columnStarts[0] is 1, expected 0'],
      [{ offsets: i32(0, 2, 3) }, 'OUT_OF_RANGE', 'offsets[2] is 3, expected 4 (blocks)'],
      [
        { offsets: i32(0, 4) },
        'INVALID_SHAPE',
        'offsets.shape[0] is 2, expected 3 (= topology.rowStarts.shape[0])',
      ],
      [
        { columnIndices: i32(0, 2, 0, 1) },
        'OUT_OF_RANGE',
        'columnIndices[1] is 2, expected 1 to 1',
      ],
      [
        { columnIndices: i32(1, 0, 0, 1) },
        'OUT_OF_RANGE',
        'columnIndices[1] is 0, expected 2 to 1',
      ],
      [
        { columnIndices: i32(-1, 0, 0, 1) },
        'OUT_OF_RANGE',
        'columnIndices[0] is -1, expected 0 to 1',
      ],
      [{ rowIndices: i32(0, 1, 1, 1) }, 'OUT_OF_RANGE', 'rowIndices[1] is 1, expected 0 to 0'],
      [
        { transposeIndices: i32(0, 4, 1, 3) },
        'OUT_OF_RANGE',
        'transposeIndices[1] is 4, expected 0 to 3',
      ],
      [
        { transposeIndices: i32(0, 0, 1, 3) },
        'OUT_OF_RANGE',
        'transposeIndices[1] is 0, expected the next block of column 0',
      ],
      [
        { transposeOffsets: i32(0, 3, 4) },
        'OUT_OF_RANGE',
        'transposeIndices[2] is 1, expected the next block of column 0',
      ],
      [
        { rowIndices: i32(0, 0, 1) },
        'INVALID_SHAPE',
        'rowIndices.shape[0] is 3, expected 4 (= blocks)',
      ],
    ];
    for (const [own, code, message] of cases) {
      expectError(() => dsd(s(own), b), `BL_${code}`, `dsd: topology.${message}`);
    }
    expectError(
      () => dsd({ topology: t, values: zeros(4, 16, 15) }, b),
      'BL_INVALID_SHAPE',
      'dsd: s.values.shape is [4, 16, 15], expected blocks of as many rows as columns',
    );
    expectError(
      () => dsd(s({}), zeros(19, 3)),
      'BL_INVALID_SHAPE',
      'dsd: b.shape[0] is 19, expected at least 20 (columns of topology)',
    );
    expectError(
      () => dds(zeros(3, 19), s({})),
      'BL_INVALID_SHAPE',
      'dds: a.shape[1] is 19, expected at least 20 (rows of topology)',
    );
    expectError(
      () => sdd(zeros(20, 5), zeros(4, 20), t),
      'BL_INVALID_SHAPE',
      'sdd: b.shape[0] is 4, expected 5 (= a.shape[1])',
    );
    expectError(
      () => sdd(zeros(19, 4), zeros(4, 20), t),
      'BL_INVALID_SHAPE',
      'sdd: a.shape[0] is 19, expected at least 20 (rows of topology)',
    );
  });
});
