import { checkInteger } from "../checks.ts";
import { checkLength } from "./arrays.ts";

/** Sums of rows: x [outer, count, inner] -> [outer, inner], over the axis in the middle. */
export function sumRows(x: ArrayLike<number>, sizes: { readonly outer: number; readonly count: number; readonly inner: number }): Float64Array {
  const where = "sumRows";
  const { outer, count, inner } = sizes;
  for (const [name, size] of Object.entries(sizes)) checkInteger(where, name, size, 1);
  checkLength(where, "x", x, outer * count * inner, "outer·count·inner");
  const out = new Float64Array(outer * inner);
  for (let o = 0; o < outer; o++) {
    for (let i = 0; i < count; i++) for (let c = 0; c < inner; c++) out[o * inner + c]! += x[(o * count + i) * inner + c]!;
  }
  return out;
}
