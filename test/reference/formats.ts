/**
 * Weight formats decoded a second time, from their descriptions alone (native/formats/formats.inc for
 * bitloom's own, the published GGUF block layouts for the others): one weight at a time, in double
 * precision, rounded to f32 where the definition rounds. Slow and independent of the native code.
 */

import { bfloatToNumber, e2m1, e8m0, element, halfToNumber, ue4m3 } from './small_floats.js';

/** Elements and bytes of a block of each GGUF type. */
export const BLOCK_FORMATS: Record<string, { elements: number; bytes: number }> = {
  f32: { elements: 1, bytes: 4 },
  f16: { elements: 1, bytes: 2 },
  bf16: { elements: 1, bytes: 2 },
  q8_0: { elements: 32, bytes: 34 },
  q4_0: { elements: 32, bytes: 18 },
  q4_1: { elements: 32, bytes: 20 },
  q5_0: { elements: 32, bytes: 22 },
  q5_1: { elements: 32, bytes: 24 },
  q2_k: { elements: 256, bytes: 84 },
  q3_k: { elements: 256, bytes: 110 },
  q4_k: { elements: 256, bytes: 144 },
  q5_k: { elements: 256, bytes: 176 },
  q6_k: { elements: 256, bytes: 210 },
  tq1_0: { elements: 256, bytes: 54 },
  tq2_0: { elements: 256, bytes: 66 },
  iq4_nl: { elements: 32, bytes: 18 },
  mxfp4: { elements: 32, bytes: 17 },
  nvfp4: { elements: 64, bytes: 36 },
};

const KINDS = ['u', 'i', 't', 'nf', 'fp', 'cb', 'cbs', 'lut', 'bfp', 'mxint', 'e', 'nvfp'] as const;

/** A grouped format taken apart: `u4z_g128_bf16`. */
export interface GroupedFormat {
  kind: (typeof KINDS)[number];
  bits: number;
  hasZeroPoint: boolean;
  /** 0: the row. */
  groupSize: number;
  scale: 'f16' | 'bf16' | 'e8m0' | 'ue4m3';
  /** Bytes before the codes. */
  header: number;
  /** Mantissa bits of float elements. */
  mantissa: number;
}

export function parseGroupedFormat(name: string): GroupedFormat {
  const match =
    /^(u|i|t|nf|fp|cb|cbs|lut|bfp|mxint|nvfp|e)(\d)(?:m(\d))?(z?)_(?:g(\d+)|row)(_bf16)?$/.exec(
      name,
    );
  if (!match) throw new Error(`not a grouped format: ${name}`);
  const kind = match[1] as GroupedFormat['kind'];
  const hasZeroPoint = match[4] === 'z';
  const format = {
    kind,
    bits: Number(match[2]),
    hasZeroPoint,
    groupSize: match[5] === undefined ? 0 : Number(match[5]),
    mantissa: kind === 'nvfp' ? 1 : Number(match[3] ?? 0),
  };
  if (kind === 'e') format.bits += 1 + format.mantissa;
  if (kind === 'nvfp') return { ...format, scale: 'ue4m3', header: 1 };
  if (['bfp', 'mxint', 'e'].includes(kind)) return { ...format, scale: 'e8m0', header: 1 };
  const scale = match[6] === undefined ? 'f16' : 'bf16';
  let header = hasZeroPoint ? 4 : 2;
  if (kind === 'cbs') header = 3;
  if (kind === 'lut') header = 2 * 2 ** format.bits;
  return { ...format, scale, header };
}

/** Every format's name, in the order of formats.inc: newer ones are at the end. */
export function referenceFormatNames(): string[] {
  const powers = ['e2m1', 'e2m3', 'e3m2', 'e4m3', 'e5m2'];
  for (let bits = 8; bits >= 2; bits--) powers.unshift(`bfp${bits}`);
  const blocks = Object.keys(BLOCK_FORMATS);
  return [
    ...blocks.slice(0, -2),
    ...groupedFormatNames(),
    ...inGroups(['u7', 'u7z', 'i7', 'i7z']),
    ...powers.flatMap((kind) => [8, 16, 32, 64, 128].map((size) => `${kind}_g${size}`)),
    'mxint8_g32',
    'nvfp4_g16',
    ...blocks.slice(-2),
    ...['cbs2', 'cbs3', 'cbs4'].flatMap((kind) =>
      [32, 64, 128].flatMap((size) => [`${kind}_g${size}`, `${kind}_g${size}_bf16`]),
    ),
    ...[2, 3, 4].flatMap((bits) => [`lut${bits}_row`, `lut${bits}_row_bf16`]),
    ...inGroups(['cb7']),
  ];
}

