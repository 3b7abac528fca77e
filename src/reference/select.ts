import { checkInteger } from "../checks.ts";
import { checkLength, loadRow, momentDim } from "./arrays.ts";
import { gateRow, momentsPerQuery } from "./gate.ts";
import { projection } from "./projection.ts";
import type { HomParams, HomShape } from "./types.ts";

/** y = (sigmoid(x·se_projᵀ + b) ⊙ h[base …])·ag_projᵀ + b, one row: x [D], y [D] */
export type SelectRow = (row: Float64Array, h: ArrayLike<number>, base: number, y: Float64Array) => void;

export function selectRow(where: string, params: HomParams, shape: HomShape): SelectRow {
  const width = momentDim(where, shape);
  const gate = gateRow(where, params, shape);
  const project = projection(where, params, "ag_proj", width, shape.dim);
  const r = new Float64Array(width);
  return (row, h, base, y) => {
    gate(row, h, base, r);
    project(r, y);
  };
}

/** Selection and output: query [B, T, D], h [B, M] or [B, T, M] -> y [B, T, D]; `residual` [B, T, D] is added. */
export function select(
  query: ArrayLike<number>,
  h: ArrayLike<number>,
  params: HomParams,
  shape: HomShape,
  sizes: { batch: number; queryLength: number; residual?: ArrayLike<number> | undefined },
): Float64Array {
  const where = "select";
  const width = momentDim(where, shape);
  const batch = checkInteger(where, "batch", sizes.batch, 1);
  const queries = checkInteger(where, "queryLength", sizes.queryLength, 0);
  const size = batch * queries * shape.dim;
  checkLength(where, "query", query, size, "B·T·D");
  if (sizes.residual) checkLength(where, "residual", sizes.residual, size, "B·T·D");
  const perQuery = momentsPerQuery(where, h, batch, queries, width);
  const selectOne = selectRow(where, params, shape);
  const row = new Float64Array(shape.dim);
  const out = new Float64Array(size);
  for (let i = 0; i < batch * queries; i++) {
    loadRow(query, i, row);
    selectOne(row, h, (perQuery ? i : Math.floor(i / queries)) * width, out.subarray(i * shape.dim, (i + 1) * shape.dim));
  }
  if (sizes.residual) for (let i = 0; i < size; i++) out[i] = out[i]! + sizes.residual[i]!;
  return out;
}
