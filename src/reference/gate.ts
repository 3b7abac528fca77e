import { checkInteger, rangeError, raw } from "../checks.ts";
import { sigmoid } from "./activations.ts";
import { checkLength, loadRow, momentDim } from "./arrays.ts";
import { projection } from "./projection.ts";
import type { HomParams, HomShape } from "./types.ts";

/** r = sigmoid(x·se_projᵀ + b) ⊙ h[base …], one row: x [D], r [M] */
export type GateRow = (row: Float64Array, h: ArrayLike<number>, base: number, r: Float64Array) => void;

export function gateRow(where: string, params: HomParams, shape: HomShape): GateRow {
  const project = projection(where, params, "se_proj", shape.dim, momentDim(where, shape));
  return (row, h, base, r) => {
    project(row, r);
    for (let j = 0; j < r.length; j++) r[j] = sigmoid(r[j]!) * h[base + j]!;
  };
}

/** Selection: query [B, T, D], moments h [B, M] (one a batch row) or [B, T, M] (one a query) -> r [B, T, M]. */
export function gate(
  query: ArrayLike<number>,
  h: ArrayLike<number>,
  params: HomParams,
  shape: HomShape,
  sizes: { batch: number; queryLength: number },
): Float64Array {
  const where = "gate";
  const width = momentDim(where, shape);
  const batch = checkInteger(where, "batch", sizes.batch, 1);
  const queries = checkInteger(where, "queryLength", sizes.queryLength, 0);
  checkLength(where, "query", query, batch * queries * shape.dim, "B·T·D");
  const perQuery = momentsPerQuery(where, h, batch, queries, width);
  const row = new Float64Array(shape.dim);
  const gateOne = gateRow(where, params, shape);
  const out = new Float64Array(batch * queries * width);
  for (let i = 0; i < batch * queries; i++) {
    loadRow(query, i, row);
    gateOne(row, h, (perQuery ? i : Math.floor(i / queries)) * width, out.subarray(i * width, (i + 1) * width));
  }
  return out;
}

/** Whether h holds one row a query ([B, T, M]) rather than one a batch row ([B, M]). */
export function momentsPerQuery(where: string, h: ArrayLike<number>, batch: number, queries: number, width: number): boolean {
  if (h?.length === batch * width) return false;
  if (h?.length === batch * queries * width) return true;
  throw rangeError(where, "h", `hold B·M = ${batch * width} or B·T·M = ${batch * queries * width} numbers`, raw(`${h?.length}`));
}
