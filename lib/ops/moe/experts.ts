import { checkObject, checkTensor, checkWeights, described } from '../../arguments.js';
import { argumentError } from '../../errors.js';
import { type NativeExperts, type NativeValue, native } from '../../native.js';
import type { QuantizedTensor } from '../../quantized_tensor.js';
import { optionalTensorValues, weightValues } from '../../run.js';
import type { Tensor } from '../../tensor.js';

/**
 * One expert: `down(f(gate x + gateBias) * (up x + upBias)) + downBias`; without a gate `down f(up x)`.
 *
 * Of low rank: with `reduce`, gate and up take `reduce x` in place of x; with `expand` the expert gives
 * `expand (down ...) + downBias`. Ranks may differ from expert to expert, and either may stand alone.
 */
export interface MoEExpert {
  /** Shape `[width, hidden]`, of the format and layout of `up`. */
  gate?: QuantizedTensor | undefined;
  /** Shape `[width, hidden]` */
  up: QuantizedTensor;
  /** Shape `[hidden, width]` */
  down: QuantizedTensor;
  /** Shape `[width]` */
  gateBias?: Tensor<'f32'> | undefined;
  /** Shape `[width]` */
  upBias?: Tensor<'f32'> | undefined;
  /** Shape `[hidden]` */
  downBias?: Tensor<'f32'> | undefined;
  /** Shape `[rank, hidden]`; gate and up are `[width, rank]` then. */
  reduce?: QuantizedTensor | undefined;
  /** Shape `[hidden, rank]`; down is `[rank, width]` then. */
  expand?: QuantizedTensor | undefined;
}

/** Every matrix and bias of an expert that is there. */
export function expertParts(expert: MoEExpert): (QuantizedTensor | Tensor<'f32'>)[] {
  const { gate, up, down, gateBias, upBias, downBias, reduce, expand } = expert;
  const parts = [gate, up, down, gateBias, upBias, downBias, reduce, expand];
  return parts.filter((part) => part !== undefined);
}

/**
 * The experts of one mixture, read once, so that a call of {@link moeForward} costs the same for 8 and for 512 of them.
 * Formats and widths may differ from expert to expert. Weights are used where they lie, mapped files too: memory of
 * experts that no token goes to is never read.
 *
 * @example
 * ```ts
 * const matrix = (rows: number, cols: number, format: Format) =>
 *   packWeights(quantize(new Tensor('f32', new Float32Array(rows * cols).fill(0.1), [rows, cols]), format));
 * const experts = new MoEExperts([
 *   { gate: matrix(64, 32, 'q4_0'), up: matrix(64, 32, 'q4_0'), down: matrix(32, 64, 'q8_0') },
 *   { gate: matrix(32, 32, 'u2_g32'), up: matrix(32, 32, 'u2_g32'), down: matrix(32, 32, 'q4_0') }, // narrower, 2 bits
 * ]);
 * ```
 */
export class MoEExperts {
  /** In the order of their numbers. */
  readonly experts: readonly MoEExpert[];
  /** Columns of the tokens they take. */
  readonly hiddenSize: number;
  readonly #values: NativeValue[];
  #native: NativeExperts | undefined;

  /**
   * @param experts shared experts, which all tokens go to, last
   * @param from what {@link with} made
   * @throws `BL_INVALID_SHAPE`, `BL_INVALID_FORMAT`, `BL_INVALID_LAYOUT`, `BL_INVALID_ARGUMENT`, `BL_DETACHED`
   */
  constructor(
    experts: readonly MoEExpert[],
    from?: { values: NativeValue[]; handle: NativeExperts },
  ) {
    if (!Array.isArray(experts)) {
      throw argumentError(
        'BL_INVALID_ARGUMENT',
        `MoEExperts: experts is ${described(experts)}, expected an array`,
      );
    }
    this.experts = [...experts];
    this.#values =
      from?.values ?? this.experts.flatMap((expert, i) => expertValues(expert, `experts[${i}]`));
    this.hiddenSize = (this.experts[0]?.reduce ?? this.experts[0]?.up)?.cols ?? 0;
    this.#native = from?.handle ?? native.createExperts(this.#values);
  }

