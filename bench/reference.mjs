// What a task has to give, in float64: some rows of it, so that large shapes can be checked too.
import { HomStream, homReference } from "homm-webgpu/reference";
import { attentionParams, layerParams, normals, paddingMask, SEEDS } from "./data.mjs";

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
  const values = new Float64Array(rows.length * dim);
  let seen = 0;
  for (const [i, row] of rows.entries()) {
    stream.append(x.subarray(seen * dim, (row + 1) * dim));
    seen = row + 1;
    values.set(stream.query(x.subarray(row * dim, (row + 1) * dim)), i * dim);
  }
  return { rows, width: dim, length: tokens * dim, values };
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
