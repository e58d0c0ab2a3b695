// Cubins made by hand: the few sections that the reader wants, with known contents.

export interface Section {
  name: string;
  type: number;
  data: Buffer;
  /** Of SHT_NOBITS sections, which have no data in the file. */
  bytes?: number;
  link?: number;
}

const noBits = 8;

/** A 64-bit ELF file for CUDA with the sections, and one of names behind them. */
export function elf(sections: Section[]): Buffer {
  const all: Section[] = [{ name: '', type: 0, data: Buffer.alloc(0) }, ...sections];
  const names = all.map(({ name }) => `${name}\0`);
  names.push('.shstrtab\0');
  all.push({ name: '.shstrtab', type: 3, data: Buffer.from(names.join('')) });
  const header = Buffer.alloc(64);
  header.writeUInt32BE(0x7f454c46, 0);
  header[4] = 2;
  header.writeUInt16LE(190, 18);
  const bodies = all.map(({ data }) => data);
  const table = Buffer.alloc(64 * all.length);
  let offset = 64;
  let nameAt = 0;
  all.forEach((section, i) => {
    table.writeUInt32LE(nameAt, 64 * i);
    table.writeUInt32LE(section.type, 64 * i + 4);
    table.writeBigUInt64LE(BigInt(offset), 64 * i + 24);
    const bytes = section.type === noBits ? (section.bytes ?? 0) : section.data.length;
    table.writeBigUInt64LE(BigInt(bytes), 64 * i + 32);
    table.writeUInt32LE(section.link ?? 0, 64 * i + 40);
    offset += section.data.length;
    nameAt += names[i]!.length;
  });
  header.writeBigUInt64LE(BigInt(offset), 40);
  header.writeUInt16LE(all.length, 60);
  header.writeUInt16LE(all.length - 1, 62);
  return Buffer.concat([header, ...bodies, table]);
}

const words = (...values: number[]): Buffer => {
  const data = Buffer.alloc(4 * values.length);
  values.forEach((value, i) => {
    data.writeUInt32LE(value, 4 * i);
  });
  return data;
};

const record = (attribute: number, data: Buffer): Buffer =>
  Buffer.concat([Buffer.from([4, attribute, data.length, 0]), data]);

/** Machine code of instructions given as their low and high words. */
export function code(instructions: [bigint, bigint][]): Buffer {
  const data = Buffer.alloc(16 * instructions.length);
  instructions.forEach(([low, high], i) => {
    data.writeBigUInt64LE(low, 16 * i);
    data.writeBigUInt64LE(high, 16 * i + 8);
  });
  return data;
}

export interface Kernel {
  name: string;
  registers: number;
  stackBytes: number;
  sharedBytes: number;
  threads: [number, number, number] | null;
  code: Buffer;
}

/** A cubin of the kernels; `reserved`: with the section of the system's shared memory, as from sm_90 on. */
export function cubin(kernels: Kernel[], reserved: boolean): Buffer {
  const strings = `\0${kernels.map(({ name }) => `${name}\0`).join('')}`;
  const symbols = Buffer.alloc(24 * (kernels.length + 1));
  kernels.forEach(({ name }, i) => {
    symbols.writeUInt32LE(strings.indexOf(`\0${name}\0`) + 1, 24 * (i + 1));
  });
  const info = kernels.flatMap(({ registers, stackBytes }, i) => [
    record(0x2f, words(i + 1, registers)),
    record(0x11, words(i + 1, stackBytes)),
  ]);
  const sections: Section[] = [
    { name: '.strtab', type: 3, data: Buffer.from(strings) },
    { name: '.symtab', type: 2, data: symbols, link: 1 },
    { name: '.nv.info', type: 0x70000000, data: Buffer.concat(info) },
  ];
  if (reserved)
    sections.push({
      name: '.nv.shared.reserved.0',
      type: noBits,
      data: Buffer.alloc(0),
      bytes: 64,
    });
  for (const kernel of kernels) {
    const own: Buffer[] = [Buffer.from([3, 0x19, 0x20, 0])];
    if (kernel.threads) own.push(record(0x05, words(...kernel.threads)));
    const bytes = kernel.sharedBytes + (reserved ? 1024 : 0);
    sections.push(
      { name: `.nv.info.${kernel.name}`, type: 0x70000000, data: Buffer.concat(own) },
      { name: `.text.${kernel.name}`, type: 1, data: kernel.code },
      { name: `.nv.shared.${kernel.name}`, type: noBits, data: Buffer.alloc(0), bytes },
    );
  }
  return elf(sections);
}
