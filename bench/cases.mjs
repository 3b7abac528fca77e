// What is measured: groups of entries that take turns in the same rounds.
import { flops, matchFlops } from "homm-webgpu/baselines";

/** @typedef {import("./types.ts").Task} Task */
/** @typedef {import("./types.ts").LayerTask} LayerTask */
/** @typedef {import("./types.ts").AttentionTask} AttentionTask */
/** @typedef {import("./types.ts").RivalTask} RivalTask */
/**
 * `contender` is a bundle; `name` tells entries of a group apart; a baseline is the same code on easier work, a ceiling is the work alone that has to be done.
 * @typedef {{ name: string, contender: string, task: Task, role: "contender" | "baseline" | "ceiling" }} Entry
 */
/**
 * `series` of groups that differ in `size` only: from one it can be told how long the next will take.
 * @typedef {{ id: string, title: string, kind: "ceilings" | "layer" | "moments" | "decode" | "attention" | "rivals" | "scaling" | "create", entries: Entry[], series?: string, size?: number }} Group
 */

const PEERS = ["jax", "tfjs", "onnx"];

/** The layers of the targets. @satisfies {Record<string, Omit<LayerTask, "kind" | "mask">>} */
export const SHAPES = {
  A: { batch: 1, tokens: 256, dim: 128, order: 2, orderExpand: 4 },
  B: { batch: 1, tokens: 1_024, dim: 256, order: 2, orderExpand: 4 },
  C: { batch: 1, tokens: 4_096, dim: 128, order: 2, orderExpand: 2 },
  E: { batch: 1, tokens: 16_384, dim: 64, order: 4, orderExpand: 2 },
  F: { batch: 4, tokens: 1_024, dim: 128, order: 3, orderExpand: 2 },
};

/** @param {{ dim: number, order: number, orderExpand: number }} sizes */
export function momentDim({ dim, order, orderExpand }) {
  return order * orderExpand * dim;
}

/** FLOPs of the task's formula, a multiply-add counting 2; undefined where it has none. @param {Task} task */
export function flopsOf(task) {
  if (task.kind === "layer") {
    const tokens = task.batch * task.tokens;
    const M = momentDim(task);
    return 6 * tokens * task.dim * M + (tokens * M * (task.order - 1)) / task.order + tokens * M;
  }
  if (task.kind === "moments") {
    const tokens = task.batch * task.tokens;
    const M = momentDim(task);
    return 2 * tokens * task.dim * M + (tokens * M * (task.order - 1)) / task.order + tokens * M;
  }
  if (task.kind === "decode") return 6 * task.dim * momentDim(task);
  if (task.kind === "attention") {
    const { tokens, dim, causal } = task;
    return 8 * tokens * dim * dim + (causal ? 2 : 4) * tokens * tokens * dim;
  }
  if (task.kind === "rival") return flops(task.layer, { length: task.tokens, causal: task.causal });
  if (task.kind === "products") return task.shapes.reduce((sum, [rows, inner, outer]) => sum + 2 * rows * inner * outer, 0);
  if (task.kind === "matvec") return task.shapes.reduce((sum, [inner, outer]) => sum + 2 * inner * outer, 0);
  return undefined;
}

/** Bytes that have to move at least once: weights, inputs, output. @param {Task} task */
export function bytesOf(task) {
  if (task.kind === "layer") return 4 * (2 * task.batch * task.tokens * task.dim + 3 * task.dim * momentDim(task));
  if (task.kind === "moments") return 4 * (task.batch * task.tokens * task.dim + task.dim * momentDim(task));
  if (task.kind === "decode") return 4 * 3 * task.dim * momentDim(task);
  if (task.kind === "attention") return 4 * (2 * task.tokens * task.dim + 4 * task.dim * task.dim);
  if (task.kind === "rival") {
    const { dim } = task.layer;
    const weights = task.layer.layer === "pom" ? 3 * task.layer.expand * dim * dim : 4 * dim * dim;
    return 4 * (2 * task.tokens * dim + weights);
  }
  return undefined;
}

/** The token count from which a layer needs fewer FLOPs than unmasked attention of its width. @param {LayerTask} task */
export function crossoverTokens(task) {
  const perToken = (flopsOf(task) ?? Number.NaN) / task.tokens;
  return (perToken - 8 * task.dim ** 2) / (4 * task.dim);
}

/** @param {Omit<LayerTask, "kind">} shape */
function describeShape({ batch, tokens, dim, order, orderExpand }) {
  return `${batch > 1 ? `batch ${batch}, ` : ""}N=${tokens.toLocaleString("en-US")} D=${dim} k=${order} e=${orderExpand}`;
}

/** @param {Omit<LayerTask, "kind">} shape @param {LayerTask["kind"]} [kind] @returns {LayerTask} */
function layer(shape, kind = "layer") {
  return { kind, ...shape };
}

