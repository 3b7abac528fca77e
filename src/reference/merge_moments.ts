import { checkInteger } from "../checks.ts";
import { addScaled, checkLength } from "./arrays.ts";

/**
 * Block sums [G, S, M] (G batch rows or segments, S blocks each) + carry [G, M] -> sums [G, M], or means when `counts` [G] is given:
 * h = Σ / (epsilon + count), and 0 where that denominator is 0 (nothing was seen).
 */
export function mergeMoments(
  blockSums: ArrayLike<number>,
  sizes: {
    groups: number;
    blocks: number;
    momentDim: number;
    carry?: ArrayLike<number> | undefined;
    counts?: ArrayLike<number> | undefined;
    epsilon?: number | undefined;
  },
): Float64Array {
  const where = "mergeMoments";
  const groups = checkInteger(where, "groups", sizes.groups, 1);
  const blocks = checkInteger(where, "blocks", sizes.blocks, 0);
  const width = checkInteger(where, "momentDim", sizes.momentDim, 1);
  checkLength(where, "blockSums", blockSums, groups * blocks * width, "G·S·M");
  if (sizes.carry) checkLength(where, "carry", sizes.carry, groups * width, "G·M");
  if (sizes.counts) checkLength(where, "counts", sizes.counts, groups, "G");
  const out = new Float64Array(groups * width);
  for (let g = 0; g < groups; g++) {
    const sum = out.subarray(g * width, (g + 1) * width);
    if (sizes.carry) addScaled(sum, sizes.carry, g * width, 1);
    for (let s = 0; s < blocks; s++) addScaled(sum, blockSums, (g * blocks + s) * width, 1);
    if (sizes.counts) normalise(sum, sizes.counts[g]!, sizes.epsilon ?? 0);
  }
  return out;
}

/** sum /= epsilon + count, in place; 0 where nothing was seen */
export function normalise(sum: Float64Array, count: number, epsilon: number): void {
  const denominator = epsilon + count;
  for (let j = 0; j < sum.length; j++) sum[j] = denominator === 0 ? 0 : sum[j]! / denominator;
}
