// What can be read of machine code (SASS) without NVIDIA's disassembler: mnemonics, branches, loops. For sm_75 to sm_120:
// an instruction is 16 bytes, its opcode the low 12 bits of the first word, of which the low 9 name the operation and
// the upper 3 the kinds of its operands.

// Operation (9 bits) -> mnemonic and class. Known from published disassemblies; anything else is shown by its number.
const operations = new Map(
  `002 MOV move, 007 SEL integer, 008 FSEL float, 009 FMNMX float, 00a FSET float, 00b FSETP float, 00c ISETP integer,
  010 IADD3 integer, 011 LEA integer, 012 LOP3 integer, 013 IABS integer, 016 PRMT integer, 017 IMNMX integer,
  019 SHF integer, 01b BMSK integer, 01c PLOP3 integer, 003 P2R move, 004 R2P move, 005 CS2R move, 006 VOTE exchange,
  020 FMUL float, 021 FADD float, 022 FSWZADD float, 023 FFMA float, 024 IMAD integer, 025 IMAD.WIDE integer,
  026 IDP integer, 027 IMAD.HI integer, 028 DMUL float, 029 DADD float, 02a DSETP float, 02b DFMA float,
  030 HADD2 half, 031 HFMA2 half, 032 HMUL2 half, 033 HSET2 half, 034 HSETP2 half, 035 IADD integer, 036 VIADD integer,
  037 IMMA mma, 03b LDSM shared, 03c HMMA mma, 03d BMMA mma, 03e F2FP convert, 03f DMMA mma, 040 HMNMX2 half,
  044 STSM shared, 045 I2FP convert, 048 VIMNMX integer, 07a QMMA mma,
  082 UMOV uniform, 086 VOTEU uniform, 087 USEL uniform, 08c UISETP uniform, 090 UIADD3 uniform, 091 ULEA uniform,
  092 ULOP3 uniform, 096 UPRMT uniform, 099 USHF uniform, 09b UBMSK uniform, 09c UPLOP3 uniform, 0a4 UIMAD uniform,
  0a5 UIMAD.WIDE uniform, 0b9 ULDC uniform, 0bd UFLO uniform, 0bf UPOPC uniform,
  100 FLO integer, 101 BREV integer, 102 FCHK float, 104 F2F convert, 105 F2I convert, 106 I2F convert,
  107 FRND convert, 108 MUFU special, 109 POPC integer, 110 F2F convert, 111 F2I convert, 112 I2F convert,
  113 FRND convert, 118 NOP control, 119 S2R move, 11a DEPBAR control, 11d BAR control,
  141 BSYNC control, 142 BREAK control, 143 CALL control, 144 CALL control, 145 BSSY control, 146 YIELD control,
  147 BRA control, 148 WARPSYNC control, 149 BRX control, 14a JMP control, 14d EXIT control, 150 RET control,
  15c BPT control, 15d NANOSLEEP control, 180 LD global, 181 LDG global, 182 LDC constant, 183 LDL local,
  184 LDS shared, 185 ST global, 186 STG global, 187 STL local, 188 STS shared, 189 SHFL exchange, 18a ATOM global,
  18b ATOM global, 18c ATOMS shared, 18d ATOMS shared, 18e RED global, 18f CCTL control, 192 MEMBAR control,
  1a8 ATOMG global, 1a9 ATOMG global, 1ab ERRBAR control, 1ac LDCU constant, 1ae LDGSTS copy, 1af LDGDEPBAR control,
  1c2 R2UR move, 1c3 S2UR uniform, 1c4 REDUX exchange`
    .split(',')
    .map((row) => row.trim().split(/\s+/))
    .map(([code, name, kind]) => [Number.parseInt(code, 16), { name, kind }]),
);

const instructionBytes = 16;

/**
 * Bytes from the next instruction to where a branch goes. Bits 34 to 81 are a signed number: words up to sm_89; from
 * sm_90 on units of 256 words, with the words' low 8 bits in bits 16 to 23.
 */
function branchOffset(low, high, arch) {
  const upper = BigInt.asIntN(48, (low >> 34n) | ((high & 0x3ffffn) << 30n));
  const words = arch >= 90 ? upper * 256n + ((low >> 16n) & 0xffn) : upper;
  return Number(words * 4n);
}

/**
 * Instructions of a function's code, `{ name, kind, target }` each; `target` is the index of the instruction that a
 * direct branch goes to.
 */
export function decode(code, arch) {
  const instructions = [];
  for (let at = 0; at + instructionBytes <= code.length; at += instructionBytes) {
    const low = code.readBigUInt64LE(at);
    const high = code.readBigUInt64LE(at + 8);
    const opcode = Number(low & 0xfffn);
    const { name, kind } = operations.get(opcode & 0x1ff) ?? {
      name: `0x${opcode.toString(16).padStart(3, '0')}`,
      kind: 'unknown',
    };
    // An f16 to an integer of 8 bits: types are in these bits, on all architectures.
    const isHalfToByte = name === 'F2I' && (high & 0xffff00n) === 0x10e000n;
    const instruction = { name: isHalfToByte ? 'F2I.U8.F16' : name, kind };
    if (name === 'BRA')
      instruction.target =
        (at + instructionBytes + branchOffset(low, high, arch)) / instructionBytes;
    instructions.push(instruction);
  }
  return instructions;
}

/** Instructions without the padding behind the last exit (a branch to itself, and NOPs). */
export function trim(instructions) {
  let end = instructions.length;
  while (end > 0 && instructions[end - 1].name === 'NOP') end -= 1;
  if (end > 0 && instructions[end - 1].name === 'BRA' && instructions[end - 1].target === end - 1)
    end -= 1;
  return instructions.slice(0, end);
}

/** `{ name: count }`, names in alphabetical order. */
export function histogram(instructions, key = 'name') {
  const counts = new Map();
  for (const instruction of instructions)
    counts.set(instruction[key], (counts.get(instruction[key]) ?? 0) + 1);
  return Object.fromEntries([...counts].sort(([a], [b]) => (a < b ? -1 : 1)));
}

/**
 * The loop in which the kernel does its work: of the loops (from the target of a backward branch to the branch) the
 * one with the most mma per instruction; without any mma, the innermost with the most memory accesses. Null if there
 * is no loop.
 */
export function hotLoop(instructions) {
  const loops = [];
  instructions.forEach((instruction, index) => {
    if (instruction.target === undefined || instruction.target >= index || instruction.target < 0)
      return;
    loops.push({ first: instruction.target, last: index });
  });
  const memory = new Set(['global', 'shared', 'copy']);
  const measured = loops.map(({ first, last }) => {
    const body = instructions.slice(first, last + 1);
    const mma = body.filter(({ kind }) => kind === 'mma').length;
    const accesses = body.filter(({ kind }) => memory.has(kind)).length;
    const isInner = !loops.some(
      (l) => l.first >= first && l.last <= last && l.last - l.first < last - first,
    );
    return { first, instructions: body, mma, accesses, isInner };
  });
  const better = (a, b) =>
    b.mma / b.instructions.length - a.mma / a.instructions.length ||
    b.mma - a.mma ||
    Number(b.isInner) - Number(a.isInner) ||
    b.accesses - a.accesses ||
    a.first - b.first;
  return measured.sort(better)[0] ?? null;
}