/** @param {string} id @param {Omit<LayerTask, "kind" | "mask">} shape @param {LayerTask["mask"]} mask @returns {Group} */
function layerGroup(id, shape, mask) {
  const task = layer({ ...shape, mask });
  const rows = shape.batch * shape.tokens;
  const M = momentDim(shape);
  const peers = mask === "lengths" ? [] : PEERS;
  return {
    id,
    title: `the layer, ${describeShape(task)}${mask === "none" ? "" : `, ${mask}`}`,
    kind: "layer",
    ...(mask === "causal" && { series: "causal layer", size: shape.tokens }),
    entries: [
      { name: "homm", contender: "homm", task, role: "contender" },
      ...peers.map((name) => /** @type {Entry} */ ({ name, contender: name, task, role: "contender" })),
      ...(mask === "none"
        ? []
        : [/** @type {Entry} */ ({ name: "homm unmasked", contender: "homm", task: layer({ ...shape, mask: "none" }), role: "baseline" })]),
      {
        name: "three products",
        contender: "plain",
        task: {
          kind: "products",
          shapes: [
            [rows, shape.dim, M],
            [rows, shape.dim, M],
            [rows, M, shape.dim],
          ],
        },
        role: "ceiling",
      },
    ],
  };
}

/** @param {string} id @param {Omit<LayerTask, "kind" | "mask">} shape @returns {Group} */
function momentsGroup(id, shape) {
  const task = layer({ ...shape, mask: "none" }, "moments");
  return {
    id,
    title: `moments and merge_moments alone, ${describeShape(task)}`,
    kind: "moments",
    entries: [
      { name: "homm", contender: "homm", task, role: "contender" },
      {
        name: "product",
        contender: "plain",
        task: { kind: "products", shapes: [[shape.batch * shape.tokens, shape.dim, momentDim(shape)]] },
        role: "ceiling",
      },
    ],
  };
}

/** @param {number} dim @returns {Group} */
function decodeGroup(dim) {
  const sizes = { dim, order: 2, orderExpand: 2 };
  /** @type {Task} */
  const task = { kind: "decode", ...sizes };
  const M = momentDim(sizes);
  return {
    id: `decode-${dim}`,
    title: `decoding one token, D=${dim} k=2 e=2`,
    kind: "decode",
    entries: [
      ...["homm", ...PEERS].map((name) => /** @type {Entry} */ ({ name, contender: name, task, role: "contender" })),
      {
        name: "matrix-vector",
        contender: "plain",
        task: {
          kind: "matvec",
          shapes: [
            [dim, 2 * M],
            [M, dim],
          ],
        },
        role: "ceiling",
      },
    ],
  };
}

/** @param {number} tokens @param {boolean} causal @returns {Group} */
function attentionGroup(tokens, causal) {
  const dim = 128;
  /** @type {AttentionTask} */
  const task = { kind: "attention", tokens, dim, heads: 2, causal };
  const hom = layer({ batch: 1, tokens, dim, order: 2, orderExpand: 2, mask: causal ? "causal" : "none" });
  return {
    id: `attention${causal ? "-causal" : ""}-${tokens}`,
    title: `softmax attention${causal ? ", causal" : ""}, N=${tokens.toLocaleString("en-US")} D=${dim}, 2 heads, and the layer of the same width (k=2 e=2)`,
    kind: "attention",
    series: causal ? "causal attention" : "attention",
    size: tokens,
    entries: [
      { name: "homm", contender: "homm", task: hom, role: "contender" },
      { name: "AttentionLayer", contender: "rivals", task, role: "contender" },
      ...PEERS.map((name) => /** @type {Entry} */ ({ name: `${name} attention`, contender: name, task, role: "contender" })),
      { name: "onnx attention in parts", contender: "onnx", task: { ...task, form: "operations" }, role: "contender" },
    ],
  };
}

/** Features a head of the rivals at equal width: twice the channels of a head. */
const FEATURES = 128;
const FEATURE_MAPS = /** @type {const} */ ({ Performer: "favor", RFA: "rfa", RM: "maclaurin_exp" });

/**
 * The layer and its rivals on as many tokens: all of the same width, the polynomial mixer with as many moments as the layer, then those of linear cost so large that they need
 * as many FLOPs as attention does.
 * @param {number} tokens @param {boolean} causal @returns {Group}
 */
