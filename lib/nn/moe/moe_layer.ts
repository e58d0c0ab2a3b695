import type { DeviceName } from '../../device.js';
import { argumentError } from '../../errors.js';
import type { Compute } from '../../ops/matmul/options.js';
import type { MoEExperts } from '../../ops/moe/experts.js';
import {
  type MoEActivation,
  type MoEForwardOptions,
  moeForward,
  moeForwardWorkspaceBytes,
} from '../../ops/moe/moe_forward.js';
import { type MoERouteOptions, type MoERoutes, moeRoute } from '../../ops/moe/moe_route.js';
import type { RunOptions } from '../../run.js';
import { Tensor } from '../../tensor.js';
import { type Activations, computeOf, type Linear } from '../linear.js';
import { ExpertCache } from './expert_cache.js';

/** Parts of a {@link MoELayer}. */
export interface MoELayerOptions extends RunOptions {
  /** hidden -> experts. Computed in f32, so that routes do not depend on how activations are rounded. */
  router: Linear;
  /** The routed experts, then the shared ones; or those of them that are in memory, and the others in their file. */
  experts: MoEExperts | ExpertCache;
  /** Neurons that routed experts have besides, whole where the expert itself is of low rank; as many as routed experts. */
  kept?: MoEExperts | undefined;
  /** What `moeRoute` is told. */
  route: Omit<MoERouteOptions, 'out' | 'scores' | keyof RunOptions>;
  /** How many experts, the last ones, all tokens go to. Default 0. */
  numShared?: number;
  /** hidden -> 1: shared experts count by the sigmoid of it (Qwen2-MoE). */
  sharedGate?: Linear | undefined;
  /** Default `'silu'`. */
  activation?: MoEActivation;
  /** Of the experts' products. Default `'auto'`. */
  activations?: Activations;
}

/** Where {@link MoELayer.forward} puts routes: of M tokens. */
export interface MoEScratch {
  logits: Tensor<'f32'>;
  routes: MoERoutes;
  shared?: { logits: Tensor<'f32'>; routes: MoERoutes };
  /** What `moeForward` needs; of the first step, and of all that have as many tokens. */
  workspaceBytes?: number;
}

/** Memory of `moeForward` by the key of a step, whose layers run one after the other and share it. */
const workspaces = new WeakMap<object, Tensor<'u8'>>();

function workspaceOf(key: object, bytes: number): Tensor<'u8'> {
  let workspace = workspaces.get(key);
  if (workspace === undefined || workspace.size < bytes) {
    workspace = Tensor.empty('u8', [bytes]);
    workspaces.set(key, workspace);
  }
  return workspace;
}

/**
 * A mixture of experts in place of an MLP: router, `moeRoute`, {@link moeForward}.
 *
 * @throws `BL_INVALID_SHAPE` where the parts do not fit
 *
 * @example
 * ```ts
 * const layer = new MoELayer({ router: new Linear(router), experts: new MoEExperts(list), route: { topK: 2 } });
 * const y = layer.forward(x); // [M, hidden]
 * ```
 */
export class MoELayer {
  readonly numExperts: number;
  readonly #run: RunOptions;
  readonly #compute: Compute;
  readonly #memory = new WeakMap<object, MoEScratch>();
  #last: MoEScratch | undefined;

