import { checkInteger, rangeError } from "../checks.ts";
import { activationFunction } from "./activations.ts";
import { addScaled, checkLength, loadRow, momentDim, rowCount } from "./arrays.ts";
import { projection } from "./projection.ts";
import type { HomParams, HomShape } from "./types.ts";

/** m [M] of one token x [D] */
export type Expander = (row: Float64Array, m: Float64Array) => void;
/** The same where moments depend on the token's position; `token` is its row of x. */
export type TokenExpander = (row: Float64Array, m: Float64Array, token: number) => void;

/** z = act(x·ho_projᵀ + b) in k chunks of width e·D; m₁ = z₁, m_i = z_i ⊙ m_{i-1}. */
export function momentExpander(where: string, params: HomParams, shape: HomShape): Expander {
  const width = shape.orderExpand * shape.dim;
  const project = projection(where, params, "ho_proj", shape.dim, momentDim(where, shape));
  const act = activationFunction(shape.activation);
  return (row, m) => {
    project(row, m);
    for (let j = 0; j < width; j++) m[j] = act(m[j]!);
    for (let j = width; j < m.length; j++) m[j] = act(m[j]!) * m[j - width]!;
  };
}

/** Moments of every token: x [rows, D] -> m [rows, M]. */
export function expandMoments(x: ArrayLike<number>, params: HomParams, shape: HomShape): Float64Array {
  const where = "expandMoments";
  const width = momentDim(where, shape);
  const rows = rowCount(where, "x", x, shape.dim);
  const expand = momentExpander(where, params, shape);
  const row = new Float64Array(shape.dim);
  const out = new Float64Array(rows * width);
  for (let n = 0; n < rows; n++) {
    loadRow(x, n, row);
    expand(row, out.subarray(n * width, (n + 1) * width));
  }
  return out;
}

/** Σ_{start <= n < end} weight_n · m_n over rows of x [rows, D]: [M]. `weights` [rows]; without it plain sums. */
export function segmentMoments(
  x: ArrayLike<number>,
  params: HomParams,
  shape: HomShape,
  segment: { start: number; end: number; weights?: ArrayLike<number> | undefined },
): Float64Array {
  const where = "segmentMoments";
  const width = momentDim(where, shape);
  const rows = rowCount(where, "x", x, shape.dim);
  const end = checkInteger(where, "end", segment.end, 0, rows);
  const start = checkInteger(where, "start", segment.start, 0, end);
  if (segment.weights) checkLength(where, "weights", segment.weights, rows, "rows");
  const sum = new Float64Array(width);
  addTokens(x, momentExpander(where, params, shape), start, end, segment.weights, sum, new Float64Array(shape.dim), new Float64Array(width));
  return sum;
}

/** Sums over blocks of tokens: x [B, N, D] -> [B, ceil(N / blockTokens), M]; `weights` [B, N] is a padding mask. */
export function moments(
  x: ArrayLike<number>,
  params: HomParams,
  shape: HomShape,
  sizes: { batch: number; contextLength: number; blockTokens?: number | undefined; weights?: ArrayLike<number> | undefined },
): Float64Array {
  const where = "moments";
  const width = momentDim(where, shape);
  const batch = checkInteger(where, "batch", sizes.batch, 1);
  const tokens = checkInteger(where, "contextLength", sizes.contextLength, 0);
  const blockTokens = checkInteger(where, "blockTokens", sizes.blockTokens ?? Math.max(tokens, 1), 1);
  checkLength(where, "x", x, batch * tokens * shape.dim, "B·N·D");
  if (sizes.weights) checkLength(where, "weights", sizes.weights, batch * tokens, "B·N");
  const blocks = Math.ceil(tokens / blockTokens);
  const expand = momentExpander(where, params, shape);
  const row = new Float64Array(shape.dim);
  const m = new Float64Array(width);
  const out = new Float64Array(batch * blocks * width);
  for (let b = 0; b < batch; b++) {
    for (let block = 0; block < blocks; block++) {
      const index = b * blocks + block;
      const start = b * tokens + block * blockTokens;
      const end = Math.min(start + blockTokens, (b + 1) * tokens);
      addTokens(x, expand, start, end, sizes.weights, out.subarray(index * width, (index + 1) * width), row, m);
    }
  }
  return out;
}

/** sum += Σ weight_n · m_n; row and m are scratch. Returns Σ weight_n. */
export function addTokens(
  x: ArrayLike<number>,
  expand: TokenExpander,
  start: number,
  end: number,
  weights: ArrayLike<number> | undefined,
  sum: Float64Array,
  row: Float64Array,
  m: Float64Array,
): number {
  if (end < start) throw rangeError("addTokens", "end", `be at least start = ${start}`, end);
  let total = 0;
  for (let n = start; n < end; n++) {
    const weight = weights ? weights[n]! : 1;
    total += weight;
    if (weight === 0) continue;
    loadRow(x, n, row);
    expand(row, m, n);
    addScaled(sum, m, 0, weight);
  }
  return total;
}
