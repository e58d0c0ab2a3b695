// Reads a cubin: an ELF64 file with, for each kernel k, the sections .text.k (machine code), .nv.info.k (attributes) and
// .nv.shared.k (static shared memory). Attributes are records of {format, attribute, 16-bit value or size} and, where
// the format says so, that many bytes; their numbers are those that public disassemblies of .nv.info print (EIATTR_...).

const attribute = {
  maxThreads: 0x05,
  requiredThreads: 0x10,
  frameSize: 0x11,
  parameterBytes: 0x19,
  registers: 0x2f,
};

const text = (buffer, at) => buffer.toString('utf8', at, buffer.indexOf(0, at));

function readSections(file) {
  const isElf = file.length >= 64 && file.readUInt32BE(0) === 0x7f454c46 && file[4] === 2;
  if (!isElf) throw new Error('cubin: not a 64-bit ELF file');
  const machine = file.readUInt16LE(18);
  if (machine !== 190) throw new Error(`cubin: machine is ${machine}, expected 190 (CUDA)`);
  const table = Number(file.readBigUInt64LE(40));
  const count = file.readUInt16LE(60);
  const names = file.readUInt16LE(62);
  if (table + 64 * count > file.length || names >= count)
    throw new Error(
      `cubin: ${count} section headers at ${table} exceed the file's ${file.length} bytes`,
    );
  const sections = Array.from({ length: count }, (_, i) => {
    const at = table + 64 * i;
    const section = {
      nameAt: file.readUInt32LE(at),
      type: file.readUInt32LE(at + 4),
      offset: Number(file.readBigUInt64LE(at + 24)),
      bytes: Number(file.readBigUInt64LE(at + 32)),
      link: file.readUInt32LE(at + 40),
      info: file.readUInt32LE(at + 44),
    };
    const noBits = section.type === 8;
    if (!noBits && section.offset + section.bytes > file.length)
      throw new Error(`cubin: section ${i} exceeds the file's ${file.length} bytes`);
    return {
      ...section,
      data: noBits ? null : file.subarray(section.offset, section.offset + section.bytes),
    };
  });
  for (const section of sections) section.name = text(sections[names].data, section.nameAt);
  return sections;
}

/** Records of an .nv.info section: `{ attribute, value }` or `{ attribute, data }`. */
function readAttributes(data) {
  const records = [];
  for (let at = 0; at + 4 <= data.length; ) {
    const format = data[at];
    const size = data.readUInt16LE(at + 2);
    const record = { attribute: data[at + 1], value: size };
    at += 4;
    if (format === 4) {
      if (at + size > data.length)
        throw new Error('cubin: a record of .nv.info exceeds its section');
      record.data = data.subarray(at, at + size);
      at += size;
    }
    records.push(record);
  }
  return records;
}

function readSymbols(sections) {
  const table = sections.find(({ type }) => type === 2);
  if (!table) throw new Error('cubin: no symbol table');
  const names = sections[table.link].data;
  return Array.from({ length: Math.floor(table.bytes / 24) }, (_, i) =>
    text(names, table.data.readUInt32LE(24 * i)),
  );
}

/** Values of an attribute of the whole file that is kept per function: name -> value. */
function byFunction(records, number, symbols) {
  return new Map(
    records
      .filter((record) => record.attribute === number && record.data?.length === 8)
      .map(({ data }) => [symbols[data.readUInt32LE(0)], data.readUInt32LE(4)]),
  );
}

/**
 * Kernels of a cubin, by name: `{ name, registers, stackBytes, sharedBytes, maxThreads, parameterBytes, code }`.
 * `maxThreads` is 0 where the source has no launch bounds; `stackBytes` are local memory per thread. Throws Error on
 * what is no cubin.
 */
export function readCubin(file) {
  const sections = readSections(file);
  const symbols = readSymbols(sections);
  const find = (name) => sections.find((section) => section.name === name);
  const whole = readAttributes(find('.nv.info')?.data ?? Buffer.alloc(0));
  const registers = byFunction(whole, attribute.registers, symbols);
  const stack = byFunction(whole, attribute.frameSize, symbols);
  // From sm_90 on, a kernel's section of shared memory starts with the 1 KiB that the system keeps.
  const reserved = find('.nv.shared.reserved.0') ? 1024 : 0;
  const kernels = sections
    .filter(({ name }) => name.startsWith('.text.') && find(`.nv.info.${name.slice(6)}`))
    .map((section) => {
      const name = section.name.slice(6);
      const own = readAttributes(find(`.nv.info.${name}`).data);
      const limit =
        own.find((record) => record.attribute === attribute.requiredThreads) ??
        own.find((record) => record.attribute === attribute.maxThreads);
      const parameters = own.find((record) => record.attribute === attribute.parameterBytes);
      const threads = limit?.data
        ? limit.data.readUInt32LE(0) * limit.data.readUInt32LE(4) * limit.data.readUInt32LE(8)
        : 0;
      const shared = find(`.nv.shared.${name}`)?.bytes ?? 0;
      return {
        name,
        registers: registers.get(name) ?? 0,
        stackBytes: stack.get(name) ?? 0,
        sharedBytes: Math.max(0, shared - reserved),
        maxThreads: threads,
        parameterBytes: parameters?.value ?? 0,
        code: section.data,
      };
    });
  return kernels.sort((a, b) => (a.name < b.name ? -1 : 1));
}
