import { checkInteger } from "../checks.ts";
import { checkLength, rowCount } from "./arrays.ts";
import { DENOMINATOR_MIN, guard } from "./linear_attention.ts";

/**
 * Through the quotient y = Σ_s a_s v_s / n, n = Σ_s a_s, of linear attention: `products` [rows, H, d + 1] are the sum and n, `gradY` [rows, H·d]. Returns y
 * [rows, H·d] and `shares` [rows, H, d + 1] of g = dy / n and h = -dy·y / n: with them da_s = g·v_s + h. Both are 0 where n is nearer to 0 than DENOMINATOR_MIN.
 */
export function featureAttentionBackward(
  products: ArrayLike<number>,
  gradY: ArrayLike<number>,
  { heads, headDim }: { readonly heads: number; readonly headDim: number },
): { y: Float64Array; shares: Float64Array } {
  const where = "featureAttentionBackward";
  checkInteger(where, "headDim", headDim, 1);
  const count = rowCount(where, "products", products, heads * (headDim + 1)) * heads;
  checkLength(where, "gradY", gradY, count * headDim, "rows·H·d");
  const y = new Float64Array(count * headDim);
  const shares = new Float64Array(products.length);
  for (let i = 0; i < count; i++) {
    const [from, to] = [i * headDim, i * (headDim + 1)];
    const denominator = products[to + headDim]!;
    const inverse = Math.abs(denominator) < DENOMINATOR_MIN ? 0 : 1 / denominator;
    for (let d = 0; d < headDim; d++) {
      y[from + d] = products[to + d]! / guard(denominator);
      shares[to + d] = gradY[from + d]! * inverse;
      shares[to + headDim] = shares[to + headDim]! - shares[to + d]! * y[from + d]!;
    }
  }
  return { y, shares };
}
