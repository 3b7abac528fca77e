import { checkInteger } from "../checks.ts";
import { addScaled, checkLength } from "./arrays.ts";

/**
 * Gradients of the sums that queries read, rows [G, T, M], in blocks of `blockTokens`: totals [G, ceil(T / blockTokens), M], and in suffix [G, T, M]
 * for each token n the sum over the queries of its block that see it: those from the first of n's group of `ahead` on.
 */
export function sumGradients(
  rows: ArrayLike<number>,
  sizes: { groups: number; queryLength: number; momentDim: number; blockTokens: number; ahead?: number | undefined },
): { totals: Float64Array; suffix: Float64Array } {
  const where = "sumGradients";
  const groups = checkInteger(where, "groups", sizes.groups, 1);
  const queries = checkInteger(where, "queryLength", sizes.queryLength, 0);
  const width = checkInteger(where, "momentDim", sizes.momentDim, 1);
  const blockTokens = checkInteger(where, "blockTokens", sizes.blockTokens, 1);
  const ahead = checkInteger(where, "ahead", sizes.ahead ?? 1, 1, blockTokens);
  checkLength(where, "rows", rows, groups * queries * width, "G·T·M");
  const blocks = Math.ceil(queries / blockTokens);
  const totals = new Float64Array(groups * blocks * width);
  const suffix = new Float64Array(groups * queries * width);
  for (let g = 0; g < groups; g++) {
    for (let t = 0; t < queries; t++) {
      const block = Math.floor(t / blockTokens);
      const index = g * blocks + block;
      addScaled(totals.subarray(index * width, (index + 1) * width), rows, (g * queries + t) * width, 1);
      // Query t is seen by its group and by the earlier ones of the block.
      const end = Math.min((Math.floor(t / ahead) + 1) * ahead, (block + 1) * blockTokens, queries);
      for (let n = block * blockTokens; n < end; n++) {
        const to = (g * queries + n) * width;
        addScaled(suffix.subarray(to, to + width), rows, (g * queries + t) * width, 1);
      }
    }
  }
  return { totals, suffix };
}
