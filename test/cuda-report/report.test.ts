// The reader of cubins, machine code and its loops, occupancy, bounds, the comparison with the committed report. On
// files made by hand; test/cuda-report/verify.mjs holds the reader against ptxas where nvcc is.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { compare } from './compare.mjs';
import { readCubin } from './cubin.mjs';
import { occupancy } from './limits.mjs';
import { markdown } from './markdown.mjs';
import { makeReport, toJson } from './report.mjs';
import { bound, gpus, matmulBound } from './roofline.mjs';
import { decode, histogram, hotLoop, trim } from './sass.mjs';
import { code, cubin, elf, type Kernel } from './synthetic.js';

const folder = mkdtempSync(join(tmpdir(), 'bitloom-cuda-report-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const [iadd3, hmma, ldg, bra, exit, nop, ldl] = [
  0x210n,
  0x23cn,
  0x981n,
  0x947n,
  0x94dn,
  0x918n,
  0x983n,
];
const plain = (opcode: bigint): [bigint, bigint] => [opcode, 0n];

/** A branch by so many instructions from the next one on. */
function branch(instructions: number, arch: number): [bigint, bigint] {
  const offset = BigInt.asUintN(64, BigInt(instructions) * 4n);
  const upper =
    arch >= 90 ? BigInt.asUintN(48, BigInt.asIntN(64, offset) >> 8n) : BigInt.asUintN(48, offset);
  const lower = arch >= 90 ? (offset & 0xffn) << 16n : 0n;
  return [bra | lower | BigInt.asUintN(64, upper << 34n), upper >> 30n];
}

const kernel = (name: string, arch: number, fields: Partial<Kernel> = {}): Kernel => ({
  name,
  registers: 40,
  stackBytes: 0,
  sharedBytes: 256,
  threads: [128, 1, 1],
  // A loop of 4 instructions with 2 mma, the exit, and padding.
  code: code([
    plain(iadd3),
    plain(ldg),
    plain(hmma),
    plain(hmma),
    branch(-4, arch),
    plain(exit),
    branch(-1, arch),
    plain(nop),
    plain(nop),
  ]),
  ...fields,
});

describe('readCubin', () => {
  for (const [arch, reserved] of [
    [80, false],
    [120, true],
  ] as const) {
    it(`reads attributes of kernels, sm_${arch}`, () => {
      const kernels = [
        kernel('b', arch),
        kernel('a', arch, { threads: null, stackBytes: 24, registers: 255 }),
      ];
      const read = readCubin(cubin(kernels, reserved));
      expect(read.map(({ name }) => name)).toEqual(['a', 'b']);
      expect(read[0]).toMatchObject({
        registers: 255,
        stackBytes: 24,
        sharedBytes: 256,
        maxThreads: 0,
        parameterBytes: 32,
      });
      expect(read[1]).toMatchObject({
        registers: 40,
        stackBytes: 0,
        sharedBytes: 256,
        maxThreads: 128,
      });
      expect(read[1]!.code.equals(kernels[0]!.code)).toBe(true);
    });
  }

  it('names what is wrong with a file', () => {
    expect(() => readCubin(Buffer.from('//\n.version 9.0'))).toThrow(
      'cubin: not a 64-bit ELF file',
    );
    const other = elf([]);
    other.writeUInt16LE(62, 18);
    expect(() => readCubin(other)).toThrow('cubin: machine is 62, expected 190 (CUDA)');
    expect(() => readCubin(elf([]))).toThrow('cubin: no symbol table');
  });

  it('gives kernels or an Error for every cut and every changed byte', () => {
    const whole = cubin([kernel('k', 90)], true);
    fc.assert(
      fc.property(fc.nat(whole.length - 1), fc.nat(255), fc.boolean(), (at, value, cut) => {
        const broken = Buffer.from(cut ? whole.subarray(0, at) : whole);
        if (!cut) broken[at] = value;
        try {
          expect(Array.isArray(readCubin(broken))).toBe(true);
        } catch (error) {
          expect(error).toBeInstanceOf(Error);
        }
      }),
      { numRuns: 300 },
    );
  });
});

describe('machine code', () => {
  it('finds the targets of branches in both encodings', () => {
    for (const arch of [80, 89, 90, 120]) {
      for (const distance of [-300, -64, -1, 0, 1, 63, 64, 1000]) {
        const [instruction] = decode(code([branch(distance, arch)]), arch);
        expect(instruction).toEqual({ name: 'BRA', kind: 'control', target: 1 + distance });
      }
    }
  });

  it('drops the padding', () => {
    const instructions = trim(decode(kernel('k', 80).code, 80));
    expect(instructions.map(({ name }) => name)).toEqual([
      'IADD3',
      'LDG',
      'HMMA',
      'HMMA',
      'BRA',
      'EXIT',
    ]);
    expect(histogram(instructions, 'kind')).toEqual({ control: 2, global: 1, integer: 1, mma: 2 });
  });

  it('shows what it does not know by number', () => {
    expect(decode(code([plain(0x1ffn)]), 80)[0]).toEqual({ name: '0x1ff', kind: 'unknown' });
  });

  it.each([80, 120])(
    'refuses f16 conversions to bytes, which ptxas makes by mistake, sm_%i',
    (arch) => {
      const lost: [bigint, bigint] = [0x305n, 0x2e620010e000n];
      const other: [bigint, bigint] = [0x305n, 0x2e620030d100n];
      const of = (instruction: [bigint, bigint]) => decode(code([instruction]), arch)[0]?.name;
      expect([of(lost), of(other)]).toEqual(['F2I.U8.F16', 'F2I']);
      const images = mkdtempSync(join(folder, 'lost-'));
      const file = join(images, `m.sm_${arch}.cubin`);
      writeFileSync(file, cubin([kernel('k', arch, { code: code([lost, plain(exit)]) })], false));
      expect(() => makeReport([images], [])).toThrow('k has F2I.U8.F16');
    },
  );

  it('takes the loop with the most mma, else the innermost with the most accesses', () => {
    for (const arch of [80, 90]) {
      const body = decode(kernel('k', arch).code, arch);
      expect(hotLoop(body)).toMatchObject({ first: 1, mma: 2, accesses: 1 });
      // Nested: the inner one loads, the outer one too, and more.
      const nested = decode(
        code([plain(ldg), plain(ldg), plain(ldg), branch(-2, arch), branch(-5, arch), plain(exit)]),
        arch,
      );
      expect(hotLoop(nested)).toMatchObject({ first: 2, isInner: true });
    }
    expect(hotLoop(decode(code([plain(ldg), plain(exit)]), 80))).toBeNull();
  });
});

describe('occupancy', () => {
  it('is what the tables say', () => {
    // 128 registers and 128 threads: 4 warps of 4096 registers; 16 warps of the 65,536.
    expect(occupancy(80, { registers: 128, threads: 128, sharedBytes: 0 })).toEqual({
      blocks: 4,
      warps: 16,
      fraction: 0.25,
      limit: 'registers',
    });
    expect(occupancy(80, { registers: 32, threads: 256, sharedBytes: 0 })).toMatchObject({
      warps: 64,
      limit: 'warps',
    });
    expect(occupancy(86, { registers: 32, threads: 32, sharedBytes: 0 })).toMatchObject({
      blocks: 16,
      limit: 'blocks',
    });
    expect(occupancy(86, { registers: 32, threads: 128, sharedBytes: 48 * 1024 })).toMatchObject({
      blocks: 2,
      limit: 'shared',
    });
    expect(occupancy(90, { registers: 168, threads: 384, sharedBytes: 227 * 1024 })).toMatchObject({
      blocks: 1,
    });
    expect(() => occupancy(75, { registers: 32, threads: 32, sharedBytes: 0 })).toThrow(
      'occupancy: no limits of sm_75',
    );
  });
});

describe('roofline', () => {
  const a100 = gpus[0]!;
  it('takes the slowest part', () => {
    expect(bound(a100, { bytes: 2039e3 })).toEqual({ microseconds: 1, limit: 'memory' });
    expect(bound(a100, { bytes: 1, operations: 312e6 })).toEqual({
      microseconds: 1,
      limit: 'tensor',
    });
    expect(bound(a100, { bytes: 1, wavefronts: 108 * 1410 })).toMatchObject({ limit: 'shared' });
    expect(bound(a100, { bytes: 1, operations: 1, kind: 'fp8' })).toBeNull();
  });
  it('gives 4-bit weights their bytes', () => {
    const { speedup, limit } = matmulBound(a100, { m: 1, n: 4096, k: 4096, bits: 4, group: 128 });
    expect(limit).toBe('memory');
    expect(speedup).toBeGreaterThan(3.8);
    expect(speedup).toBeLessThan(16 / 4.125);
  });
});

describe('the report', () => {
  const counters = (moved: number) => ({
    arch: 80,
    kernels: [
      {
        kernel: 'k',
        target: 'sm_80',
        launches: 1,
        blocks: 2,
        threads: 64,
        dynamicSharedBytes: 1024,
        warpInstructions: 10,
        mma: 2,
        globalLoads: { requests: 1, usedBytes: 96, movedBytes: moved },
        globalStores: { requests: 0, usedBytes: 0, movedBytes: 0 },
        sharedRequests: 1,
        wavefronts: 3,
        idealWavefronts: 2,
        matrixWavefronts: 0,
        idealMatrixWavefronts: 0,
        instructions: 5,
        neverExecuted: 1,
      },
    ],
  });
  const write = (name: string, data: Buffer | string) => writeFileSync(join(folder, name), data);
  const build = (changes: Partial<Kernel> = {}, moved = 96) => {
    write('m.sm_80.cubin', cubin([kernel('k', 80, { threads: null, ...changes })], false));
    write('m.sm_90.cubin', cubin([kernel('k', 90)], true));
    write('m.compute_80.ptx', '//\n.version 9.0\n');
    write('counters.json', JSON.stringify(counters(moved)));
    return makeReport([folder], [join(folder, 'counters.json')]);
  };

  it('has a row per kernel and architecture, in a fixed order', () => {
    const report = build();
    expect(report.kernels.map((row) => [row.module, row.kernel, row.arch])).toEqual([
      ['m', 'k', 80],
      ['m', 'k', 90],
    ]);
    expect(report.kernels[0]).toMatchObject({
      registers: 40,
      localInstructions: 0,
      sharedBytes: 1280,
      threads: 64,
      warps: 48,
      occupancyLimit: 'registers',
      instructions: 6,
      loop: {
        instructions: 4,
        mma: 2,
        instructionsPerMma: 2,
        mix: { control: 1, global: 1, mma: 2 },
      },
    });
    expect(report.dynamic[0]).toMatchObject({
      loadBytesUsed: 1,
      storeBytesUsed: null,
      wavefrontsPerIdeal: 1.5,
      neverExecuted: 1,
    });
    expect(report.images.map(({ image }) => image)).toEqual([
      'm.compute_80.ptx',
      'm.sm_80.cubin',
      'm.sm_90.cubin',
    ]);
    expect(toJson(build())).toBe(toJson(report));
    expect(toJson(report)).not.toContain('opcodes');
    expect(toJson(report, true)).toContain(
      '"opcodes":{"BRA":1,"EXIT":1,"HMMA":2,"IADD3":1,"LDG":1}',
    );
    expect(markdown(report)).toContain(
      '| m | k | 80 | 40 | 0 | 0 | 1280 | 64 | 48 (75%) | registers | 6 | 4 | 2 | 2 |',
    );
  });

  it('is worse with more of what costs, better with less', () => {
    const committed = JSON.parse(toJson(build()));
    expect(compare(committed, build())).toEqual({ worse: [], better: [] });
    expect(compare(committed, build({ registers: 41 })).worse).toEqual([
      'm k sm_80: registers is 41, was 40',
      'm k sm_80: warps is 40, was 48', // registers are given in steps of 8 per thread
    ]);
    expect(compare(committed, build({ registers: 39 })).better).toEqual([
      'm k sm_80: registers is 39, was 40',
    ]);
    expect(compare(committed, build({}, 128)).worse).toEqual([
      'k sm_80: loadBytesUsed is 0.75, was 1',
    ]);
    const spilled = code([plain(ldl), plain(exit)]);
    expect(compare(committed, build({ code: spilled })).worse).toEqual([
      'm k sm_80: localInstructions is 1, was 0',
      'm k sm_80: loop.instructions is null, was 4',
      'm k sm_80: loop.instructionsPerMma is null, was 2',
    ]);
    expect(compare({ kernels: [], dynamic: [] }, build()).worse).toHaveLength(3);
  });
});
