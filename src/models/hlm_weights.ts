import { checkInteger, checkObject, rangeError, typeError } from "../checks.ts";
import { WeightsError } from "../errors.ts";
import { HomBlock } from "../layers/block.ts";
import { LinearLayer } from "../layers/linear.ts";
import { embed } from "../ops/embed.ts";
import { sample } from "../ops/sample.ts";
import { shift } from "../ops/shift.ts";
import type { Gpu } from "../runtime/gpu.ts";
import type { WeightDtype } from "../runtime/kernel.ts";
import type { GPUBuffer } from "../webgpu.ts";
import { collectParams, normaliseKeys } from "../weights/checkpoint.ts";
import type { Weights } from "../weights/safetensors.ts";
import { type ModelWeights, withShapes } from "./with_shapes.ts";

/** Sizes of an {@link Hlm}, and which of its variants it is. */
export interface HlmConfig {
  /** V */
  readonly vocabSize: number;
  readonly dim: number;
  readonly layers: number;
  /** Tokens that the model was trained on at once. */
  readonly contextLength: number;
  readonly order: number;
  readonly orderExpand: number;
  readonly ffwExpand: number;
  /**
   * Each layer's mixer sees every token mixed with the one before it, x_t + mix ⊙ (x_(t-1) - x_t), by a trained share a channel: `layers.i.shift.mix` `[D]`.
   * Not in the original. Default false.
   */
  readonly tokenShift?: boolean | undefined;
  /**
   * Decayed moments: what a token adds to a channel's mean fades by a fixed factor with every token after it, `layers.i.hom.decay` `[e·D]` (in a checkpoint
   * without them: time constants from 1 to `contextLength` tokens, and a quarter of the channels that never fade). Not in the original. Default false.
   */
  readonly decay?: boolean | undefined;
  /** The position embedding of the original. Without it a text may be of any length. Default true. */
  readonly positions?: boolean | undefined;
}

/** A parsed file, or parameters by checkpoint name: bare arrays (of the model's shapes) or `{ dtype, shape, data }`. */
export type HlmWeights = ModelWeights;

/** What a model holds on the GPU; freqs: the position frequencies `[D/2]`. */
export interface HlmParts {
  readonly table: GPUBuffer;
  /** Undefined for a model without positions. */
  readonly positions: { readonly freqs: Float32Array; readonly layers: readonly [LinearLayer, LinearLayer] } | undefined;
  readonly blocks: readonly HomBlock[];
  /** Shares of the token shift, one `[D]` a layer; none without it. */
  readonly shifts: readonly GPUBuffer[];
  readonly output: LinearLayer;
}

const CONFIG_KEYS = ["vocabSize", "dim", "layers", "contextLength", "order", "orderExpand", "ffwExpand"] as const;
const FLAG_KEYS = ["tokenShift", "decay", "positions"] as const;
const METADATA_KEYS = {
  vocabSize: "vocab_size",
  dim: "dim",
  layers: "n_layers",
  contextLength: "context_length",
  order: "order",
  orderExpand: "order_expand",
  ffwExpand: "ffw_expand",
  tokenShift: "token_shift",
  decay: "decay",
  positions: "position_embedding",
} as const satisfies Readonly<Record<keyof HlmConfig, string>>;

/** The configuration that a checkpoint's metadata gives (`vocab_size`, `dim`, `n_layers`, …). @throws WeightsError where it lacks one */
export function hlmConfigOf(weights: Weights): HlmConfig {
  const values = CONFIG_KEYS.map((key) => {
    const text = weights.metadata[METADATA_KEYS[key]];
    const value = Number(text);
    if (text === undefined || !Number.isInteger(value) || value < 1) {
      throw new WeightsError(
        `hlmConfigOf: the metadata must have a positive integer ${METADATA_KEYS[key]}, got ${text}; pass the configuration to Hlm.create`,
      );
    }
    return [key, value];
  });
  const flags = FLAG_KEYS.flatMap((key) => {
    const text = weights.metadata[METADATA_KEYS[key]];
    if (text === undefined) return [];
    if (text !== "true" && text !== "false")
      throw new WeightsError(`hlmConfigOf: the metadata must have true or false in ${METADATA_KEYS[key]}, got ${text}`);
    return [[key, text === "true"]];
  });
  return Object.fromEntries([...values, ...flags]) as HlmConfig;
}

