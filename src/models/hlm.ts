import { checkInteger, checkObject, rangeError, raw, typeError } from "../checks.ts";
import { WeightsError } from "../errors.ts";
import { HomBlock } from "../layers/block.ts";
import type { BufferView } from "../layers/hom.ts";
import { LinearLayer } from "../layers/linear.ts";
import { embed, planEmbed } from "../ops/embed.ts";
import type { Gpu } from "../runtime/gpu.ts";
import { Program } from "../runtime/program.ts";
import { checkGpu, Tensor } from "../runtime/tensor.ts";
import type { GPUBuffer } from "../webgpu.ts";
import { collectParams, normaliseKeys } from "../weights/checkpoint.ts";
import { Weights, type WeightsSource } from "../weights/safetensors.ts";
import { checkSampling, type SamplingOptions, sample } from "./sampling.ts";

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
}

export interface HlmForwardOptions {
  /** Default 1. */
  readonly batch?: number;
  /** Position of the first token: one for all, or one a batch row. Default 0. */
  readonly posOffset?: number | Int32Array;
  /** `[B·n]`, 0 for padding: such a query sees nothing, as in training on padded batches. */
  readonly attentionMask?: Uint8Array | Float32Array;
}

export interface GenerateOptions extends SamplingOptions {
  /** Default 100. */
  readonly maxTokens?: number;
  /** Stops before the next token with the signal's reason. */
  readonly signal?: AbortSignal;
  /** Tokens of context that each step sees: at most, and by default, `contextLength`. */
  readonly window?: number;
}

const CONFIG_KEYS: readonly (keyof HlmConfig)[] = ["vocabSize", "dim", "layers", "contextLength", "order", "orderExpand", "ffwExpand"];
const METADATA_KEYS: Readonly<Record<keyof HlmConfig, string>> = {
  vocabSize: "vocab_size",
  dim: "dim",
  layers: "n_layers",
  contextLength: "context_length",
  order: "order",
  orderExpand: "order_expand",
  ffwExpand: "ffw_expand",
};

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
  return Object.fromEntries(values) as HlmConfig;
}

/** Every parameter of the model under its checkpoint name, with its shape. */
function shapesOf(config: HlmConfig): Record<string, number[]> {
  const { vocabSize: V, dim: D, layers, order, orderExpand, ffwExpand } = config;
  const M = order * orderExpand * D;
  const linear = (name: string, outer: number, inner: number) => ({ [`${name}.weight`]: [outer, inner], [`${name}.bias`]: [outer] });
  const shapes: Record<string, number[]> = {
    "token_emb.weight": [V, D],
    freqs: [D / 2],
    ...linear("pos_emb.0", 2 * D, D),
    ...linear("pos_emb.2", D, 2 * D),
    ...linear("output_proj", V, D),
  };
  for (let i = 0; i < layers; i++) {
    for (const [name, outer, inner] of [
      ["hom.ho_proj", M, D],
      ["hom.se_proj", M, D],
      ["hom.ag_proj", D, M],
      ["ffw.0", ffwExpand * D, D],
      ["ffw.2", D, ffwExpand * D],
    ] as const) {
      Object.assign(shapes, linear(`layers.${i}.${name}`, outer, inner));
    }
  }
  return shapes;
}

/** A parsed file, or parameters by checkpoint name: bare arrays (of the model's shapes) or `{ dtype, shape, data }`. */
export type HlmWeights = WeightsSource | Readonly<Record<string, Float32Array>>;

/** Bare arrays say nothing of their shapes: one whose size is right has the model's. */
function withShapes(weights: HlmWeights, shapes: Readonly<Record<string, readonly number[]>>): WeightsSource {
  if (weights instanceof Weights || typeof weights !== "object" || weights === null) return weights;
  const named = Object.entries(weights).map(([name, value]) => {
    if (!(value instanceof Float32Array)) return [name, value];
    const key = Object.keys(shapes).find((k) => name === k || name.endsWith(`.${k}`));
    const shape = key === undefined ? undefined : shapes[key];
    return [name, { shape: shape?.reduce((a, b) => a * b, 1) === value.length ? shape : [value.length], data: value }];
  });
  return Object.fromEntries(named);
}

/** What the model holds on the GPU. */
interface Parts {
  readonly table: GPUBuffer;
  readonly freqs: Float32Array;
  readonly positions: readonly [LinearLayer, LinearLayer];
  readonly blocks: readonly HomBlock[];
  readonly output: LinearLayer;
}

