import { checkInteger, checkOneOf } from "../checks.ts";
import { activationFunction, LINEAR_ACTIVATION_NAMES, type LinearActivation } from "./activations.ts";
import { checkLength, loadRow, rowCount, toFloat64 } from "./arrays.ts";
import { matvec } from "./projection.ts";

/** y = act(x·Wᵀ + b) + residual: x [rows, inDim], weight [outDim, inDim], bias [outDim] or undefined, residual [rows, outDim] -> [rows, outDim]. */
export function linear(
  x: ArrayLike<number>,
  weight: ArrayLike<number>,
  bias: ArrayLike<number> | undefined,
  sizes: { inDim: number; outDim: number; activation?: LinearActivation | undefined; residual?: ArrayLike<number> | undefined },
): Float64Array {
  const where = "linear";
  const inDim = checkInteger(where, "inDim", sizes.inDim, 1);
  const outDim = checkInteger(where, "outDim", sizes.outDim, 1);
  const act = activationFunction(checkOneOf(where, "activation", sizes.activation ?? "identity", LINEAR_ACTIVATION_NAMES));
  const rows = rowCount(where, "x", x, inDim);
  const w = toFloat64(checkLength(where, "weight", weight, outDim * inDim, "outDim·inDim"));
  const b = bias ? toFloat64(checkLength(where, "bias", bias, outDim, "outDim")) : new Float64Array(outDim);
  const residual = sizes.residual && checkLength(where, "residual", sizes.residual, rows * outDim, "rows·outDim");
  const row = new Float64Array(inDim);
  const out = new Float64Array(rows * outDim);
  for (let r = 0; r < rows; r++) {
    const y = out.subarray(r * outDim, (r + 1) * outDim);
    loadRow(x, r, row);
    matvec(w, b, row, y);
    for (let o = 0; o < outDim; o++) y[o] = act(y[o]!) + (residual ? residual[r * outDim + o]! : 0);
  }
  return out;
}
