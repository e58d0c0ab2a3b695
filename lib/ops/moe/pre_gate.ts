import { checkOptions, checkTensor } from '../../arguments.js';
import { argumentError } from '../../errors.js';
import { checkNotRecording } from '../../run.js';
import { type FloatDType, Tensor } from '../../tensor.js';
import { type MoERouteOptions, type MoERoutes, moeRoute } from './moe_route.js';
import { checkInteger, checkRank, routeValues } from './values.js';

// Above any model, so that lists of them are short.
const mostLayers = 2 ** 16;

/** Options of {@link preGate}: those of {@link moeRoute}, and the layers. */
export interface PreGateOptions extends Omit<MoERouteOptions, 'out' | 'scores'> {
  /** Layers that follow these routes. */
  numLayers: number;
  /** Experts of each layer. */
  numExperts: number;
}

/**
 * Routes of all layers before the first one runs: Read-ME's pre-gating router, decoupled from the layers (Cai et al. 2024).
 * What each layer will read is known, so experts can be fetched in time, evicted by their next use (Belady 1966), and
 * tokens grouped by experts.
 *
 * The router's matrix is one: `experts` columns are the routes of every layer (the paper's single router, since its
 * layers' choices agree mostly), `numLayers * experts` columns give each layer its own from the same input.
 *
 * A `Decoder` of `bitloom/nn` does so with `load(path, { preGate })`, a router over the embeddings.
 *
 * @param logits [tokens, numExperts] or [tokens, numLayers * numExperts]
 * @throws as {@link moeRoute}; `BL_INVALID_ARGUMENT` within a sequence: it reads values
 *
 * @example
 * ```ts
 * const plan = preGate(new Tensor('f32', [0, 2, 1, 3, 0, 1], [2, 3]), { topK: 1, numLayers: 2, numExperts: 3 });
 * plan.routes(1).indices.toArray(); // [1, 0]
 * plan.expertsOf(0); // [0, 1]
 * plan.accesses()[0]; // { layer: 0, expert: 0, tokens: 1, next: 2 }
 * ```
 */
export function preGate(logits: Tensor<FloatDType>, options: PreGateOptions): PreGatedRoutes {
  const op = 'preGate';
  checkNotRecording(op);
  checkTensor(op, 'logits', logits);
  checkRank(op, 'logits', logits, 2);
  checkOptions(op, options, knownOptions);
  const { numLayers, numExperts, ...rest } = options;
  checkInteger(op, 'numLayers', numLayers, 1, mostLayers);
  checkInteger(op, 'numExperts', numExperts, 1, 2 ** 31 - 1);
  const [tokens = 0, columns = 0] = logits.shape;
  if (columns !== numExperts && columns !== numLayers * numExperts) {
    throw argumentError(
      'BL_INVALID_SHAPE',
      `${op}: logits.shape[1] is ${columns}, expected ${numExperts} (numExperts) or ${numLayers * numExperts} (of all layers)`,
    );
  }
  if (columns === numExperts) {
    const routes = moeRoute(logits, rest);
    return new PreGatedRoutes(new Array<MoERoutes>(numLayers).fill(routes), numExperts);
  }
  const values = Float32Array.from(logits.toArray() as number[]);
  const layers = Array.from({ length: numLayers }, (_, layer) =>
    moeRoute(
      new Tensor('f32', values.subarray(layer * numExperts), [tokens, numExperts], {
        strides: [columns, 1],
      }),
      rest,
    ),
  );
  return new PreGatedRoutes(layers, numExperts);
}

const knownOptions = new Set([
  'numLayers',
  'numExperts',
  'topK',
  'scoring',
  'bias',
  'numGroups',
  'topGroups',
  'groupScore',
  'normalize',
  'scale',
  'isa',
  'threads',
]);

/** One expert that a layer will use. */
export interface ExpertAccess {
  layer: number;
  expert: number;
  /** Routes to it. */
  tokens: number;
  /** Place in the list of the next use of this number, in any layer; Infinity: none. */
  next: number;
}

/**
 * Routes of all layers, known before they run: see {@link preGate}.
 *
 * @example
 * ```ts
 * for (let layer = 0; layer < plan.numLayers; layer++) {
 *   if (layer + 1 < plan.numLayers) void caches[layer + 1].prefetch(plan.expertsOf(layer + 1)); // while this one runs
 *   x = moeForward(x, plan.routes(layer), caches[layer].experts);
 * }
 * ```
 */
export class PreGatedRoutes {
  readonly numLayers: number;
  readonly numExperts: number;
  readonly #layers: readonly MoERoutes[];

  /** @throws `BL_INVALID_SHAPE`, `BL_OUT_OF_RANGE` */
  constructor(layers: readonly MoERoutes[], numExperts: number) {
    for (const routes of new Set(layers)) routeValues('PreGatedRoutes', routes, numExperts);
    this.#layers = [...layers];
    this.numLayers = layers.length;
    this.numExperts = numExperts;
  }

  /** @throws `BL_OUT_OF_RANGE` */
  routes(layer: number): MoERoutes {
    checkInteger('PreGatedRoutes', 'layer', layer, 0, this.numLayers - 1);
    return this.#layers[layer] as MoERoutes;
  }

  /** Experts that a layer will use, by their numbers: what to fetch before it runs. */
  expertsOf(layer: number): number[] {
    return this.#counts(layer).flatMap((count, expert) => (count > 0 ? [expert] : []));
  }

  /** Uses of all layers in the order in which they come, with the place of the same number's next use. */
  accesses(): ExpertAccess[] {
    const list: ExpertAccess[] = [];
    for (let layer = 0; layer < this.numLayers; layer++) {
      this.#counts(layer).forEach((tokens, expert) => {
        if (tokens > 0) list.push({ layer, expert, tokens, next: Number.POSITIVE_INFINITY });
      });
    }
    const seen = new Map<number, number>();
    for (let i = list.length - 1; i >= 0; i--) {
      const access = list[i] as ExpertAccess;
      access.next = seen.get(access.expert) ?? Number.POSITIVE_INFINITY;
      seen.set(access.expert, i);
    }
    return list;
  }

  /** Tokens so ordered that those with the same experts follow each other (expert-aware batching). */
  batchOrder(): number[] {
    const first = this.#layers[0];
    if (first === undefined) return [];
    const [tokens = 0] = first.indices.shape;
    const keys = Array.from({ length: tokens }, (_, t) =>
      this.#layers.flatMap(({ indices }) => {
        const topK = indices.shape[1] as number;
        return [...indices.data.slice(t * topK, (t + 1) * topK)].sort((a, b) => a - b);
      }),
    );
    return keys
      .map((_, t) => t)
      .sort((a, b) => {
        const left = keys[a] as number[];
        const right = keys[b] as number[];
        const at = left.findIndex((e, i) => e !== right[i]);
        return at < 0 ? a - b : (left[at] as number) - (right[at] as number);
      });
  }

  #counts(layer: number): number[] {
    const counts = new Array<number>(this.numExperts).fill(0);
    for (const e of this.routes(layer).indices.toArray() as number[]) {
      if (e >= 0) counts[e] = (counts[e] as number) + 1;
    }
    return counts;
  }
}
