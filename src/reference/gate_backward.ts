import { checkInteger } from "../checks.ts";
import { sigmoid } from "./activations.ts";
import { checkLength, loadRow, momentDim } from "./arrays.ts";
import { momentsPerQuery } from "./gate.ts";
import { projection } from "./projection.ts";
import type { HomParams, HomShape } from "./types.ts";

/** One row: x [D], moments h[base …] and dr [M] -> r [M], the gradients of the logits [M] and of h [M]. */
export type GateBackwardRow = (
  row: Float64Array,
  h: ArrayLike<number>,
  base: number,
  dr: Float64Array,
  out: { r: Float64Array; gradLogits: Float64Array; gradMoments: Float64Array },
) => void;

/** s = sigmoid(x·se_projᵀ + b), r = s ⊙ h: dlogit = dr ⊙ h ⊙ s(1 - s), dh = dr ⊙ s. `between` computes dr once r is known. */
export function gateBackwardRow(
  where: string,
  params: HomParams,
  shape: HomShape,
  between?: (r: Float64Array, dr: Float64Array) => void,
): GateBackwardRow {
  const project = projection(where, params, "se_proj", shape.dim, momentDim(where, shape));
  return (row, h, base, dr, { r, gradLogits, gradMoments }) => {
    project(row, gradLogits);
    for (let j = 0; j < dr.length; j++) r[j] = sigmoid(gradLogits[j]!) * h[base + j]!;
    between?.(r, dr);
    for (let j = 0; j < dr.length; j++) {
      const logit = gradLogits[j]!;
      gradMoments[j] = dr[j]! * sigmoid(logit);
      // 1 - s as the sigmoid of the other sign, which does not cancel
      gradLogits[j] = gradMoments[j]! * h[base + j]! * sigmoid(-logit);
    }
  };
}

/**
 * Backward of the selection: query [B, T, D], moments h [B, M] or [B, T, M], gradients of the gated moments [B, T, M] -> gated moments, gradients of
 * the logits, and gradients of the sums that a query's moments are, divided by `divisors` [B, T]; all [B, T, M].
 */
export function gateBackward(
  query: ArrayLike<number>,
  h: ArrayLike<number>,
  gradGated: ArrayLike<number>,
  params: HomParams,
  shape: HomShape,
  sizes: { batch: number; queryLength: number; divisors?: ArrayLike<number> | undefined },
): { gated: Float64Array; gradLogits: Float64Array; gradSums: Float64Array } {
  const where = "gateBackward";
  const width = momentDim(where, shape);
  const batch = checkInteger(where, "batch", sizes.batch, 1);
  const queries = checkInteger(where, "queryLength", sizes.queryLength, 0);
  const rows = batch * queries;
  checkLength(where, "query", query, rows * shape.dim, "B·T·D");
  checkLength(where, "gradGated", gradGated, rows * width, "B·T·M");
  if (sizes.divisors) checkLength(where, "divisors", sizes.divisors, rows, "B·T");
  const perQuery = momentsPerQuery(where, h, batch, queries, width);
  const backward = gateBackwardRow(where, params, shape);
  const row = new Float64Array(shape.dim);
  const dr = new Float64Array(width);
  const [gated, gradLogits, gradSums] = [new Float64Array(rows * width), new Float64Array(rows * width), new Float64Array(rows * width)];
  for (let i = 0; i < rows; i++) {
    const of = (array: Float64Array) => array.subarray(i * width, (i + 1) * width);
    loadRow(query, i, row);
    loadRow(gradGated, i, dr);
    const gradMoments = of(gradSums);
    backward(row, h, (perQuery ? i : Math.floor(i / queries)) * width, dr, { r: of(gated), gradLogits: of(gradLogits), gradMoments });
    const divisor = sizes.divisors?.[i] ?? 1;
    for (let j = 0; j < width; j++) gradMoments[j] = gradMoments[j]! / divisor;
  }
  return { gated, gradLogits, gradSums };
}
