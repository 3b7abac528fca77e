// Inputs and weights from seeds. Only exact arithmetic: a page and Node get the same bits, so that one reference serves both.

/** Numbers of mean 0 and variance 1 (sums of four uniform ones), times `scale`. @param {number} seed @param {number} length @param {number} [scale] */
export function normals(seed, length, scale = 1) {
  let state = seed >>> 0;
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  const factor = scale * Math.sqrt(3);
  const values = new Float32Array(length);
  for (let i = 0; i < length; i++) values[i] = (next() + next() + next() + next() - 2) * factor;
  return values;
}

/** Parameters of a layer with pre-activations of about unit variance. @param {number} seed @param {{ dim: number, order: number, orderExpand: number }} config */
export function layerParams(seed, { dim, order, orderExpand }) {
  const width = order * orderExpand * dim;
  return {
    "ho_proj.weight": normals(seed + 1, width * dim, 1 / Math.sqrt(dim)),
    "ho_proj.bias": normals(seed + 2, width, 0.5),
    "se_proj.weight": normals(seed + 3, width * dim, 1 / Math.sqrt(dim)),
    "se_proj.bias": normals(seed + 4, width, 0.5),
    "ag_proj.weight": normals(seed + 5, dim * width, 1 / Math.sqrt(width)),
    "ag_proj.bias": normals(seed + 6, dim, 0.5),
  };
}

/** The four projections of softmax attention, each `[D, D]` stored [out, in], without biases. @param {number} seed @param {number} dim */
export function attentionParams(seed, dim) {
  const weight = (/** @type {number} */ i) => normals(seed + i, dim * dim, 1 / Math.sqrt(dim));
  return { q: weight(1), k: weight(2), v: weight(3), o: weight(4) };
}

/**
 * What a layer of homm-webgpu/baselines needs, its random vectors apart: queries and keys a quarter as long as those of `attentionParams`, so that estimates of either sign have
 * sums well away from 0.
 * @param {number} seed @param {number} dim
 */
export function rivalParams(seed, dim) {
  const { q, k, v, o } = attentionParams(seed, dim);
  const short = (/** @type {Float32Array} */ weight) => weight.map((value) => value / 4);
  return { "q_proj.weight": short(q), "k_proj.weight": short(k), "v_proj.weight": v, "out_proj.weight": o };
}

/**
 * Parameters of a polynomial mixer without groups, with pre-activations of about unit variance: moments, then gates, in `qc_proj`.
 * @param {number} seed @param {{ dim: number, degree: number, expand: number }} config
 */
export function pomParams(seed, { dim, degree, expand }) {
  const width = expand * dim;
  return {
    "qc_proj.weight": normals(seed + 1, 2 * width * dim, 1 / Math.sqrt(dim)),
    se_bias: normals(seed + 2, width, 0.5),
    po_coeff: normals(seed + 3, width * degree),
    "ag_proj.weight": normals(seed + 4, dim * width, 1 / Math.sqrt(width)),
  };
}

/** 1 for tokens that count, about four in five. @param {number} seed @param {number} length */
export function paddingMask(seed, length) {
  return Uint8Array.from(normals(seed, length), (value) => (value > -0.85 ? 1 : 0));
}

/** `[rows, columns]` -> `[columns, rows]`. @param {Float32Array} values @param {number} rows @param {number} columns */
export function transposed(values, rows, columns) {
  const result = new Float32Array(values.length);
  for (let i = 0; i < rows; i++) for (let j = 0; j < columns; j++) result[j * rows + i] = values[i * columns + j] ?? 0;
  return result;
}

export const SEEDS = { params: 1, tokens: 100, mask: 200, features: 300 };
