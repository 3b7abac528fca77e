import type { DihArguments, DihShape } from "../../src/reference/dih.ts";
import type { GnnArguments, GnnShape } from "../../src/reference/gnn.ts";
import type { HlmConfig } from "../../src/reference/hlm.ts";
import type { HomArguments } from "../../src/reference/hom.ts";
import type { PomArguments, PomShape } from "../../src/reference/pom.ts";
import type { HomParams, HomShape, Weights } from "../../src/reference/types.ts";
import type { VisionArguments, VisionShape } from "../../src/reference/vision.ts";
import { parseSafetensors } from "../../src/weights/safetensors.ts";
import { loadFixture, loadJson } from "./fixtures.ts";

/**
 * Golden cases: what the original PyTorch modules computed in float64, rounded to f32. test/fixtures/golden/README.md defines everything;
 * this file turns a case into the arguments of this package.
 */
const FOLDER = "test/fixtures/golden";

/** A case of index.json, as far as the tests read it. */
export interface GoldenCase {
  readonly name: string;
  readonly file: string;
  readonly family: string;
  readonly config: Readonly<Record<string, unknown>>;
  readonly inputs: readonly string[];
  readonly params: readonly string[];
  readonly outputs: readonly string[];
  readonly grads: readonly string[];
  readonly notes: string;
}

export interface GoldenTensor {
  readonly shape: readonly number[];
  readonly data: Float32Array | Int32Array | Uint8Array;
}

export interface Golden {
  readonly name: string;
  readonly config: Readonly<Record<string, unknown>>;
  /** Parameters under their state_dict names. */
  readonly params: Record<string, Float32Array>;
  /** Throws where the case lacks the tensor. */
  tensor(key: string): GoldenTensor;
  has(key: string): boolean;
}

/** Cases of these families, in the order of the index. An unknown family throws: a test over no case would pass. */
export async function goldenCases(...families: string[]): Promise<GoldenCase[]> {
  const index = await loadJson<{ cases: GoldenCase[] }>(`${FOLDER}/index.json`);
  for (const family of families) {
    if (!index.cases.some((c) => c.family === family)) throw new Error(`goldenCases: no case of family ${family}`);
  }
  return index.cases.filter((c) => families.includes(c.family));
}

export async function loadGolden(entry: GoldenCase): Promise<Golden> {
  const file = parseSafetensors(await loadFixture(`${FOLDER}/${entry.file}`));
  const tensor = (key: string): GoldenTensor => {
    const { shape, dtype, data } = file.get(key);
    if (data instanceof Float32Array || data instanceof Int32Array || data instanceof Uint8Array) return { shape, data };
    throw new Error(`loadGolden: ${entry.name} has ${key} of dtype ${dtype}`);
  };
  const keys = new Set([...entry.inputs, ...entry.params, ...entry.outputs, ...entry.grads]);
  const params = Object.fromEntries(entry.params.map((key) => [key, floats(tensor(key), key)]));
  return { name: entry.name, config: entry.config, params, tensor, has: (key) => keys.has(key) };
}

export type GoldenMask =
  | "causal"
  | { readonly blockCausal: number }
  | { readonly padding: Uint8Array | Float32Array }
  | { readonly full: Uint8Array | Float32Array };

/** A hom, hom_stream or hom_layer case. Typed arrays throughout, so that it serves the GPU layer as well as the reference. */
export interface HomGolden {
  readonly shape: HomShape & { readonly ffwExpand: number };
  readonly params: HomParams & Weights & Readonly<Record<string, Float32Array>>;
  readonly args: HomArguments & {
    readonly query: Float32Array;
    readonly context?: Float32Array;
    readonly mask?: GoldenMask;
    readonly contextLength: number;
  };
  /** out.y [B, T, D] */
  readonly expected: Float32Array;
  readonly outputShape: readonly number[];
}