/** @throws TypeError, RangeError */
export function checkHlmConfig(where: string, config: HlmConfig): void {
  checkObject(where, "config", config, [...CONFIG_KEYS, ...FLAG_KEYS]);
  for (const key of CONFIG_KEYS) checkInteger(where, key, config[key], 1);
  for (const key of FLAG_KEYS) {
    const value = config[key];
    if (value !== undefined && typeof value !== "boolean") throw typeError(where, key, "be true or false", value);
  }
  if (config.positions !== false && config.dim % 2 !== 0)
    throw rangeError(where, "dim", "be even: half the position features are cosines, half sines", config.dim);
}

/** The metadata from which `hlmConfigOf` gets this configuration back. */
export function hlmMetadata(config: HlmConfig): Record<string, string> {
  // Options that stay at the original's are left out, so that other readers find nothing new.
  const flags = FLAG_KEYS.filter((key) => config[key] !== undefined && config[key] !== (key === "positions"));
  return Object.fromEntries([...CONFIG_KEYS, ...flags].map((key) => [METADATA_KEYS[key], String(config[key])]));
}

/** Decay factors `[e·D]` to begin with: time constants of 1 to `contextLength` tokens in equal ratios for three channels in four; the others never fade. */
export function hlmDecay({ dim, orderExpand, contextLength }: HlmConfig): Float32Array<ArrayBuffer> {
  const width = orderExpand * dim;
  const fading = Math.round(0.75 * width);
  return Float32Array.from({ length: width }, (_, c) => (c < fading ? Math.exp(-(contextLength ** (-c / Math.max(1, fading - 1)))) : 1));
}

/** freqs `[D/2]`, as the original computes them. */
export function hlmFrequencies({ dim, contextLength }: HlmConfig): Float32Array<ArrayBuffer> {
  return Float32Array.from({ length: dim / 2 }, (_, j) => Math.exp((-2 * Math.log(4 * contextLength) * j) / dim));
}

/** Finds the parameters in a checkpoint; `freqs` and the bias of `output_proj` may be absent. @throws WeightsError */
export function hlmParams(where: string, config: HlmConfig, weights: HlmWeights): Record<string, Float32Array> {
  const shapes = shapesOf(config);
  const optional: Record<string, number[]> = {};
  for (const [key, shape] of Object.entries(shapes))
    if (key === "freqs" || key === "output_proj.bias" || key.endsWith(".hom.decay")) optional[key] = shape;
  for (const key of Object.keys(optional)) delete shapes[key];
  const expected = { ...shapes, ...optional };
  const named = normaliseKeys(withShapes(weights, expected), { where, expected: Object.keys(expected) });
  const params = collectParams(named, shapes, { where, optional });
  for (const key of Object.keys(optional).filter((name) => name.endsWith(".hom.decay"))) {
    const factors = params[key] ?? hlmDecay(config);
    params[key] = factors;
    const bad = factors.findIndex((factor) => !(factor > 0 && factor <= 1));
    if (bad !== -1) throw new WeightsError(`${where}: ${key} must have factors in (0, 1], got ${factors[bad]} at element ${bad}`);
  }
  if (named.names.some((name) => name.startsWith(`layers.${config.layers}.`))) {
    throw new WeightsError(
      `${where}: config.layers must be the checkpoint's number of layers, got ${config.layers} while it has layers.${config.layers}`,
    );
  }
  return params;
}