/**
 * The HoM language model: token embedding + position embedding, causal HoM blocks, output projection; no normalisation layer.
 *
 * @example
 * const weights = await fetchSafetensors("/hlm.safetensors");
 * const model = await Hlm.create(gpu, hlmConfigOf(weights), weights);
 * for await (const token of model.generate(promptIds, { maxTokens: 100, temperature: 0.8 })) show(token);
 */
export class Hlm {
  readonly gpu: Gpu;
  readonly config: HlmConfig;
  readonly #parts: Parts;
  readonly #embeddings = new Map<number, Program>();
  #destroyed = false;

  private constructor(gpu: Gpu, config: HlmConfig, parts: Parts) {
    this.gpu = gpu;
    this.config = config;
    this.#parts = parts;
  }

  /**
   * Uploads a checkpoint (original key names, training prefixes removed) and compiles the kernels.
   * @throws TypeError, RangeError for the configuration, WeightsError for the checkpoint, GpuLostError, GpuOutOfMemoryError
   */
  static async create(gpu: Gpu, config: HlmConfig, weights: HlmWeights): Promise<Hlm> {
    const where = "Hlm.create";
    checkGpu(where, gpu);
    checkObject(where, "config", config, CONFIG_KEYS);
    for (const key of CONFIG_KEYS) checkInteger(where, key, config[key], 1);
    if (config.dim % 2 !== 0) throw rangeError(where, "dim", "be even: half the position features are cosines, half sines", config.dim);
    gpu.checkUsable(where);
    const shapes = shapesOf(config);
    const optional = { freqs: shapes["freqs"] ?? [], "output_proj.bias": shapes["output_proj.bias"] ?? [] };
    for (const key of Object.keys(optional)) delete shapes[key];
    const expected = { ...shapes, ...optional };
    const named = normaliseKeys(withShapes(weights, expected), { where, expected: Object.keys(expected) });
    const params = collectParams(named, shapes, { where, optional });
    if (named.names.some((name) => name.startsWith(`layers.${config.layers}.`))) {
      throw new WeightsError(
        `${where}: config.layers must be the checkpoint's number of layers, got ${config.layers} while it has layers.${config.layers}`,
      );
    }

    const made: { destroy(): void }[] = [];
    const keep = <T extends { destroy(): void }>(part: T): T => {
      made.push(part);
      return part;
    };
    const { dim, vocabSize, layers, order, orderExpand, ffwExpand, contextLength } = config;
    const linear = (name: string, inner: number, outer: number, activation: "identity" | "silu") => {
      const weight = params[`${name}.weight`] ?? new Float32Array();
      return keep(new LinearLayer(gpu, { label: name, inner, outer, activation }, weight, params[`${name}.bias`]));
    };
    try {
      const { result, status } = gpu.guard(where, () => ({
        table: keep(gpu.upload("hom.token_emb.weights", params["token_emb.weight"] ?? new Float32Array())),
        positions: [linear("pos_emb.0", dim, 2 * dim, "silu"), linear("pos_emb.2", 2 * dim, dim, "identity")] as const,
        output: linear("output_proj", dim, vocabSize, "identity"),
      }));
      const blocks: HomBlock[] = [];
      for (let i = 0; i < layers; i++) {
        const prefix = `layers.${i}.`;
        const own = Object.fromEntries(
          Object.entries(params).flatMap(([key, value]) => (key.startsWith(prefix) ? [[key.slice(prefix.length), value]] : [])),
        );
        blocks.push(keep(await HomBlock.create(gpu, { dim, order, orderExpand, ffwExpand }, own)));
      }
      await Promise.all([...result.positions, result.output].map((layer) => layer.prepare()));
      await gpu.prepare(embed, {});
      const failure = await status;
      if (failure) throw failure;
      const freqs = params["freqs"] ?? Float32Array.from({ length: dim / 2 }, (_, j) => Math.exp((-2 * Math.log(4 * contextLength) * j) / dim));
      return new Hlm(gpu, config, { ...result, blocks, freqs });
    } catch (error) {
      for (const part of made) part.destroy();
      throw error;
    }
  }

  /** Bytes of the weights on the GPU. */
  get weightBytes(): number {
    const { table, positions, blocks, output } = this.#parts;
    return [...positions, ...blocks, output].reduce((sum, part) => sum + part.weightBytes, table.size);
  }