function groupedFormatNames(): string[] {
  const kinds: string[] = [];
  for (const bits of [1, 2, 3, 4, 5, 6, 8]) {
    kinds.push(`u${bits}`, `u${bits}z`, `i${bits}`, `i${bits}z`);
  }
  kinds.push('t2', 'nf4', 'fp4');
  for (const bits of [1, 2, 3, 4, 5, 6, 8]) kinds.push(`cb${bits}`);
  return inGroups(kinds);
}

function inGroups(kinds: string[]): string[] {
  return kinds.flatMap((kind) =>
    ['g32', 'g64', 'g128', 'g256', 'row'].flatMap((group) => [
      `${kind}_${group}`,
      `${kind}_${group}_bf16`,
    ]),
  );
}

// QLoRA, appendix E.
const NF4 = [
  -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
  -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
  0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
  0.7229568362236023, 1.0,
];
/** BitMoD's tables: sign and magnitude, the code of negative zero being the special value. */
const bitmod = (magnitudes: number[], specials: number[]): number[] =>
  specials.flatMap((special) => [
    ...magnitudes,
    special,
    ...magnitudes.slice(1).map((value) => -value),
  ]);
const BITMOD: Record<number, number[]> = {
  3: bitmod([0, 1, 2, 4], [3, -3, 6, -6]),
  4: bitmod([0, 0.5, 1, 1.5, 2, 3, 4, 6], [5, -5, 8, -8]),
};

const IQ4_NL = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

const u16 = (bytes: Uint8Array, at: number): number =>
  (bytes[at] as number) | ((bytes[at + 1] as number) << 8);
const bit = (bytes: Uint8Array, base: number, index: number): number =>
  ((bytes[base + (index >> 3)] as number) >> (index & 7)) & 1;

function groupedWeight(
  format: GroupedFormat,
  block: Uint8Array,
  index: number,
  codebook: ArrayLike<number> | undefined,
): number {
  const toNumber = format.scale === 'bf16' ? bfloatToNumber : halfToNumber;
  let scale: number;
  if (format.scale === 'e8m0') scale = e8m0(block[0] as number);
  else if (format.scale === 'ue4m3') scale = ue4m3(block[0] as number);
  else scale = toNumber(u16(block, 0));
  const zeroPoint = format.hasZeroPoint ? toNumber(u16(block, 2)) : 0;
  const { bits } = format;
  let code = 0;
  for (let i = 0; i < bits; i++) {
    code += bit(block, format.header, index * bits + i) * 2 ** i;
  }
  if (format.kind === 'lut') return toNumber(u16(block, 2 * code));
  const signed = code >= 2 ** (bits - 1) ? code - 2 ** bits : code;
  let level: number;
  if (format.hasZeroPoint) {
    level = Math.fround((format.kind === 'u' ? code : signed) - zeroPoint);
  } else if (format.kind === 'u') {
    level = bits === 1 ? 2 * code - 1 : code - 2 ** (bits - 1);
  } else if (format.kind === 'i') {
    level = bits === 1 ? 1 - 2 * code : signed;
  } else if (format.kind === 't') {
    level = code - 1;
  } else if (format.kind === 'nf') {
    level = Math.fround(NF4[code] as number);
  } else if (format.kind === 'fp') {
    level = e2m1(code);
  } else if (format.kind === 'bfp') {
    level = signed;
  } else if (format.kind === 'mxint') {
    level = signed / 64;
  } else if (format.kind === 'e' || format.kind === 'nvfp') {
    level = element(code, bits, format.mantissa);
  } else if (format.kind === 'cbs') {
    const tables = codebook ?? (BITMOD[bits] as number[]);
    const table = Math.min(block[2] as number, tables.length / 2 ** bits - 1);
    level = Math.fround(tables[table * 2 ** bits + code] as number);
  } else {
    level = (codebook as ArrayLike<number>)[code] as number;
  }
  return Math.fround(scale * level);
}

/** Scale and min of q4_k's and q5_k's sub-block: six bits each, spread over twelve bytes. */
function scaleAndMin(packed: Uint8Array, sub: number): [number, number] {
  const at = (i: number): number => packed[i] as number;
  if (sub < 4) return [at(sub) % 64, at(sub + 4) % 64];
  return [(at(sub + 4) % 16) + 16 * (at(sub - 4) >> 6), (at(sub + 4) >> 4) + 16 * (at(sub) >> 6)];
}

type BlockDecoder = (block: Uint8Array, index: number) => number;

const nibbleOf32: (block: Uint8Array, base: number, i: number) => number = (block, base, i) =>
  i < 16 ? (block[base + i] as number) % 16 : (block[base + i - 16] as number) >> 4;
