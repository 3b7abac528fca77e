import { checkInteger } from "../checks.ts";
import { addScaled, checkLength, loadRow, momentDim } from "./arrays.ts";
import { momentExpander } from "./moments.ts";
import type { HomParams, HomShape } from "./types.ts";

/**
 * Running sums inside blocks of tokens: x [B, N, D] -> prefix [B, N, M], row n = Σ of m from the first token of its block up to n itself,
 * and totals [B, ceil(N / blockTokens), M], the whole of each block.
 */
export function prefixMoments(
  x: ArrayLike<number>,
  params: HomParams,
  shape: HomShape,
  sizes: { batch: number; contextLength: number; blockTokens: number },
): { prefix: Float64Array; totals: Float64Array } {
  const where = "prefixMoments";
  const width = momentDim(where, shape);
  const batch = checkInteger(where, "batch", sizes.batch, 1);
  const tokens = checkInteger(where, "contextLength", sizes.contextLength, 0);
  const blockTokens = checkInteger(where, "blockTokens", sizes.blockTokens, 1);
  checkLength(where, "x", x, batch * tokens * shape.dim, "B·N·D");
  const blocks = Math.ceil(tokens / blockTokens);
  const expand = momentExpander(where, params, shape);
  const row = new Float64Array(shape.dim);
  const m = new Float64Array(width);
  const prefix = new Float64Array(batch * tokens * width);
  const totals = new Float64Array(batch * blocks * width);
  for (let b = 0; b < batch; b++) {
    for (let n = 0; n < tokens; n++) {
      const block = b * blocks + Math.floor(n / blockTokens);
      const running = totals.subarray(block * width, (block + 1) * width);
      loadRow(x, b * tokens + n, row);
      expand(row, m);
      addScaled(running, m, 0, 1);
      prefix.set(running, (b * tokens + n) * width);
    }
  }
  return { prefix, totals };
}
