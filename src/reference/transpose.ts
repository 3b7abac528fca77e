import { checkInteger } from "../checks.ts";
import { checkLength } from "./arrays.ts";

/** Columns [first, first + count) of w `[inner + 1, outer]`, times `scale` (default 1), transposed, with a last row of zeros for the bias -> `[count + 1, inner]`. */
export function transpose(
  w: ArrayLike<number>,
  sizes: { readonly inner: number; readonly outer: number; readonly first: number; readonly count: number; readonly scale?: number },
): Float64Array {
  const where = "transpose";
  const inner = checkInteger(where, "inner", sizes.inner, 1);
  const outer = checkInteger(where, "outer", sizes.outer, 1);
  const first = checkInteger(where, "first", sizes.first, 0, outer - 1);
  const count = checkInteger(where, "count", sizes.count, 1, outer - first);
  const { scale = 1 } = sizes;
  checkLength(where, "w", w, (inner + 1) * outer, "(inner + 1)·outer");
  const out = new Float64Array((count + 1) * inner);
  for (let c = 0; c < count; c++) for (let i = 0; i < inner; i++) out[c * inner + i] = scale * w[i * outer + first + c]!;
  return out;
}