/** Uploads the parameters and compiles their kernels. @throws WeightsError; nothing is kept then */
export async function loadHlm(where: string, gpu: Gpu, config: HlmConfig, weights: HlmWeights, weightDtype: WeightDtype): Promise<HlmParts> {
  const params = hlmParams(where, config, weights);
  const made: { destroy(): void }[] = [];
  const keep = <T extends { destroy(): void }>(part: T): T => {
    made.push(part);
    return part;
  };
  const { dim, vocabSize, layers, order, orderExpand, ffwExpand } = config;
  const linear = (name: string, inner: number, outer: number, activation: "identity" | "silu") => {
    const weight = params[`${name}.weight`] ?? new Float32Array();
    return keep(new LinearLayer(gpu, { label: name, inner, outer, activation, weightDtype }, weight, params[`${name}.bias`]));
  };
  try {
    const { result, status } = gpu.guard(where, () => ({
      table: keep(gpu.upload("hom.token_emb.weights", params["token_emb.weight"] ?? new Float32Array())),
      positions:
        config.positions === false
          ? undefined
          : {
              freqs: params["freqs"] ?? hlmFrequencies(config),
              layers: [linear("pos_emb.0", dim, 2 * dim, "silu"), linear("pos_emb.2", 2 * dim, dim, "identity")] as const,
            },
      shifts: Array.from({ length: config.tokenShift ? layers : 0 }, (_, i) =>
        keep(gpu.upload("hom.shift.weights", params[`layers.${i}.shift.mix`] ?? new Float32Array())),
      ),
      output: linear("output_proj", dim, vocabSize, "identity"),
    }));
    const blocks: HomBlock[] = [];
    for (let i = 0; i < layers; i++) {
      const prefix = `layers.${i}.`;
      const own = Object.entries(params).flatMap(([key, value]) => (key.startsWith(prefix) ? [[key.slice(prefix.length), value]] : []));
      const block = { dim, order, orderExpand, ffwExpand, weightDtype, decay: config.decay ?? false };
      blocks.push(keep(await HomBlock.create(gpu, block, Object.fromEntries(own))));
    }
    const dense = [...(result.positions?.layers ?? []), result.output];
    const kernels = [embed, sample, ...(config.tokenShift ? [shift] : [])];
    await Promise.all([...dense.map((layer) => layer.prepare()), ...kernels.map((kernel) => gpu.prepare(kernel, {}))]);
    const failure = await status;
    if (failure) throw failure;
    return { ...result, blocks };
  } catch (error) {
    for (const part of made) part.destroy();
    throw error;
  }
}

/** Every parameter of the model under its checkpoint name, with its shape. */
function shapesOf(config: HlmConfig): Record<string, number[]> {
  const { vocabSize: V, dim: D, layers, order, orderExpand, ffwExpand } = config;
  const M = order * orderExpand * D;
  const linear = (name: string, outer: number, inner: number) => ({ [`${name}.weight`]: [outer, inner], [`${name}.bias`]: [outer] });
  const shapes: Record<string, number[]> = {
    "token_emb.weight": [V, D],
    ...(config.positions !== false && { freqs: [D / 2], ...linear("pos_emb.0", 2 * D, D), ...linear("pos_emb.2", D, 2 * D) }),
    ...linear("output_proj", V, D),
  };
  for (let i = 0; i < layers; i++) {
    const parts = { "hom.ho_proj": [M, D], "hom.se_proj": [M, D], "hom.ag_proj": [D, M], "ffw.0": [ffwExpand * D, D], "ffw.2": [D, ffwExpand * D] };
    for (const [name, [outer = 0, inner = 0]] of Object.entries(parts)) Object.assign(shapes, linear(`layers.${i}.${name}`, outer, inner));
    if (config.tokenShift) shapes[`layers.${i}.shift.mix`] = [D];
    if (config.decay) shapes[`layers.${i}.hom.decay`] = [orderExpand * D];
  }
  return shapes;
}