export function homGolden(golden: Golden): HomGolden {
  const { config } = golden;
  const query = golden.tensor("in.xq");
  const [batch, queryLength, dim] = query.shape as [number, number, number];
  const context = golden.has("in.xc") ? golden.tensor("in.xc") : undefined;
  const contextLength = context?.shape[1] ?? queryLength;
  const mask = maskOf(golden, queryLength, contextLength);
  const y = golden.tensor("out.y");
  return {
    shape: { dim, order: number(config, "order"), orderExpand: number(config, "order_expand"), ffwExpand: Number(config["ffw_expand"] ?? 1) },
    params: golden.params as HomGolden["params"],
    args: {
      query: floats(query, "in.xq"),
      ...(context && { context: floats(context, "in.xc") }),
      ...(mask && { mask }),
      batch,
      queryLength,
      contextLength,
    },
    expected: floats(y, "out.y"),
    outputShape: y.shape,
  };
}

/** The mask of a case in our form. A (block-)causal one is given by name, after checking that the stored tensor says the same. */
function maskOf(golden: Golden, queryLength: number, contextLength: number): GoldenMask | undefined {
  const kind = String(golden.config["mask"]);
  switch (kind) {
    case "none":
      return undefined;
    case "padding":
    case "soft padding":
      return { padding: golden.tensor("in.mask").data as Uint8Array | Float32Array };
    case "full":
    case "soft full":
      return { full: fullMask(golden) };
    case "causal (implicit, lower triangular)":
      return "causal";
    case "causal":
      checkMask(golden, queryLength, contextLength, (t, n) => n <= t);
      return "causal";
    case "block-causal":
      checkMask(golden, queryLength, contextLength, (t, n) => Math.floor(n / 4) <= Math.floor(t / 4));
      return { blockCausal: 4 };
    default:
      throw new Error(`homGolden: ${golden.name} has the unknown mask ${kind}`);
  }
}

/** The stored mask [B or 1, T, N] itself; also of the (block-)causal cases, to run them as full masks. */
export function fullMask(golden: Golden): Uint8Array | Float32Array {
  const { shape, data } = golden.tensor("in.mask");
  if (shape.length !== 3) throw new Error(`fullMask: ${golden.name} has a mask of rank ${shape.length}`);
  return data as Uint8Array | Float32Array;
}

function checkMask(golden: Golden, queryLength: number, contextLength: number, sees: (t: number, n: number) => boolean): void {
  const mask = fullMask(golden);
  for (let i = 0; i < mask.length; i++) {
    const t = Math.floor(i / contextLength) % queryLength;
    if (mask[i] !== (sees(t, i % contextLength) ? 1 : 0))
      throw new Error(`homGolden: ${golden.name} stores another mask than its name says, at ${i}`);
  }
}

/** A pom or pom_rope case. */
export interface PomGolden {
  readonly shape: PomShape & { readonly nGroups: number; readonly nSelHeads: number };
  readonly bias: boolean;
  readonly params: Readonly<Record<string, Float32Array>>;
  readonly args: PomArguments & {
    readonly query: Float32Array;
    readonly context?: Float32Array;
    readonly mask?: GoldenMask;
    readonly positions?: Uint32Array;
    readonly contextPositions?: Uint32Array;
    readonly contextLength: number;
  };
  /** out.y [B, T, D]; a row that may see nothing, NaN in the original, holds the bias of ag_proj, as this package has it. */
  readonly expected: Float32Array;
  readonly outputShape: readonly number[];
  /** Rows [B·T] that may see nothing. */
  readonly blind: readonly number[];
}

export function pomShape({ config }: Golden): PomGolden["shape"] {
  const rotary = config["rope"] === true ? (config["rope_2d"] === true ? "2d" : "1d") : undefined;
  return {
    dim: number(config, "dim"),
    degree: number(config, "degree"),
    expand: number(config, "expand"),
    nGroups: number(config, "n_groups"),
    nSelHeads: number(config, "n_sel_heads"),
    rotary,
  };
}

