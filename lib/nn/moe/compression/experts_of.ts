// Decoders whose experts are changed, to be tried before a file is written.
import { checkObject, described } from '../../../arguments.js';
import { argumentError } from '../../../errors.js';
import type { Format } from '../../../generated.js';
import { mul } from '../../../ops/elementwise/mul.js';
import { type MoEExpert, MoEExperts } from '../../../ops/moe/experts.js';
import { dequantize } from '../../../ops/quantize/dequantize.js';
import { quantize } from '../../../ops/quantize/quantize.js';
import { formatInfo } from '../../../quantized_tensor.js';
import { Tensor } from '../../../tensor.js';
import { Decoder } from '../../decoder.js';
import { DecoderLayer } from '../../decoder_layer.js';
import { Linear } from '../../linear.js';
import { rowsFit } from '../../requantize.js';
import { MoELayer } from '../moe_layer.js';
import { decodedExpert } from './factors.js';
import { checkLayer, type DenseExpert, type ExpertLayer } from './layer.js';

/**
 * The mixtures of a decoder in f32; undefined for layers without.
 *
 * @example
 * ```ts
 * const decoder = await load('model.gguf');
 * const { router, experts, topK } = expertLayers(decoder)[0] as ExpertLayer;
 * ```
 */
export function expertLayers(decoder: Pick<Decoder, 'parts'>): (ExpertLayer | undefined)[] {
  return decoder.parts.layers.map(({ mlp }) => {
    if (!(mlp instanceof MoELayer)) return undefined;
    return {
      router: dequantize(mlp.options.router.weight),
      experts: mlp.experts.experts
        .slice(0, mlp.numExperts)
        .map((expert, e) => decodedExpert(expert, mlp.options.kept?.experts[e])),
      bias: mlp.options.route.bias,
      topK: mlp.options.route.topK,
    };
  });
}

/** A mixture that notes what it reads. */
class NotingLayer extends MoELayer {
  /** Shape [tokens, hidden], of the last call; of one that was recorded, once it has run. */
  lastInput: Tensor<'f32'> | undefined;

  override forward(
    x: Tensor<'f32'>,
    out?: Tensor<'f32'>,
    key?: object,
    residual?: Tensor<'f32'>,
  ): Tensor<'f32'> {
    this.lastInput = mul(x, one, { out: Tensor.empty('f32', x.shape) });
    return super.forward(x, out, key, residual);
  }
}

const one = new Tensor('f32', [1], []);

/** The decoder with other mixtures; undefined where they stay. Everything else is shared. */
function withMixtures(
  decoder: Decoder,
  change: (mixture: MoELayer, index: number) => MoELayer | undefined,
): Decoder {
  const layers = decoder.parts.layers.map((layer, i) => {
    const changed = layer.mlp instanceof MoELayer ? change(layer.mlp, i) : undefined;
    if (changed === undefined) return layer;
    return new DecoderLayer(layer.attentionNorm, layer.attention, layer.mlpNorm, changed);
  });
  const { tokenizer, contextLength } = decoder;
  return new Decoder(decoder.config, { ...decoder.parts, layers }, { tokenizer, contextLength });
}

/**
 * What each mixture reads in a text, `[tokens, hidden]`, by layer: what `mergeExperts` wants to match neurons by; undefined for
 * layers without experts. Windows of the decoder's context (at most 256) stand alone.
 *
 * @throws `BL_OUT_OF_RANGE` (a token that the model has not)
 *
 * @example
 * ```ts
 * const inputs = expertInputs(decoder, decoder.tokenizer.encode(text));
 * mergeExperts(layer, { usage, groups: 4, inputs: inputs[0] as Tensor<'f32'> });
 * ```
 */
export function expertInputs(
  decoder: Decoder,
  tokens: ArrayLike<number>,
): (Tensor<'f32'> | undefined)[] {
  const ids = Array.from(tokens);
  const { hiddenSize } = decoder.config;
  const noting = withMixtures(decoder, ({ options }) => new NotingLayer(options));
  const inputs = noting.parts.layers.map(({ mlp }) =>
    mlp instanceof MoELayer ? Tensor.zeros('f32', [ids.length, hiddenSize]) : undefined,
  );
  const window = Math.min(decoder.contextLength, 256);
  for (let begin = 0; begin < ids.length; begin += window) {
    noting.forward(ids.slice(begin, begin + window));
    for (const [i, { mlp }] of noting.parts.layers.entries()) {
      if (!(mlp instanceof NotingLayer) || mlp.lastInput === undefined) continue;
      inputs[i]?.data.set(mlp.lastInput.data, begin * hiddenSize);
    }
  }
  return inputs;
}