const nibbleOf256: typeof nibbleOf32 = (block, base, i) => {
  const byte = block[base + 32 * Math.floor(i / 64) + (i % 32)] as number;
  return i % 64 < 32 ? byte % 16 : byte >> 4;
};
/** Two bits of weight i: 128 weights in 32 bytes, 32 to each pair of bits. */
const pairOf256: typeof nibbleOf32 = (block, base, i) =>
  ((block[base + 32 * Math.floor(i / 128) + (i % 32)] as number) >>
    (2 * (Math.floor(i / 32) % 4))) &
  3;
const planeBit: typeof nibbleOf32 = (block, base, i) =>
  ((block[base + (i % 32)] as number) >> Math.floor(i / 32)) & 1;
const int8 = (value: number): number => (value > 127 ? value - 256 : value);

function trit(byte: number, n: number): number {
  return Math.floor((((byte * 3 ** n) % 256) * 3) / 256);
}

const BLOCK_DECODERS: Record<string, BlockDecoder> = {
  f32: (b) => new DataView(b.buffer, b.byteOffset).getFloat32(0, true),
  f16: (b) => halfToNumber(u16(b, 0)),
  bf16: (b) => bfloatToNumber(u16(b, 0)),
  q8_0: (b, i) => halfToNumber(u16(b, 0)) * int8(b[2 + i] as number),
  q4_0: (b, i) => halfToNumber(u16(b, 0)) * (nibbleOf32(b, 2, i) - 8),
  q4_1: (b, i) => halfToNumber(u16(b, 0)) * nibbleOf32(b, 4, i) + halfToNumber(u16(b, 2)),
  q5_0: (b, i) => halfToNumber(u16(b, 0)) * (nibbleOf32(b, 6, i) + 16 * bit(b, 2, i) - 16),
  q5_1: (b, i) =>
    halfToNumber(u16(b, 0)) * (nibbleOf32(b, 8, i) + 16 * bit(b, 4, i)) + halfToNumber(u16(b, 2)),
  q2_k: (b, i) => {
    const packed = b[Math.floor(i / 16)] as number;
    const scale = halfToNumber(u16(b, 80)) * (packed % 16);
    return scale * pairOf256(b, 16, i) - halfToNumber(u16(b, 82)) * (packed >> 4);
  },
  q3_k: (b, i) => {
    const s = Math.floor(i / 16);
    const lows = b[96 + (s % 8)] as number;
    const low = s < 8 ? lows % 16 : lows >> 4;
    const high = ((b[104 + (s % 4)] as number) >> (2 * Math.floor(s / 4))) & 3;
    const code = pairOf256(b, 32, i) + 4 * planeBit(b, 0, i) - 4;
    return halfToNumber(u16(b, 108)) * (low + 16 * high - 32) * code;
  },
  q4_k: (b, i) => {
    const [scale, min] = scaleAndMin(b.subarray(4, 16), Math.floor(i / 32));
    return halfToNumber(u16(b, 0)) * scale * nibbleOf256(b, 16, i) - halfToNumber(u16(b, 2)) * min;
  },
  q5_k: (b, i) => {
    const [scale, min] = scaleAndMin(b.subarray(4, 16), Math.floor(i / 32));
    const code = nibbleOf256(b, 48, i) + 16 * planeBit(b, 16, i);
    return halfToNumber(u16(b, 0)) * scale * code - halfToNumber(u16(b, 2)) * min;
  },
  q6_k: (b, i) => {
    const byte = b[64 * Math.floor(i / 128) + (i % 64)] as number;
    const low = i % 128 < 64 ? byte % 16 : byte >> 4;
    const code = low + 16 * pairOf256(b, 128, i) - 32;
    return halfToNumber(u16(b, 208)) * int8(b[192 + Math.floor(i / 16)] as number) * code;
  },
  tq1_0: (b, i) => {
    let value: number;
    if (i < 160) value = trit(b[i % 32] as number, Math.floor(i / 32));
    else if (i < 240) value = trit(b[32 + (i % 16)] as number, Math.floor((i - 160) / 16));
    else value = trit(b[48 + (i % 4)] as number, Math.floor((i - 240) / 4));
    return halfToNumber(u16(b, 52)) * (value - 1);
  },
  tq2_0: (b, i) => halfToNumber(u16(b, 64)) * (pairOf256(b, 0, i) - 1),
  iq4_nl: (b, i) => halfToNumber(u16(b, 0)) * (IQ4_NL[nibbleOf32(b, 2, i)] as number),
  mxfp4: (b, i) => e8m0(b[0] as number) * e2m1(nibbleOf32(b, 1, i)),
  nvfp4: (b, i) => {
    const byte = b[4 + 8 * Math.floor(i / 16) + (i % 8)] as number;
    return ue4m3(b[Math.floor(i / 16)] as number) * e2m1(i % 16 < 8 ? byte % 16 : byte >> 4);
  },
};

