// What a task has to give, in float64: some rows of it, so that large shapes can be checked too.
import { drawFeatures } from "homm-webgpu/baselines";
import { attention as attend, HomStream, homReference, PomStream, pomReference, randomFeatures } from "homm-webgpu/reference";
import { attentionParams, layerParams, normals, paddingMask, pomParams, rivalParams, SEEDS } from "./data.mjs";

/** @typedef {import("./types.ts").Task} Task */
/** @typedef {{ rows: number[], width: number, length: number, values: ArrayLike<number> }} Expected rows of `width` numbers of an output of `length` */

/** Tokens that a decoding task is checked after, and after how many its tokens repeat. */
export const DECODED = 11;
const DISTINCT = 8;

/** Up to `count` rows of `total`, both ends among them. @param {number} total @param {number} count */
export function someRows(total, count) {
  const n = Math.min(total, count);
  return [...new Set(Array.from({ length: n }, (_, i) => Math.round((i * (total - 1)) / Math.max(1, n - 1))))];
}

/** @param {Float32Array} values @param {readonly number[]} rows @param {number} width */
function gather(values, rows, width) {
  const result = new Float64Array(rows.length * width);
  for (const [i, row] of rows.entries()) result.set(values.subarray(row * width, (row + 1) * width), i * width);
  return result;
}

/** Undefined for a task whose result means nothing. @param {Task} task @returns {Expected | undefined} */
export function expected(task) {
  switch (task.kind) {
    case "layer":
    case "moments":
      return task.mask === "causal" ? causalLayer(task) : layer(task);
    case "decode": {
      const tokens = normals(SEEDS.tokens, DISTINCT * task.dim);
      const stream = new HomStream(sizesOf(task), layerParams(SEEDS.params, task));
      let values = new Float64Array();
      for (let t = 0; t < DECODED; t++)
        values = new Float64Array(stream.step(tokens.subarray((t % DISTINCT) * task.dim, ((t % DISTINCT) + 1) * task.dim)));
      return { rows: [0], width: task.dim, length: task.dim, values };
    }
    case "attention":
      return attention(task);
    case "rival":
      if (task.layer.layer === "pom") return task.causal ? causalMixer(task.tokens, task.layer) : mixer(task.tokens, task.layer);
      return rival(task.tokens, task.causal, task.layer);
    case "products": {
      const [rows = 0, inner = 0, outer = 0] = task.shapes.at(-1) ?? [];
      return product(rows, inner, outer, someRows(rows, 16));
    }
    case "matvec": {
      const [inner = 0, outer = 0] = task.shapes.at(-1) ?? [];
      return product(1, inner, outer, [0]);
    }
    case "copy": {
      const rows = someRows(task.bytes / 16, 64);
      return { rows, width: 4, length: task.bytes / 4, values: gather(normals(SEEDS.tokens, task.bytes / 4), rows, 4) };
    }
    case "multiply_add":
      return undefined;
  }
}

/** @param {import("./types.ts").LayerSizes} task */
function sizesOf({ dim, order, orderExpand }) {
  return { dim, order, orderExpand };
}

/** @param {import("./types.ts").LayerTask} task @returns {Expected} */
function layer(task) {
  const { batch, tokens, dim, mask } = task;
  const context = normals(SEEDS.tokens, batch * tokens * dim);
  const inRow = someRows(tokens, Math.ceil(64 / batch));
  const rows = Array.from({ length: batch }, (_, b) => inRow.map((row) => b * tokens + row)).flat();
  const masks = {
    none: undefined,
    causal: undefined,
    padding: { padding: paddingMask(SEEDS.mask, batch * tokens) },
    lengths: { lengths: new Array(batch).fill(tokens - 3) },
  };
  const values = homReference(sizesOf(task), layerParams(SEEDS.params, task), {
    query: gather(context, rows, dim),
    context,
    mask: masks[mask],
    batch,
    queryLength: inRow.length,
    contextLength: tokens,
  });
  return { rows, width: dim, length: batch * tokens * dim, values };
}