  /**
   * The same mixture but for some experts, which are given by their numbers. This one stays as it is, and calls that use it go
   * on.
   *
   * @throws as the constructor
   */
  with(changes: ReadonlyMap<number, MoEExpert>): MoEExperts {
    if (!(changes instanceof Map)) {
      throw argumentError(
        'BL_INVALID_ARGUMENT',
        `MoEExperts: with(${described(changes)}), expected a Map`,
      );
    }
    const experts = [...this.experts];
    const values = [...this.#values];
    for (const [number, expert] of changes) {
      if (!Number.isInteger(number) || number < 0 || number >= this.count) {
        throw argumentError(
          'BL_OUT_OF_RANGE',
          `MoEExperts: with(${described(number)}), expected 0 to ${this.count - 1}`,
        );
      }
      const own = expertValues(expert, `experts[${number}]`);
      experts[number] = expert;
      values.splice(number * own.length, own.length, ...own);
    }
    const numbers = Int32Array.from(changes.keys());
    const handle = native.replaceExperts(this.handle, numbers, values);
    return new MoEExperts(experts, { values, handle });
  }

  get count(): number {
    return this.experts.length;
  }

  get disposed(): boolean {
    return this.#native === undefined;
  }

  /** What native calls read. @internal */
  get handle(): NativeExperts {
    if (this.#native === undefined) {
      throw argumentError('BL_DETACHED', 'MoEExperts: used after dispose()');
    }
    return this.#native;
  }

  /** Lets go of the weights, and with `weights: true` disposes them. Calls that run keep theirs. */
  dispose({ weights = false }: { weights?: boolean } = {}): void {
    if (this.#native !== undefined) native.freeExperts(this.#native);
    this.#native = undefined;
    if (!weights) return;
    for (const part of this.experts.flatMap(expertParts)) part.dispose();
  }

  /** {@link dispose}, for `using`. */
  [Symbol.dispose](): void {
    this.dispose();
  }
}

function expertValues(expert: MoEExpert, name: string): NativeValue[] {
  const op = 'MoEExperts';
  checkObject(op, name, expert);
  const { gate, up, down, gateBias, upBias, downBias, reduce, expand } = expert;
  const values: NativeValue[] = [];
  const addWeights = (part: string, weights: QuantizedTensor | undefined): void => {
    checkWeights(op, `${name}.${part}`, weights);
    if (weights.device !== 'cpu') {
      throw argumentError(
        'BL_UNSUPPORTED',
        `${op}: ${name}.${part} is on ${weights.device}, expected the cpu`,
      );
    }
    values.push(...weightValues(weights));
  };
  const addOptional = (part: string, weights: QuantizedTensor | undefined): void => {
    if (weights === undefined) values.push(undefined, undefined, undefined);
    else addWeights(part, weights);
  };
  addOptional('gate', gate);
  addWeights('up', up);
  addWeights('down', down);
  for (const [part, bias] of Object.entries({ gateBias, upBias, downBias })) {
    if (bias !== undefined) checkTensor(op, `${name}.${part}`, bias);
    values.push(...optionalTensorValues(op, `${name}.${part}`, bias));
  }
  addOptional('reduce', reduce);
  addOptional('expand', expand);
  for (const value of values) {
    if (!ArrayBuffer.isView(value)) continue;
    if ((value.buffer as ArrayBuffer & { resizable?: boolean }).resizable === true) {
      throw argumentError(
        'BL_UNSUPPORTED',
        `${op}: ${name} has a resizable ArrayBuffer; copy it to a fixed one`,
      );
    }
  }
  return values;
}

/** @throws `BL_INVALID_ARGUMENT` unless `value` is {@link MoEExperts} */
export function checkExperts(op: string, value: unknown): asserts value is MoEExperts {
  if (typeof value === 'object' && value !== null && 'hiddenSize' in value && 'handle' in value)
    return;
  throw argumentError(
    'BL_INVALID_ARGUMENT',
    `${op}: experts is ${described(value)}, expected MoEExperts`,
  );
}