  /**
   * Token ids `[B·n]` -> logits `[B, n, V]`, on the GPU. n is at most `contextLength`, as in the original.
   * @throws TypeError, RangeError, GpuLostError
   */
  forward(tokenIds: Int32Array, options: HlmForwardOptions = {}): Tensor {
    const where = "Hlm.forward";
    checkObject(where, "options", options, ["batch", "posOffset", "attentionMask"]);
    this.#checkUsable(where);
    const batch = checkInteger(where, "batch", options.batch ?? 1, 1);
    this.#checkIds(where, "tokenIds", tokenIds);
    if (tokenIds.length % batch !== 0) throw rangeError(where, "tokenIds", `have ${batch} rows of equal length`, raw(`${tokenIds.length} ids`));
    const length = tokenIds.length / batch;
    const { contextLength } = this.config;
    if (length > contextLength) {
      throw rangeError(
        where,
        "tokenIds",
        `have at most contextLength = ${contextLength} tokens a row`,
        raw(`${length}`),
        "pass the last ones, with posOffset",
      );
    }
    const offsets = this.#checkOffsets(where, options.posOffset ?? 0, batch);
    const { attentionMask } = options;
    if (attentionMask !== undefined) {
      if (!(attentionMask instanceof Uint8Array) && !(attentionMask instanceof Float32Array)) {
        throw typeError(where, "attentionMask", "be a Uint8Array or a Float32Array", attentionMask);
      }
      if (attentionMask.length !== tokenIds.length)
        throw rangeError(where, "attentionMask", `have ${tokenIds.length} elements`, raw(`${attentionMask.length}`));
    }
    const queryMask = attentionMask && Uint32Array.from(attentionMask, (seen) => (seen === 0 ? 0 : 1));
    const shape = [batch, length, this.config.vocabSize];
    let free: (() => void)[] = [];
    const { result, status } = this.gpu.guard(where, () => {
      const logits = Tensor.allocate(where, this.gpu, "hom.logits", shape);
      free = this.#run(tokenIds, batch, length, offsets, queryMask, logits);
      return logits;
    });
    for (const f of free) f();
    return Tensor.adopt(this.gpu, result, shape, status);
  }

  /**
   * Continues a prompt, token by token. Each step computes the last `window` tokens anew.
   * @throws TypeError, RangeError, GpuLostError, the signal's reason
   */
  async *generate(promptIds: Int32Array, options: GenerateOptions = {}): AsyncGenerator<number, void, undefined> {
    const where = "Hlm.generate";
    checkObject(where, "options", options, ["maxTokens", "temperature", "topK", "seed", "signal", "window"]);
    const { maxTokens = 100, signal } = options;
    checkInteger(where, "maxTokens", maxTokens, 0);
    const { contextLength, vocabSize } = this.config;
    const window = checkInteger(where, "window", options.window ?? contextLength, 1, contextLength);
    const sampling = checkSampling(where, options);
    this.#checkIds(where, "promptIds", promptIds);
    const ids = [...promptIds];
    for (let step = 0; step < maxTokens; step++) {
      signal?.throwIfAborted();
      const seen = Int32Array.from(ids.slice(-window));
      using logits = this.forward(seen);
      const last = Tensor.wrap(this.gpu, logits.buffer, [vocabSize], { byteOffset: (seen.length - 1) * vocabSize * 4 }).overwritten(logits.status);
      const token = sample(await last.read(), step, sampling);
      ids.push(token);
      yield token;
    }
  }