/** The causal row t is what a stream answers to token t after having seen tokens 0 to t. @param {import("./types.ts").LayerTask} task @returns {Expected} */
function causalLayer(task) {
  const { batch, tokens, dim } = task;
  if (batch !== 1) throw new Error("the causal check has no batch");
  const x = normals(SEEDS.tokens, tokens * dim);
  const stream = new HomStream(sizesOf(task), layerParams(SEEDS.params, task));
  const rows = someRows(tokens, 64);
  return { rows, width: dim, length: tokens * dim, values: answers(stream, x, rows, dim) };
}

/** What a stream of the tokens up to each of these rows answers to it. @param {HomStream | PomStream} stream @param {Float32Array} x @param {readonly number[]} rows @param {number} dim */
function answers(stream, x, rows, dim) {
  const values = new Float64Array(rows.length * dim);
  let seen = 0;
  for (const [i, row] of rows.entries()) {
    stream.append(x.subarray(seen * dim, (row + 1) * dim));
    seen = row + 1;
    values.set(stream.query(x.subarray(row * dim, (row + 1) * dim)), i * dim);
  }
  return values;
}

/** @param {number} tokens @param {import("homm-webgpu/baselines").PomCost} layer @returns {Expected} */
function mixer(tokens, layer) {
  const { dim } = layer;
  const context = normals(SEEDS.tokens, tokens * dim);
  const rows = someRows(tokens, 64);
  const query = gather(context, rows, dim);
  const shape = { batch: 1, queryLength: rows.length, contextLength: tokens };
  const values = pomReference(mixerSizes(layer), pomParams(SEEDS.params, layer), { query, context, ...shape });
  return { rows, width: dim, length: tokens * dim, values };
}

/** @param {number} tokens @param {import("homm-webgpu/baselines").PomCost} layer @returns {Expected} */
function causalMixer(tokens, layer) {
  const { dim } = layer;
  const rows = someRows(tokens, 64);
  const stream = new PomStream(mixerSizes(layer), pomParams(SEEDS.params, layer));
  return { rows, width: dim, length: tokens * dim, values: answers(stream, normals(SEEDS.tokens, tokens * dim), rows, dim) };
}

/** @param {import("homm-webgpu/baselines").PomCost} layer */
function mixerSizes({ dim, degree, expand }) {
  return { dim, degree, expand };
}

/** @param {number} rows @param {number} inner @param {number} outer @param {number[]} wanted @returns {Expected} */
function product(rows, inner, outer, wanted) {
  const x = normals(SEEDS.tokens, rows * inner);
  const w = normals(SEEDS.params, inner * outer, 1 / Math.sqrt(inner));
  const values = new Float64Array(wanted.length * outer);
  for (const [i, row] of wanted.entries()) {
    for (let k = 0; k < inner; k++) {
      const v = x[row * inner + k] ?? 0;
      for (let j = 0; j < outer; j++) values[i * outer + j] = (values[i * outer + j] ?? 0) + v * (w[k * outer + j] ?? 0);
    }
  }
  return { rows: wanted, width: outer, length: rows * outer, values };
}

/** y = W x for rows of x, W stored [out, in]. @param {ArrayLike<number>} x @param {Float32Array} weight @param {number} dim */
function project(x, weight, dim) {
  const rows = x.length / dim;
  const y = new Float64Array(x.length);
  for (let row = 0; row < rows; row++) {
    for (let j = 0; j < dim; j++) {
      let sum = 0;
      for (let i = 0; i < dim; i++) sum += (x[row * dim + i] ?? 0) * (weight[j * dim + i] ?? 0);
      y[row * dim + j] = sum;
    }
  }
  return y;
}

/**
 * Some rows of a layer of homm-webgpu/baselines: their scores with all keys, then the means.
 * @param {number} tokens @param {boolean} causal @param {import("homm-webgpu/baselines").AttentionCost | import("homm-webgpu/baselines").LinearAttentionCost} layer @returns {Expected}
 */
