// The tensors of a GGUF model by name, with the shapes that the configuration asks for.
import { type Format, formats } from '../generated.js';
import type { GGUFFile, GGUFTensor } from '../io/index.js';
import { QuantizedTensor } from '../quantized_tensor.js';
import { Tensor } from '../tensor.js';
import type { ModelConfig } from './config.js';
import { invalidModel, unsupportedModel } from './model_error.js';
import { storedMatrix, storedShape, storedStack, storedVector } from './stored_tensor.js';

/** Makes the matrix that a layer uses of the one in the file. */
export type MatrixLoader = (name: string, stored: QuantizedTensor) => Promise<QuantizedTensor>;

/** Reads tensors by name and remembers which were read. */
export class ModelTensors {
  readonly #read = new Set<string>();

  constructor(
    readonly file: GGUFFile,
    private readonly loader: MatrixLoader,
  ) {}

  has(name: string): boolean {
    return this.file.tensors.has(name);
  }

  /** @param shape [rows, cols] that it must have, and what they are called. */
  async matrix(name: string, shape: [number, number], meaning: string): Promise<QuantizedTensor> {
    const tensor = this.#find(name, shape, meaning);
    return this.loader(name, storedMatrix(this.file, tensor));
  }

  /** Matrices that lie in one tensor, one after the other: [count, rows, cols]. */
  async stack(
    name: string,
    shape: [count: number, rows: number, cols: number],
    meaning: string,
  ): Promise<QuantizedTensor[]> {
    const tensor = this.#find(name, shape, meaning);
    const matrices: QuantizedTensor[] = [];
    for (const stored of storedStack(this.file, tensor)) {
      matrices.push(await this.loader(name, stored));
    }
    return matrices;
  }

  /** Shape of a tensor, undefined if there is none. */
  shapeOf(name: string): readonly number[] | undefined {
    const tensor = this.file.tensors.get(name);
    return tensor && storedShape(this.file, tensor);
  }

  /** A vector as a matrix of one row. */
  rowOf(vector: Tensor<'f32'>): QuantizedTensor {
    return new QuantizedTensor('f32', vector.bytes, [1, vector.size]);
  }

  /** A vector in f32: norms and biases. */
  vector(name: string, length: number, meaning: string): Tensor<'f32'> {
    const stored = storedVector(this.#find(name, [length], meaning));
    if (stored.dtype === 'f32') return stored as Tensor<'f32'>;
    return new Tensor('f32', stored.toArray(), [length]);
  }

  optionalVector(name: string, length: number, meaning: string): Tensor<'f32'> | undefined {
    return this.has(name) ? this.vector(name, length, meaning) : undefined;
  }

  /** A block with tensors that nothing read would be computed wrongly, so it is refused. */
  checkAllRead(): void {
    for (const name of this.file.tensors.keys()) {
      // Old converters stored the frequencies of the rotary embedding, which follow from the metadata.
      if (!name.startsWith('blk.') || this.#read.has(name) || name.includes('attn_rot_embd'))
        continue;
      throw unsupportedModel(`tensor ${name} is none that this architecture uses`);
    }
  }

  #find(name: string, shape: readonly number[], meaning: string): GGUFTensor {
    const tensor = this.file.tensors.get(name);
    if (tensor === undefined) {
      throw invalidModel(`tensor ${name} is missing, expected shape [${shape}] (= [${meaning}])`);
    }
    const actual = storedShape(this.file, tensor);
    if (actual.length !== shape.length || actual.some((size, i) => size !== shape[i])) {
      throw invalidModel(
        `tensor ${name} has shape [${actual}], expected [${shape}] (= [${meaning}])`,
      );
    }
    this.#read.add(name);
    return tensor;
  }
}

/** Whether the formats list has a row of this name. */
export function isFormat(name: string): name is Format {
  return Object.hasOwn(formats, name);
}

/** Largest number of blocks: every block has a norm of its own, so a file can not have more than it has tensors. */
export function checkLayerCount(config: ModelConfig, file: GGUFFile): void {
  if (config.numLayers <= file.tensors.size) return;
  throw invalidModel(
    `metadata ${config.architecture}.block_count is ${config.numLayers}, but the file has ${file.tensors.size} tensors`,
  );
}