export function pomGolden(golden: Golden): PomGolden {
  const { config, params } = golden;
  const shape = pomShape(golden);
  const y = golden.tensor("out.y");
  const [batch, queryLength] = y.shape as [number, number, number];
  const context = golden.has("in.xc") ? golden.tensor("in.xc") : undefined;
  const contextLength = context?.shape[1] ?? queryLength;
  let query = floats(golden.tensor("in.xq"), "in.xq");
  const rows = golden.tensor("in.xq").shape[1] ?? 0;
  // The original lets one query stand for all rows of a causal mask; here each row has its own.
  if (config["mask"] === "causal" && rows === 1 && queryLength > 1) query = repeatRows(query, batch, queryLength);
  else if (rows !== queryLength) throw new Error(`pomGolden: ${golden.name} has ${rows} queries and ${queryLength} outputs`);
  const stored = golden.has("in.mask");
  const mask = config["mask"] === "causal" && !stored ? "causal" : maskOf(golden, queryLength, contextLength);
  const positionsKey = ["in.positions", "in.positions_hw"].find((key) => golden.has(key));
  const values = floats(y, "out.y");
  const blind = Array.from({ length: batch * queryLength }, (_, i) => i).filter((i) => Number.isNaN(values[i * shape.dim]));
  const expected = Float32Array.from(values, (value, i) => (Number.isNaN(value) ? (params["ag_proj.bias"]?.[i % shape.dim] ?? 0) : value));
  return {
    shape,
    bias: config["bias"] === true,
    params,
    args: {
      query,
      ...(context && { context: floats(context, "in.xc") }),
      ...(mask && { mask }),
      ...(positionsKey && { positions: Uint32Array.from(golden.tensor(positionsKey).data) }),
      ...(golden.has("in.ctx_positions") && { contextPositions: Uint32Array.from(golden.tensor("in.ctx_positions").data) }),
      batch,
      queryLength,
      contextLength,
    },
    expected,
    outputShape: y.shape,
    blind,
  };
}

/** x [B, 1, D] -> [B, rows, D] */
function repeatRows(x: Float32Array, batch: number, rows: number): Float32Array {
  const dim = x.length / batch;
  return Float32Array.from({ length: batch * rows * dim }, (_, i) => x[Math.floor(i / (rows * dim)) * dim + (i % dim)]!);
}

/** A pom_state case: calls with their chunks of context and query. */
export interface PomStateGolden {
  readonly shape: PomGolden["shape"];
  readonly bias: boolean;
  readonly params: Readonly<Record<string, Float32Array>>;
  readonly batch: number;
  readonly calls: readonly {
    /** [B, n, D] */
    readonly context: Float32Array;
    readonly contextLength: number;
    /** [B, t, D] */
    readonly query: Float32Array;
    readonly queryLength: number;
    /** [B, t, D] */
    readonly expected: Float32Array;
    /** out.state_h [B, M] after the call */
    readonly mean: Float32Array;
    /** out.state_n */
    readonly count: number;
  }[];
}

export function pomStateGolden(golden: Golden): PomStateGolden {
  const { config, params } = golden;
  const xq = golden.tensor("in.xq");
  const xc = golden.has("in.xc") ? golden.tensor("in.xc") : xq;
  const y = golden.tensor("out.y");
  const means = golden.tensor("out.state_h");
  const counts = golden.tensor("out.state_n");
  const [batch] = xq.shape as [number];
  const chunks = (key: string) => config[key] as number[];
  const at = (sizes: number[], i: number) => sizes.slice(0, i).reduce((a, b) => a + b, 0);
  const cut = (tensor: GoldenTensor, key: string, sizes: number[], i: number) => tokensOf(floats(tensor, key), tensor.shape, at(sizes, i), sizes[i]!);
  const calls = chunks("chunks_q").map((queryLength, i) => ({
    context: cut(xc, "in.xc", chunks("chunks_c"), i),
    contextLength: chunks("chunks_c")[i]!,
    query: cut(xq, "in.xq", chunks("chunks_q"), i),
    queryLength,
    expected: cut(y, "out.y", chunks("chunks_q"), i),
    mean: tokensOf(floats(means, "out.state_h"), means.shape, i, 1),
    count: counts.data[i]!,
  }));
  return { shape: pomShape(golden), bias: config["bias"] === true, params, batch, calls };
}