/**
 * The decoder with other experts, in `format`, to be tried before a file is written: everything else is shared, so that the
 * result is not to be disposed of, and lives as long as `decoder`. Shared experts stay.
 *
 * @param layers as {@link expertLayers} gives them, changed
 * @param options topK: experts of a token of layers that do not say it themselves
 * @throws `BL_INVALID_SHAPE`, `BL_OUT_OF_RANGE` (topK), `BL_INVALID_FORMAT`
 *
 * @example
 * ```ts
 * const smaller = expertLayers(decoder).map((layer, i) => layer && pruneByUsage(layer, counts[i] as number[], 6));
 * const { loss } = await perplexity(withExperts(decoder, smaller), text);
 * ```
 */
export function withExperts(
  decoder: Decoder,
  layers: readonly (ExpertLayer | undefined)[],
  { format = 'f32', topK }: { format?: Format; topK?: number } = {},
): Decoder {
  formatInfo(format);
  checkObject('withExperts', 'layers', layers);
  if (topK !== undefined && !(Number.isInteger(topK) && topK >= 1)) {
    throw argumentError(
      'BL_OUT_OF_RANGE',
      `withExperts: topK is ${described(topK)}, expected at least 1`,
    );
  }
  return withMixtures(decoder, ({ options, experts, numExperts }, i) => {
    const own = layers[i];
    if (own === undefined) return undefined;
    checkLayer('withExperts', own);
    const bias = own.bias ?? options.route.bias;
    if (bias !== undefined && bias.size !== own.experts.length) {
      throw argumentError(
        'BL_INVALID_SHAPE',
        `withExperts: layers[${i}].bias is missing, expected one for ${own.experts.length} experts: the router has one`,
      );
    }
    const { kept: _, ...others } = options;
    const routed = own.experts.map((expert) => encoded(expert, format));
    const kept = own.experts.flatMap((expert) => expert.kept ?? []);
    return new MoELayer({
      ...others,
      router: new Linear(quantize(own.router, 'f32'), {
        ...options.router.run,
        activations: 'f32',
      }),
      experts: new MoEExperts([...routed, ...experts.experts.slice(numExperts)]),
      ...(kept.length === 0
        ? {}
        : { kept: new MoEExperts(kept.map((neurons) => encoded(neurons, format))) }),
      route: {
        ...options.route,
        ...(bias === undefined ? {} : { bias }),
        topK: Math.min(own.topK ?? topK ?? options.route.topK, routed.length),
      },
    });
  });
}

function encoded({ gate, up, down, reduce, expand }: DenseExpert, format: Format): MoEExpert {
  // Factors whose ranks do not fit the blocks of the format stay in f32, as in files.
  const of = (matrix: Tensor<'f32'>) =>
    quantize(matrix, rowsFit(format, matrix.shape[1] as number) ? format : 'f32');
  return {
    ...(gate === undefined ? {} : { gate: of(gate) }),
    up: of(up),
    down: of(down),
    ...(reduce === undefined ? {} : { reduce: of(reduce) }),
    ...(expand === undefined ? {} : { expand: of(expand) }),
  };
}

/**
 * How many tokens of a text go to each expert, by layer: what `pruneByUsage` and `mergeExperts` want; an empty list for layers
 * without experts. Windows of the decoder's context (at most 256) stand alone.
 *
 * @throws `BL_OUT_OF_RANGE` (a token that the model has not)
 *
 * @example
 * ```ts
 * const counts = expertCounts(decoder, decoder.tokenizer.encode(text));
 * const fewer = pruneByUsage(layer, counts[0] as number[], 6);
 * ```
 */
export function expertCounts(decoder: Decoder, tokens: ArrayLike<number>): number[][] {
  const counts = decoder.parts.layers.map(({ mlp }) =>
    new Array<number>(mlp instanceof MoELayer ? mlp.numExperts : 0).fill(0),
  );
  const window = Math.min(decoder.contextLength, 256);
  const ids = Array.from(tokens);
  for (let begin = 0; begin < ids.length; begin += window) {
    decoder.forward(ids.slice(begin, begin + window));
    for (const [i, { mlp }] of decoder.parts.layers.entries()) {
      if (!(mlp instanceof MoELayer)) continue;
      const own = counts[i] as number[];
      for (const e of mlp.lastRoutes?.indices.data ?? []) {
        if (e >= 0) own[e] = (own[e] as number) + 1;
      }
    }
  }
  return counts;
}
