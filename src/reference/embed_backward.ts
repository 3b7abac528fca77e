import { checkInteger } from "../checks.ts";
import { checkLength, rowCount } from "./arrays.ts";

/** Gradient of a table [keys, D] for that of rows looked up in it: x [rows, D], keyOf [rows] -> [keys, D]; with `initial` of that size, added to it. */
export function embedBackward(
  x: ArrayLike<number>,
  keyOf: ArrayLike<number>,
  sizes: { readonly keys: number; readonly dim: number; readonly initial?: ArrayLike<number> | undefined },
): Float64Array {
  const where = "embedBackward";
  const keys = checkInteger(where, "keys", sizes.keys, 1);
  const dim = checkInteger(where, "dim", sizes.dim, 1);
  const rows = rowCount(where, "x", x, dim);
  checkLength(where, "keyOf", keyOf, rows, "rows");
  const out = sizes.initial ? Float64Array.from(checkLength(where, "initial", sizes.initial, keys * dim, "keys·dim")) : new Float64Array(keys * dim);
  for (let r = 0; r < rows; r++) {
    const key = checkInteger(where, `keyOf[${r}]`, keyOf[r], 0, keys - 1);
    for (let d = 0; d < dim; d++) out[key * dim + d] = out[key * dim + d]! + x[r * dim + d]!;
  }
  return out;
}
