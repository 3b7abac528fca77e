import { checkInteger } from "../checks.ts";
import { checkLength, rowCount } from "./arrays.ts";

/**
 * Gradient of y = x·W + b for the gradient dy of y: x [rows, inner], dy [rows, outer] -> [inner + 1, outer], as the weights are packed: that of W,
 * then that of b. With `initial` of that size, added to it.
 */
export function weightGradient(
  x: ArrayLike<number>,
  dy: ArrayLike<number>,
  sizes: { readonly inner: number; readonly outer: number; readonly initial?: ArrayLike<number> | undefined },
): Float64Array {
  const where = "weightGradient";
  const inner = checkInteger(where, "inner", sizes.inner, 1);
  const outer = checkInteger(where, "outer", sizes.outer, 1);
  const rows = rowCount(where, "x", x, inner);
  checkLength(where, "dy", dy, rows * outer, "rows·outer");
  const size = (inner + 1) * outer;
  const out = sizes.initial ? Float64Array.from(checkLength(where, "initial", sizes.initial, size, "(inner + 1)·outer")) : new Float64Array(size);
  for (let r = 0; r < rows; r++) {
    for (let i = 0; i <= inner; i++) {
      const value = i < inner ? x[r * inner + i]! : 1;
      for (let o = 0; o < outer; o++) out[i * outer + o] = out[i * outer + o]! + value * dy[r * outer + o]!;
    }
  }
  return out;
}