function rivalsGroup(tokens, causal) {
  const dim = 128;
  const attention = /** @type {const} */ ({ layer: "attention", dim, heads: 2 });
  const shape = { length: tokens, causal };
  const mask = causal ? "causal" : "none";
  const hom = { batch: 1, tokens, dim, order: 2 };
  const large = matchFlops(attention, "hom", { ...shape, fixed: { order: 2 } }).config;
  /** @param {string} name @param {RivalTask["layer"]} rival @returns {Entry} */
  const entry = (name, rival) => ({ name, contender: "rivals", task: { kind: "rival", tokens, causal, layer: rival }, role: "contender" });
  return {
    id: `rivals${causal ? "-causal" : ""}-${tokens}`,
    title: `the layer and its rivals${causal ? ", causal" : ""}, N=${tokens.toLocaleString("en-US")} D=${dim}, 2 heads; the same width, then the FLOPs of attention`,
    kind: "rivals",
    series: causal ? "causal rivals" : "rivals",
    size: tokens,
    entries: [
      { name: "HoM", contender: "homm", task: layer({ ...hom, orderExpand: 2, mask }), role: "contender" },
      entry("PoM", { layer: "pom", dim, degree: 2, expand: 4 }),
      entry("attention", attention),
      ...Object.entries(FEATURE_MAPS).map(([name, featureMap]) =>
        entry(name, { ...attention, layer: "linear_attention", featureMap, features: FEATURES }),
      ),
      { name: "HoM, equal FLOPs", contender: "homm", task: layer({ ...hom, orderExpand: large.orderExpand, mask }), role: "contender" },
      entry("PoM, equal FLOPs", matchFlops(attention, "pom", { ...shape, fixed: { degree: 2 } }).config),
      ...Object.entries(FEATURE_MAPS).map(([name, featureMap]) =>
        entry(`${name}, equal FLOPs`, matchFlops(attention, "linear_attention", { ...shape, fixed: { featureMap } }).config),
      ),
    ],
  };
}

/** @param {readonly number[]} lengths @returns {Group} */
function scalingGroup(lengths) {
  const shape = { batch: 1, dim: 16, order: 2, orderExpand: 2, mask: /** @type {const} */ ("none") };
  return {
    id: "scaling",
    title: "the layer at D=16 k=2 e=2, by the number of tokens",
    kind: "scaling",
    entries: lengths.map((tokens) => ({ name: `homm ${tokens}`, contender: "homm", task: layer({ ...shape, tokens }), role: "contender" })),
  };
}

/** @param {boolean} quick @returns {Group} */
function ceilingsGroup(quick) {
  return {
    id: "ceilings",
    title: "what this adapter can do at best",
    kind: "ceilings",
    entries: [
      { name: "multiply-add", contender: "plain", task: { kind: "multiply_add" }, role: "ceiling" },
      { name: "product", contender: "plain", task: { kind: "products", shapes: [quick ? [256, 128, 1_024] : [1_024, 256, 2_048]] }, role: "ceiling" },
      { name: "copy", contender: "plain", task: { kind: "copy", bytes: quick ? 16 << 20 : 64 << 20 }, role: "ceiling" },
      { name: "matrix-vector", contender: "plain", task: { kind: "matvec", shapes: [[768, 6_144]] }, role: "ceiling" },
    ],
  };
}

/** Every group, in the order in which they run. @param {{ quick: boolean }} options @returns {Group[]} */
export function allGroups({ quick }) {
  const small = { batch: 1, tokens: 1_024, dim: 128, order: 2, orderExpand: 2 };
  const shapes = Object.entries(SHAPES).filter(([name]) => !quick || name === "A" || name === "C");
  const lengths = quick ? [256, 1_024] : [128, 256, 512, 1_024, 2_048, 4_096, 8_192, 16_384];
  return [
    ceilingsGroup(quick),
    ...shapes.map(([name, shape]) => momentsGroup(`moments-${name}`, shape)),
    ...shapes.map(([name, shape]) => layerGroup(`layer-${name}`, shape, "none")),
    layerGroup("causal-1024", small, "causal"),
    ...(quick ? [] : [layerGroup("causal-16384", { ...small, tokens: 16_384 }, "causal")]),
    ...(quick ? [] : [layerGroup("padding-C", SHAPES.C, "padding")]),
    ...(quick ? [] : [layerGroup("lengths-C", SHAPES.C, "lengths")]),
    ...(quick ? [256] : [256, 768]).map(decodeGroup),
    ...lengths.map((tokens) => attentionGroup(tokens, false)),
    ...lengths.filter((tokens) => quick || tokens % 1_024 === 0).map((tokens) => attentionGroup(tokens, true)),
    ...(quick ? [256, 1_024] : [256, 1_024, 4_096, 16_384]).flatMap((tokens) => [rivalsGroup(tokens, false), rivalsGroup(tokens, true)]),
    scalingGroup(quick ? [1_024, 4_096, 16_384] : [1_024, 4_096, 16_384, 65_536, 262_144]),
    {
      id: "create",
      title: `from nothing compiled to the first result, ${describeShape({ ...SHAPES.A, mask: "none" })}`,
      kind: "create",
      entries: ["homm", ...PEERS].map((name) => ({
        name,
        contender: name,
        task: layer({ ...SHAPES.A, mask: "none" }),
        role: "contender",
      })),
    },
  ];
}

/** Whether a filter like `A,moments` names this group: its id, or one of the words in it. @param {string} id @param {string | undefined} filter */
export function isChosen(id, filter) {
  if (filter === undefined) return true;
  return filter.split(",").some((part) => part === id || id.split("-").includes(part) || id.startsWith(`${part}-`));
}
