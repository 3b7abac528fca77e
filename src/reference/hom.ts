import { checkInteger, checkObject } from "../checks.ts";
import { type AggregateArguments, type Aggregated, ARGUMENT_KEYS, aggregate } from "./aggregate.ts";
import { loadRow, momentDim } from "./arrays.ts";
import { momentExpander } from "./moments.ts";
import { selectRow } from "./select.ts";
import type { HomParams, HomShape } from "./types.ts";

/** What is added to the sum of a padding, length or full mask before dividing by it. */
export const MASK_EPSILON = 1e-7;

/** Query `[B, T, D]`, context `[B, N, D]`, lengths and mask of a call of {@link homReference}. */
export type HomArguments = AggregateArguments;

const PARAMETER_KEYS = ["ho_proj.weight", "ho_proj.bias", "se_proj.weight", "se_proj.bias", "ag_proj.weight", "ag_proj.bias"];

/** The HoM layer: y = (sigmoid(xq·se_projᵀ + b) ⊙ h)·ag_projᵀ + b with h the (masked) mean of the moments, [B, T, D]. */
export function homReference(shape: HomShape, params: HomParams, args: HomArguments, epsilon: number = MASK_EPSILON): Float64Array {
  const where = "homReference";
  checkObject(where, "params", params, PARAMETER_KEYS);
  checkObject(where, "arguments", args, ARGUMENT_KEYS);
  const { dim } = shape;
  const select = selectRow(where, params, shape);
  const row = new Float64Array(dim);
  const out = new Float64Array(args.query?.length ?? 0);
  aggregate(where, aggregated(where, shape, params, epsilon), args, (start, end, h, base) => {
    for (let i = start; i < end; i++) {
      loadRow(args.query, i, row);
      select(row, h, base, out.subarray(i * dim, (i + 1) * dim));
    }
  });
  return out;
}

/** The aggregated moments alone: h [B, T, M], one row a query token whatever the mask. */
export function homMoments(shape: HomShape, params: HomParams, args: HomArguments, epsilon: number = MASK_EPSILON): Float64Array {
  const where = "homMoments";
  checkObject(where, "arguments", args, ARGUMENT_KEYS);
  const width = momentDim(where, shape);
  const rows = checkInteger(where, "batch", args.batch, 1) * checkInteger(where, "queryLength", args.queryLength, 0);
  const out = new Float64Array(rows * width);
  aggregate(where, aggregated(where, shape, params, epsilon), args, (start, end, h, base) => {
    for (let i = start; i < end; i++) out.set(h.subarray(base, base + width), i * width);
  });
  return out;
}

function aggregated(where: string, shape: HomShape, params: HomParams, epsilon: number): Aggregated {
  return { dim: shape.dim, momentDim: momentDim(where, shape), expand: momentExpander(where, params, shape), epsilon };
}