  constructor(readonly options: MoELayerOptions) {
    const { router, numShared = 0, activations, isa, threads } = options;
    const { experts } = this;
    this.numExperts = experts.count - numShared;
    this.#run = {
      ...(isa === undefined ? {} : { isa }),
      ...(threads === undefined ? {} : { threads }),
    };
    this.#compute = computeOf(activations);
    const sizes: [string, number, number, string][] = [
      ['router.outFeatures', router.outFeatures, this.numExperts, 'experts.count - numShared'],
      ['router.inFeatures', router.inFeatures, experts.hiddenSize, 'experts.hiddenSize'],
      ['kept.count', options.kept?.count ?? this.numExperts, this.numExperts, 'routed experts'],
      ['sharedGate.outFeatures', options.sharedGate?.outFeatures ?? 1, 1, 'one for all'],
    ];
    for (const [name, actual, expected, source] of sizes) {
      if (actual !== expected) {
        throw argumentError(
          'BL_INVALID_SHAPE',
          `MoELayer: ${name} is ${actual}, expected ${expected} (= ${source})`,
        );
      }
    }
  }

  /** Whether {@link experts} are others from call to call, so that calls can not be recorded. */
  get replacesExperts(): boolean {
    return this.options.experts instanceof ExpertCache;
  }

  /** The experts as they are now. */
  get experts(): MoEExperts {
    const { experts } = this.options;
    return experts instanceof ExpertCache ? experts.experts : experts;
  }

  /**
   * Tells the cache of experts, if there is one, which were used by the {@link forward} with this key, and begins to bring
   * them into memory for the next.
   */
  settle(key: object): void {
    const { experts } = this.options;
    const memory = this.#memory.get(key);
    if (memory === undefined) return;
    this.#last = memory; // also where a recorded forward has run
    if (!(experts instanceof ExpertCache)) return;
    const used = this.#used(memory);
    experts.note(used);
    // Steps that are quicker than the file leave the rest to those after them. An expert that could not be brought stays
    // where it is.
    if (!experts.busy) experts.prefetch(used).catch(() => undefined);
  }

  /**
   * Brings the experts of the routes of this key, which {@link route} has made, into memory. An expert that could not be brought stays
   * where it is.
   */
  async prefetch(key: object): Promise<void> {
    const { experts } = this.options;
    const memory = this.#memory.get(key);
    if (memory === undefined || !(experts instanceof ExpertCache)) return;
    await experts.prefetch(this.#used(memory)).catch(() => undefined);
  }

  /** Experts of these routes, and the shared ones. */
  #used({ routes }: MoEScratch): number[] {
    const used = [...new Set(routes.indices.data)];
    for (let e = this.numExperts; e < this.experts.count; e++) used.push(e);
    return used;
  }

  /** Where tokens of the last {@link forward} went; of a call that was recorded, once it has run. */
  get lastRoutes(): MoERoutes | undefined {
    return this.#last?.routes;
  }

  /** New memory for M rows. */
  scratch(rows: number): MoEScratch {
    const { route, sharedGate } = this.options;
    const f32 = (columns: number) => Tensor.empty('f32', [rows, columns]);
    const routes = (columns: number): MoERoutes => ({
      indices: Tensor.empty('i32', [rows, columns]),
      weights: f32(columns),
    });
    return {
      logits: f32(this.numExperts),
      routes: routes(route.topK),
      ...(sharedGate === undefined ? {} : { shared: { logits: f32(1), routes: routes(1) } }),
    };
  }

  #memoryOf(key: object | undefined, rows: number): MoEScratch {
    const known = key && this.#memory.get(key);
    if (known !== undefined) return known;
    const memory = this.scratch(rows);
    if (key !== undefined) this.#memory.set(key, memory);
    return memory;
  }

  /**
   * Routes from logits that are not the router's (pre-gating), for the {@link forward} with this key that is told so.
   *
   * @param logits [M, numExperts]
   */
  route(logits: Tensor<'f32'>, key: object): MoERoutes {
    const { routes } = this.#memoryOf(key, logits.shape[0] as number);
    return moeRoute(logits, { ...this.#run, ...this.options.route, out: routes });
  }

  /**
   * @param x [M, hidden] f32
   * @param key whose memory for routes this is: steps that run beside each other have one each. Default: new memory
   * @param residual [M, hidden], added to the result; may be `out`
   * @param isRouted whether {@link route} has made the routes of this key
   * @returns [M, hidden]: `out` (not x), or a new f32 tensor
   */
  forward(
    x: Tensor<'f32'>,
    out?: Tensor<'f32'>,
    key?: object,
    residual?: Tensor<'f32'>,
    isRouted = false,
  ): Tensor<'f32'> {
    const { router, route, numShared = 0, sharedGate, activation, kept } = this.options;
    const memory = this.#memoryOf(key, x.shape[0] as number);
    this.#last = memory;
    if (!isRouted) {
      router.forward(x, memory.logits);
      moeRoute(memory.logits, { ...this.#run, ...route, out: memory.routes });
    }
    const { shared } = memory;
    if (sharedGate !== undefined && shared !== undefined) {
      sharedGate.forward(x, shared.logits);
      moeRoute(shared.logits, { ...this.#run, topK: 1, scoring: 'sigmoid', out: shared.routes });
    }
    const common: MoEForwardOptions = {
      ...this.#run,
      compute: this.#compute,
      ...(activation === undefined ? {} : { activation }),
    };
    if (key !== undefined) {
      memory.workspaceBytes ??= this.#workspaceBytes(x, memory.routes, {
        ...common,
        ...(out && { out }),
      });
      common.workspace = workspaceOf(key, memory.workspaceBytes);
    }
    const sum = moeForward(x, memory.routes, this.experts, {
      ...common,
      numShared,
      ...(shared === undefined ? {} : { sharedWeights: shared.routes.weights }),
      ...(residual === undefined ? {} : { residual }),
      ...(out === undefined ? {} : { out }),
    });
    if (kept === undefined) return sum;
    return moeForward(x, memory.routes, kept, { ...common, residual: sum, out: sum });
  }

  /** What both calls of {@link forward} need. */
  #workspaceBytes(x: Tensor<'f32'>, routes: MoERoutes, options: MoEForwardOptions): number {
    const { numShared = 0, kept } = this.options;
    const own = moeForwardWorkspaceBytes(x, routes, this.experts, { ...options, numShared });
    const others = kept === undefined ? 0 : moeForwardWorkspaceBytes(x, routes, kept, options);
    return Math.max(own, others);
  }

  /** @throws `BL_UNSUPPORTED`: experts run on the processor */
  async to(device: DeviceName): Promise<MoELayer> {
    if (device === 'cpu') return this;
    throw argumentError('BL_UNSUPPORTED', `MoELayer: device is ${device}, expected cpu`);
  }

  /** Lets go of the weights. */
  dispose(): void {
    this.options.router.dispose();
    this.options.sharedGate?.dispose();
    this.options.experts.dispose({ weights: true });
    this.options.kept?.dispose({ weights: true });
  }
}
