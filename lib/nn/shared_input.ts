import { native } from '../native.js';
import {
  type PrepareActivationsOptions,
  prepareActivations,
} from '../ops/matmul/prepare_activations.js';
import { PreparedActivations } from '../ops/matmul/prepared_activations.js';
import { runValue, weightValues } from '../run.js';
import type { FloatDType, Tensor } from '../tensor.js';
import type { Linear } from './linear.js';

/** Memory of a step for inputs that were rounded for several layers, one for each size. */
export class SharedInputMemory {
  readonly #bySize = new Map<string, PreparedActivations>();

  take(rows: number, columns: number, tables: number): PreparedActivations {
    const key = `${rows} ${columns} ${tables}`;
    let memory = this.#bySize.get(key);
    if (memory === undefined) {
      memory = new PreparedActivations([rows, columns], tables);
      this.#bySize.set(key, memory);
    }
    return memory;
  }
}

/**
 * The input of layers that read the same one: q, k and v; gate and up. Where all of them round it to int8 row by
 * row, which is so for few rows, it is rounded once, together with the norm or gate before it. The layers' outputs are
 * the same bits.
 */
export class SharedInput {
  /** By number of rows: which tables the layers look up, or undefined where one does not round. */
  readonly #tables = new Map<number, number | undefined>();

  constructor(readonly layers: readonly Linear[]) {}

  /** x for {@link layers}, or undefined: each makes its own of it. */
  prepare(
    x: Tensor<FloatDType>,
    memory: SharedInputMemory | undefined,
    options: Pick<PrepareActivationsOptions, 'norm' | 'gate'> = {},
  ): PreparedActivations | undefined {
    const [rows = 0, columns = 0] = x.shape;
    // A device's products round their own input.
    const isHere = memory !== undefined && x.rank === 2 && x.device === 'cpu';
    const tables = isHere ? this.#needed(rows) : undefined;
    if (tables === undefined) return undefined;
    const out = (memory as SharedInputMemory).take(rows, columns, tables);
    return prepareActivations(x, { ...options, ...(this.layers[0] as Linear).run, out });
  }

  #needed(rows: number): number | undefined {
    if (this.#tables.has(rows)) return this.#tables.get(rows);
    let tables: number | undefined = 0;
    for (const layer of this.layers) {
      const kernel = layer.kernel(rows) ?? '';
      const rounds =
        layer.takesPrepared && layer.compute === 'i8' && /_(lut|dequant)_i8_/.test(kernel);
      const more = rounds
        ? native.matmulTables(...weightValues(layer.weight), rows, 0, runValue(layer.run))
        : undefined;
      tables = tables === undefined || more === undefined ? undefined : tables | more;
    }
    this.#tables.set(rows, tables);
    return tables;
  }
}
