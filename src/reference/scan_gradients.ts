import { checkInteger } from "../checks.ts";
import { addScaled, checkLength } from "./arrays.ts";

/**
 * Totals [G, S, M] of S blocks in each of G batch rows -> the sum of all later blocks, for each block; carry [G, M] is what comes after the last.
 * With `segments`, totals of block-causal segments, whose queries divide by all tokens up to the end of their own: the sum of the quotients of
 * this segment and of all later ones.
 */
export function scanGradients(
  totals: ArrayLike<number>,
  sizes: {
    groups: number;
    blocks: number;
    momentDim: number;
    carry?: ArrayLike<number> | undefined;
    segments?: { length: number; rowTokens: number } | undefined;
  },
): Float64Array {
  const where = "scanGradients";
  const groups = checkInteger(where, "groups", sizes.groups, 1);
  const blocks = checkInteger(where, "blocks", sizes.blocks, 0);
  const width = checkInteger(where, "momentDim", sizes.momentDim, 1);
  checkLength(where, "totals", totals, groups * blocks * width, "G·S·M");
  if (sizes.carry) checkLength(where, "carry", sizes.carry, groups * width, "G·M");
  const { segments } = sizes;
  const out = new Float64Array(groups * blocks * width);
  const sum = new Float64Array(width);
  for (let g = 0; g < groups; g++) {
    sum.fill(0);
    if (sizes.carry) addScaled(sum, sizes.carry, g * width, 1);
    for (let s = blocks - 1; s >= 0; s--) {
      const at = (g * blocks + s) * width;
      if (!segments) out.set(sum, at);
      addScaled(sum, totals, at, segments ? 1 / Math.min((s + 1) * segments.length, segments.rowTokens) : 1);
      if (segments) out.set(sum, at);
    }
  }
  return out;
}