/** Tokens [from, from + count) of x [B, N, D]. */
function tokensOf(x: Float32Array, shape: readonly number[], from: number, count: number): Float32Array {
  const [batch, length, dim] = shape as [number, number, number];
  const out = new Float32Array(batch * count * dim);
  for (let b = 0; b < batch; b++) out.set(x.subarray((b * length + from) * dim, (b * length + from + count) * dim), b * count * dim);
  return out;
}

/** A case of family hom_vision. */
export interface VisionGolden {
  readonly shape: VisionShape & { readonly imageSize: number };
  readonly params: Readonly<Record<string, Float32Array>>;
  readonly args: VisionArguments & { readonly image: Float32Array; readonly mask?: Uint8Array };
  readonly expected: Float32Array;
  readonly outputShape: readonly number[];
}

export function visionGolden(golden: Golden): VisionGolden {
  const { config, params } = golden;
  const image = golden.tensor("in.img");
  const [batch, channels, height, width] = image.shape as [number, number, number, number];
  const y = golden.tensor("out.y");
  return {
    shape: {
      dim: number(config, "dim"),
      order: number(config, "order"),
      orderExpand: number(config, "order_expand"),
      ffwExpand: number(config, "ffw_expand"),
      layers: number(config, "nb_layers"),
      classes: number(config, "nb_classes"),
      channels,
      patch: number(config, "kernel_size"),
      pooling: config["pooling"] === "cls" ? "cls" : "none",
      imageSize: number(config, "im_size"),
    },
    params,
    args: {
      image: floats(image, "in.img"),
      ...(golden.has("in.mask") && { mask: golden.tensor("in.mask").data as Uint8Array }),
      batch,
      height,
      width,
    },
    expected: floats(y, "out.y"),
    outputShape: y.shape,
  };
}

/** A case of family gnn: one layer, or layers and a classifier. */
export interface GnnGolden {
  readonly shape: GnnShape;
  readonly network: { readonly layers: number; readonly classes: number } | undefined;
  readonly params: Readonly<Record<string, Float32Array>>;
  readonly args: GnnArguments & { readonly x: Float32Array; readonly adjacency: Uint8Array };
  readonly expected: Float32Array;
  readonly outputShape: readonly number[];
  /** out.classes [B, N] of a network. */
  readonly classes: Int32Array | undefined;
}

export function gnnGolden(golden: Golden): GnnGolden {
  const { config, params } = golden;
  const x = golden.tensor("in.x");
  const [batch, nodes, dim] = x.shape as [number, number, number];
  const y = golden.tensor("out.y");
  const network = config["network"] === true;
  return {
    shape: { dim, order: number(config, "order"), orderExpand: number(config, "order_expand"), ffwExpand: number(config, "ffw_expand") },
    network: network ? { layers: number(config, "n_layers"), classes: number(config, "n_classes") } : undefined,
    params,
    args: { x: floats(x, "in.x"), adjacency: golden.tensor("in.adjacency").data as Uint8Array, batch, nodes },
    expected: floats(y, "out.y"),
    outputShape: y.shape,
    classes: network ? (golden.tensor("out.classes").data as Int32Array) : undefined,
  };
}

/** A case of family dih. */
export interface DihGolden {
  readonly shape: DihShape & { readonly imageSize: number; readonly classes: number };
  readonly params: Readonly<Record<string, Float32Array>>;
  readonly args: DihArguments & { readonly image: Float32Array; readonly time: Float32Array; readonly classes: Int32Array };
  readonly expected: Float32Array;
  readonly outputShape: readonly number[];
}