/** Bytes of a row of `cols` weights. */
export function referenceRowBytes(name: string, cols: number): number {
  const block = BLOCK_FORMATS[name];
  if (block) return (cols / block.elements) * block.bytes;
  const format = parseGroupedFormat(name);
  const elements = format.groupSize || cols;
  const bytes = format.header + Math.ceil((elements * format.bits) / 8);
  return Math.ceil(cols / elements) * bytes;
}

/**
 * A row of `cols` weights, each rounded to f32, and times `tensorScale` once more. `codebook` for cb formats,
 * [2^bits], and cbs formats, [tables, 2^bits].
 */
export function decodeReferenceRow(
  name: string,
  row: Uint8Array,
  cols: number,
  codebook?: ArrayLike<number>,
  tensorScale = 1,
): Float32Array {
  const values = new Float32Array(cols);
  const block = BLOCK_FORMATS[name];
  const format = block ? undefined : parseGroupedFormat(name);
  const elements = block?.elements ?? (format?.groupSize || cols);
  const bytes = block?.bytes ?? referenceRowBytes(name, elements);
  const decoder = BLOCK_DECODERS[name];
  for (let i = 0; i < cols; i++) {
    const at = Math.floor(i / elements) * bytes;
    const part = row.subarray(at, at + bytes);
    values[i] = format
      ? groupedWeight(format, part, i % elements, codebook)
      : Math.fround((decoder as BlockDecoder)(part, i % elements));
    values[i] = (values[i] as number) * tensorScale;
  }
  return values;
}

/**
 * Canonical bytes of a grouped format as layout lanes16 pictures them (native/formats/panel.h): sixteen rows side by
 * side, codes cut into planes of 8, 4, 2 and 1 bits; rows past the last sixteen as they are.
 */
export function lanesReference(
  name: string,
  canonical: Uint8Array,
  rows: number,
  cols: number,
): Uint8Array {
  if (rows === 0 || cols === 0) return new Uint8Array(0);
  const { bits, groupSize, kind, header: head } = parseGroupedFormat(name);
  const rowBytes = referenceRowBytes(name, cols);
  const group = groupSize || cols;
  const blockBytes = referenceRowBytes(name, group);
  const chunks = Math.ceil(group / 32);
  const panelBlock = 16 * head + chunks * 64 * bits;
  const blocks = Math.ceil(cols / group);
  const flip = kind.startsWith('i') ? 1 << (bits - 1) : 0;
  const full = Math.floor(rows / 16);
  const out = new Uint8Array(full * blocks * panelBlock + (rows % 16) * rowBytes);
  out.set(canonical.subarray(full * 16 * rowBytes), full * blocks * panelBlock);
  for (let row = 0; row < full * 16; row++) {
    const lane = row % 16;
    for (let block = 0; block < blocks; block++) {
      const from = row * rowBytes + block * blockBytes;
      const to = (Math.floor(row / 16) * blocks + block) * panelBlock;
      for (let i = 0; i < head; i++) {
        let at = 32 * (i >> 1) + 2 * lane + (i & 1);
        if (kind === 'cbs' && i === 2) at = 32 + lane;
        if (kind === 'lut') {
          // Low bytes, then high bytes; in each 64 bytes 16 for rows 4q to 4q + 3, of so many rows as they hold.
          const together = 16 / 2 ** bits;
          const turn = Math.floor((lane % 4) / together);
          at = (i & 1) * 16 * 2 ** bits + 64 * turn + 16 * (lane >> 2);
          at += ((lane % 4) % together) * 2 ** bits + (i >> 1);
        }
        out[to + at] = canonical[from + i] as number;
      }
      // Only a whole-row block ends before its last chunk: what is past it stays zero.
      for (let k = 0; k < group; k++) {
        let code = 0;
        for (let bit = 0; bit < bits; bit++) {
          const at = k * bits + bit;
          code |= (((canonical[from + head + (at >> 3)] as number) >> (at & 7)) & 1) << bit;
        }
        code ^= flip;
        let start = to + 16 * head + Math.floor(k / 32) * 64 * bits;
        const vector = Math.floor((k % 32) / 4);
        const j = k % 4;
        for (const plane of [8, 4, 2, 1].filter((width) => bits & width)) {
          const order = plane >= 4 ? 4 * lane + j : 16 * j + lane;
          const byte = start + 64 * (vector % plane) + order;
          const shift = plane * Math.floor(vector / plane);
          out[byte] = (out[byte] as number) | ((code & ((1 << plane) - 1)) << shift);
          code >>= plane;
          start += 64 * plane;
        }
      }
    }
  }
  return out;
}