  destroy(): void {
    if (this.#destroyed) return;
    this.#destroyed = true;
    const { table, positions, blocks, output } = this.#parts;
    for (const part of [table, ...positions, ...blocks, output, ...this.#embeddings.values()]) part.destroy();
  }

  [Symbol.dispose](): void {
    this.destroy();
  }

  /** Records and submits the whole model; returns what to free. */
  #run(ids: Int32Array, batch: number, length: number, offsets: Int32Array, queryMask: Uint32Array | undefined, logits: GPUBuffer): (() => void)[] {
    const { gpu } = this;
    const { dim } = this.config;
    const { table, positions, blocks, output } = this.#parts;
    const rows = batch * length;
    const scratch = (role: string, width: number): BufferView => ({ buffer: gpu.scratch(role, rows * width * 4), byteOffset: 0 });
    const idBuffer = gpu.upload("hom.embed.ids", new Uint32Array(ids));
    const featureBuffer = gpu.upload("hom.positions.features", positionFeatures(this.#parts.freqs, batch, length, offsets));
    const encoder = gpu.device.createCommandEncoder({ label: "hom.hlm.encoder" });
    const embedded = scratch("embedded", dim);
    const between = scratch("between", dim);
    const hidden = scratch("hidden", 2 * dim);
    let x = scratch("x0", dim);
    let spare = scratch("x1", dim);

    const positionRows = gpu.upload(
      "hom.embed.position_rows",
      Uint32Array.from({ length: rows }, (_, i) => i),
    );
    positions[0].record(encoder, { x: { buffer: featureBuffer, byteOffset: 0 }, y: hidden, rows });
    positions[1].record(encoder, { x: hidden, y: embedded, rows });
    this.#embedding(rows).encode(encoder, { ids: idBuffer, positionRows, table, positions: embedded.buffer, y: x.buffer });
    const resolved = { plan: { kind: "causal", ahead: 1 }, uploads: {}, key: "causal" } as const;
    const shape = { batch, queryLength: length, contextLength: length };
    const free = blocks.flatMap((block) => {
      const freed = block.record(encoder, { query: x, shape, resolved, queryMask }, between, spare, rows);
      [x, spare] = [spare, x];
      return freed;
    });
    output.record(encoder, { x, y: { buffer: logits, byteOffset: 0 }, rows });
    gpu.device.queue.submit([encoder.finish()]);
    return [...free, () => idBuffer.destroy(), () => positionRows.destroy(), () => featureBuffer.destroy()];
  }

  #embedding(tokens: number): Program {
    let program = this.#embeddings.get(tokens);
    if (!program) {
      const { dim, vocabSize } = this.config;
      const step = planEmbed({
        ids: { buffer: "ids", offset: 0, size: Math.max(16, tokens * 4) },
        positionRows: { buffer: "positionRows", offset: 0, size: Math.max(16, tokens * 4) },
        table: { buffer: "table", offset: 0, size: Math.max(16, vocabSize * dim * 4) },
        positions: { buffer: "positions", offset: 0, size: Math.max(16, tokens * dim * 4) },
        y: { buffer: "y", offset: 0, size: Math.max(16, tokens * dim * 4) },
        tokens,
        dim,
        maxWorkgroups: this.gpu.limits.maxComputeWorkgroupsPerDimension,
      });
      program = new Program(this.gpu, [step], new Map());
      this.#embeddings.set(tokens, program);
    }
    return program;
  }

  #checkUsable(where: string): void {
    if (this.#destroyed) throw typeError(where, "model", "be alive", raw("a destroyed model"));
    this.gpu.checkUsable(where);
  }

  #checkIds(where: string, argument: string, ids: Int32Array): void {
    if (!(ids instanceof Int32Array)) throw typeError(where, argument, "be an Int32Array", ids);
    if (ids.length === 0) throw rangeError(where, argument, "have at least one token", raw("none"));
    const { vocabSize } = this.config;
    const bad = ids.findIndex((id) => id < 0 || id >= vocabSize);
    if (bad !== -1) throw rangeError(where, `${argument}[${bad}]`, `be a token id from 0 to ${vocabSize - 1}`, ids[bad]);
  }

  #checkOffsets(where: string, offset: number | Int32Array, batch: number): Int32Array {
    if (typeof offset === "number") return new Int32Array(batch).fill(checkInteger(where, "posOffset", offset, 0, 0x7fffffff));
    if (!(offset instanceof Int32Array)) throw typeError(where, "posOffset", "be a number or an Int32Array", offset);
    if (offset.length !== batch) throw rangeError(where, "posOffset", `have ${batch} elements, one a batch row`, raw(`${offset.length}`));
    const bad = offset.findIndex((p) => p < 0);
    if (bad !== -1) throw rangeError(where, `posOffset[${bad}]`, "be >= 0", offset[bad]);
    return offset;
  }
}

/** [cos(p·f) | sin(p·f)] of each token's position, in float64: WGSL's own sine and cosine lose digits with the angle. */
function positionFeatures(freqs: Float32Array, batch: number, length: number, offsets: Int32Array): Float32Array<ArrayBuffer> {
  const half = freqs.length;
  const features = new Float32Array(batch * length * 2 * half);
  for (let row = 0; row < batch * length; row++) {
    const position = (offsets[Math.floor(row / length)] ?? 0) + (row % length);
    freqs.forEach((frequency, j) => {
      features[row * 2 * half + j] = Math.cos(position * frequency);
      features[row * 2 * half + half + j] = Math.sin(position * frequency);
    });
  }
  return features;
}
