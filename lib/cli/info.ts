import type { GGUFFile, GGUFValue } from '../io/index.js';
import type { Output } from './main.js';
import { formatBytes, formatTable } from './text.js';

/** Prints what the machine, or the file, is. */
export async function info(
  file: string | undefined,
  options: { json?: boolean; tensors?: boolean },
  output: Output,
): Promise<void> {
  const facts =
    file === undefined ? await machineFacts() : await fileFacts(file, options.tensors === true);
  output.stdout.write(options.json === true ? `${JSON.stringify(facts)}\n` : formatFacts(facts));
}

type Cell = string | number;
/** Named facts; a list of rows is a table. */
type Facts = Record<string, Cell | readonly (readonly Cell[])[]>;

function formatFacts(facts: Facts): string {
  const single: Cell[][] = [];
  let tables = '';
  for (const [name, value] of Object.entries(facts)) {
    if (typeof value !== 'object') single.push([name, `${value}`]);
    else tables += `\n${name}\n${formatTable(value)}`;
  }
  return formatTable(single) + tables;
}

// Formats whose kernels stand for those of their kind.
const kernelFormats = [
  'q4_0',
  'q8_0',
  'q4_k',
  'u4_g128',
  't2_g256',
  'nf4_g64',
  'f16',
  'f32',
] as const;

async function machineFacts(): Promise<Facts> {
  const { cpus, totalmem } = await import('node:os');
  const { machine } = await import('../machine.js');
  const { formats } = await import('../generated.js');
  const { QuantizedTensor } = await import('../quantized_tensor.js');
  const { Linear } = await import('../nn/index.js');
  const { version, isas, isa, threads } = machine();
  const kernels = kernelFormats.map((format) => {
    const weight = QuantizedTensor.empty(format, [8, 256]);
    const names = (['i8', 'f32'] as const).map(
      (activations) => new Linear(weight, { activations }).kernel() ?? 'none',
    );
    return [format, ...names] as Cell[];
  });
  const { devices, whyNoDevice } = await import('../device.js');
  const cuda = devices().map((device): Cell[] => {
    try {
      const { name, arch, multiprocessors, memoryBytes, unusable } = device.info();
      const capability = `${Math.floor(arch / 10)}.${arch % 10}`;
      const cells = [device.device, name, capability, multiprocessors, formatBytes(memoryBytes)];
      return [...cells, unusable ?? 'usable'];
    } catch (error) {
      return [device.device, '', '', '', '', (error as Error).message];
    }
  });
  return {
    bitloom: version,
    processor: cpus()[0]?.model.trim() ?? 'unknown',
    memory: formatBytes(totalmem()),
    'instruction sets': isas.join(', '),
    'in force': isa,
    threads,
    formats: Object.keys(formats).length,
    cuda: whyNoDevice() ?? `${cuda.length} device${cuda.length === 1 ? '' : 's'}`,
    ...(cuda.length === 0
      ? {}
      : { devices: [['device', 'name', 'capability', 'SMs', 'memory', ''], ...cuda] }),
    'matmul kernels': [['weights', 'activations i8', 'activations f32'], ...kernels],
  };
}

async function fileFacts(path: string, all: boolean): Promise<Facts> {
  const { mapFile, readGGUF } = await import('../io/index.js');
  const { storedShape, tensorFormat } = await import('../nn/stored_tensor.js');
  const source = mapFile(path);
  try {
    const file = readGGUF(source);
    const tensors = [...file.tensors.values()].map((tensor) => {
      const shape = storedShape(file, tensor);
      const count = shape.reduce((product, size) => product * size, 1);
      const format = tensorFormat(file, tensor) ?? tensor.type;
      return { name: tensor.name, format, shape, count, bytes: tensor.bytes };
    });
    const byFormat = new Map<string, { tensors: number; weights: number; bytes: number }>();
    for (const { format, count, bytes } of tensors) {
      const sum = byFormat.get(format) ?? { tensors: 0, weights: 0, bytes: 0 };
      byFormat.set(format, {
        tensors: sum.tensors + 1,
        weights: sum.weights + count,
        bytes: sum.bytes + bytes,
      });
    }
    const list = tensors.map(({ name, format, shape, bytes }) => [
      name,
      format,
      `[${shape}]`,
      bytes,
    ]);
    return {
      file: path,
      size: formatBytes(source.size),
      ...metadataFacts(file),
      formats: [
        ['format', 'tensors', 'weights', 'bytes', 'bits each'],
        ...[...byFormat].map(([name, { tensors: many, weights, bytes }]) => {
          return [name, many, weights, bytes, Number(((bytes * 8) / weights).toFixed(3))];
        }),
      ],
      ...(all ? { tensors: list } : {}),
    };
  } finally {
    source.dispose();
  }
}

/** Metadata, but for what belongs to single tensors; lists by their length. */
function metadataFacts({ metadata, version }: GGUFFile): Facts {
  const facts: Facts = { 'GGUF version': version };
  const show = (value: GGUFValue): string => {
    if (Array.isArray(value)) return `${value.length} values`;
    const text = String(value);
    return text.length > 60 ? `${JSON.stringify(text.slice(0, 60))}...` : text;
  };
  for (const [key, value] of metadata) {
    if (!key.startsWith('bitloom.')) facts[key] = show(value);
  }
  return facts;
}
