import { checkInteger } from "../checks.ts";
import { rowCount } from "./arrays.ts";

/** Values [rows, H·d] -> [rows, H, d + 1], with a one behind each head's. */
export function appendOnes(v: ArrayLike<number>, { heads, headDim }: { readonly heads: number; readonly headDim: number }): Float64Array {
  const where = "appendOnes";
  checkInteger(where, "heads", heads, 1);
  checkInteger(where, "headDim", headDim, 1);
  const count = rowCount(where, "v", v, heads * headDim) * heads;
  return Float64Array.from({ length: count * (headDim + 1) }, (_, i) => {
    const d = i % (headDim + 1);
    return d === headDim ? 1 : v[Math.floor(i / (headDim + 1)) * headDim + d]!;
  });
}