export function dihGolden(golden: Golden): DihGolden {
  const { config, params } = golden;
  const image = golden.tensor("in.img");
  const [batch, channels, size] = image.shape as [number, number, number, number];
  const y = golden.tensor("out.y");
  return {
    shape: {
      dim: number(config, "dim"),
      order: number(config, "order"),
      orderExpand: number(config, "order_expand"),
      ffwExpand: number(config, "ffw_expand"),
      layers: number(config, "n_layers"),
      channels,
      patch: number(config, "kernel_size"),
      registers: config["variant"] === "DiH++" ? number(config, "n_registers") : undefined,
      imageSize: number(config, "im_size"),
      classes: number(config, "n_classes"),
    },
    params,
    args: {
      image: floats(image, "in.img"),
      time: floats(golden.tensor("in.time"), "in.time"),
      classes: golden.tensor("in.cls").data as Int32Array,
      batch,
      size,
    },
    expected: floats(y, "out.y"),
    outputShape: y.shape,
  };
}

/** A case of family hlm. */
export interface HlmGolden {
  readonly config: HlmConfig;
  readonly weights: Readonly<Record<string, Float32Array>>;
  /** [B, n] */
  readonly tokenIds: Int32Array;
  readonly batch: number;
  readonly posOffset?: Int32Array;
  /** [B, n] */
  readonly attentionMask?: Float32Array;
  /** out.logits [B, n, V] */
  readonly logits: Float32Array;
  readonly logitsShape: readonly number[];
  readonly loss?: number;
}

export function hlmGolden(golden: Golden): HlmGolden {
  const { config } = golden;
  const ids = golden.tensor("in.ids");
  const [batch, length] = ids.shape as [number, number];
  const attentionMask = golden.has("in.attention_mask") ? floats(golden.tensor("in.attention_mask"), "in.attention_mask") : undefined;
  const mask = fullMask(golden);
  for (let i = 0; i < mask.length; i++) {
    const row = Math.floor(i / length);
    const expected = i % length <= row % length ? (attentionMask?.[row] ?? 1) : 0;
    if (mask[i] !== expected) throw new Error(`hlmGolden: ${golden.name} stores another mask than causal times attention mask, at ${i}`);
  }
  const logits = golden.tensor("out.logits");
  return {
    config: {
      vocabSize: number(config, "vocab_size"),
      dim: number(config, "dim"),
      layers: number(config, "n_layers"),
      contextLength: number(config, "context_length"),
      order: number(config, "order"),
      orderExpand: number(config, "order_expand"),
      ffwExpand: number(config, "ffw_expand"),
    },
    weights: golden.params,
    tokenIds: ids.data as Int32Array,
    batch,
    ...(golden.has("in.pos_offset") && { posOffset: golden.tensor("in.pos_offset").data as Int32Array }),
    ...(attentionMask && { attentionMask }),
    logits: floats(logits, "out.logits"),
    logitsShape: logits.shape,
    ...(golden.has("out.loss") && { loss: floats(golden.tensor("out.loss"), "out.loss")[0]! }),
  };
}

function number(config: Readonly<Record<string, unknown>>, key: string): number {
  const value = config[key];
  if (typeof value !== "number") throw new Error(`golden config: ${key} is ${String(value)}`);
  return value;
}

function floats(tensor: GoldenTensor, key: string): Float32Array {
  if (!(tensor.data instanceof Float32Array)) throw new Error(`golden tensor ${key} is not F32`);
  return tensor.data;
}

/** What the gradients of a pom or pom_rope case are of, and what they are: by parameter, `query` and, where there is one, `context`. */
export function pomGoldenGradients(
  entry: GoldenCase,
  golden: Golden,
): { readonly gradOutput: Float32Array; readonly expected: Record<string, Float32Array> } {
  const expected = entry.grads.map((key) => {
    const name = key.slice("grad.".length);
    return [{ "in.xq": "query", "in.xc": "context" }[name] ?? name, floats(golden.tensor(key), key)] as const;
  });
  return { gradOutput: floats(golden.tensor("in.G"), "in.G"), expected: Object.fromEntries(expected) };
}