function rival(tokens, causal, layer) {
  const { dim } = layer;
  const x = normals(SEEDS.tokens, tokens * dim);
  const w = rivalParams(SEEDS.params, dim);
  const rows = someRows(tokens, 16);
  const q = project(gather(x, rows, dim), w["q_proj.weight"], dim);
  const [k, v] = [project(x, w["k_proj.weight"], dim), project(x, w["v_proj.weight"], dim)];
  const mixed = layer.layer === "attention" ? softmaxRows(q, k, v, rows, causal, layer) : linearRows(q, k, v, rows, causal, layer);
  return { rows, width: dim, length: tokens * dim, values: project(mixed, w["out_proj.weight"], dim) };
}

/**
 * @param {Float64Array} q @param {Float64Array} k @param {Float64Array} v @param {readonly number[]} rows @param {boolean} causal
 * @param {{ dim: number, heads: number }} layer
 */
function softmaxRows(q, k, v, rows, causal, { dim, heads }) {
  const mixed = new Float64Array(q.length);
  const tokens = k.length / dim;
  for (const [i, row] of rows.entries()) {
    const one = { batch: 1, queryLength: 1, keyLength: tokens, heads, headDim: dim / heads, causal, firstQuery: row };
    mixed.set(attend(q.subarray(i * dim, (i + 1) * dim), k, v, one), i * dim);
  }
  return mixed;
}

/**
 * @param {Float64Array} q @param {Float64Array} k @param {Float64Array} v @param {readonly number[]} rows @param {boolean} causal
 * @param {import("homm-webgpu/baselines").LinearAttentionCost} layer
 */
function linearRows(q, k, v, rows, causal, { dim, heads, featureMap, features }) {
  const config = { dim, heads, featureMap, features };
  const vectors = Object.fromEntries(Object.entries(drawFeatures(config, SEEDS.features)).map(([key, values]) => [key, Float64Array.from(values)]));
  const headDim = dim / heads;
  const phiQ = randomFeatures(q, vectors, config, { asQuery: true });
  const mixed = new Float64Array(q.length);
  const totals = new Float64Array(rows.length * heads);
  // One key at a time: the features of all of them would not fit.
  for (let n = 0; n < k.length / dim; n++) {
    const phiK = randomFeatures(k.subarray(n * dim, (n + 1) * dim), vectors, config);
    for (const [i, row] of rows.entries()) {
      if (causal && n > row) continue;
      for (let head = 0; head < heads; head++) {
        let score = 0;
        for (let f = 0; f < features; f++) score += (phiQ[(i * heads + head) * features + f] ?? 0) * (phiK[head * features + f] ?? 0);
        totals[i * heads + head] = (totals[i * heads + head] ?? 0) + score;
        const at = i * dim + head * headDim;
        for (let d = 0; d < headDim; d++) mixed[at + d] = (mixed[at + d] ?? 0) + score * (v[n * dim + head * headDim + d] ?? 0);
      }
    }
  }
  return mixed.map((value, i) => value / (totals[Math.floor(i / headDim)] ?? Number.NaN));
}

/** @param {import("./types.ts").AttentionTask} task @returns {Expected} */
function attention({ tokens, dim, heads, causal }) {
  const x = normals(SEEDS.tokens, tokens * dim);
  const w = attentionParams(SEEDS.params, dim);
  const rows = someRows(tokens, 16);
  const [q, k, v] = [project(gather(x, rows, dim), w.q, dim), project(x, w.k, dim), project(x, w.v, dim)];
  const width = dim / heads;
  const mixed = new Float64Array(rows.length * dim);
  for (const [i, row] of rows.entries()) {
    for (let head = 0; head < heads; head++) {
      const at = head * width;
      const scores = Array.from({ length: causal ? row + 1 : tokens }, (_, t) => {
        let sum = 0;
        for (let d = 0; d < width; d++) sum += (q[i * dim + at + d] ?? 0) * (k[t * dim + at + d] ?? 0);
        return sum / Math.sqrt(width);
      });
      const largest = scores.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
      const shares = scores.map((score) => Math.exp(score - largest));
      const total = shares.reduce((a, b) => a + b, 0);
      for (const [t, share] of shares.entries()) {
        for (let d = 0; d < width; d++) mixed[i * dim + at + d] = (mixed[i * dim + at + d] ?? 0) + (share / total) * (v[t * dim + at + d] ?? 0);
      }
    }
  }
  return { rows, width: dim, length: tokens * dim, values: project(mixed, w.o, dim) };
}
