import { checkInteger } from "../checks.ts";
import { addScaled, checkLength } from "./arrays.ts";

/**
 * Exclusive scan over blocks: totals [B, S, M] (+ carry [B, M]) -> before [B, S, M], before_s = carry + Σ_{r < s} totals_r,
 * and total [B, M], the carry of what follows.
 */
export function scanMoments(
  totals: ArrayLike<number>,
  sizes: { batch: number; blocks: number; momentDim: number; carry?: ArrayLike<number> | undefined },
): { before: Float64Array; total: Float64Array } {
  const where = "scanMoments";
  const batch = checkInteger(where, "batch", sizes.batch, 1);
  const blocks = checkInteger(where, "blocks", sizes.blocks, 0);
  const width = checkInteger(where, "momentDim", sizes.momentDim, 1);
  checkLength(where, "totals", totals, batch * blocks * width, "B·S·M");
  if (sizes.carry) checkLength(where, "carry", sizes.carry, batch * width, "B·M");
  const before = new Float64Array(batch * blocks * width);
  const total = new Float64Array(batch * width);
  for (let b = 0; b < batch; b++) {
    const running = total.subarray(b * width, (b + 1) * width);
    if (sizes.carry) addScaled(running, sizes.carry, b * width, 1);
    for (let s = 0; s < blocks; s++) {
      before.set(running, (b * blocks + s) * width);
      addScaled(running, totals, (b * blocks + s) * width, 1);
    }
  }
  return { before, total };
}
