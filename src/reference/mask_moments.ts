import { checkInteger, rangeError, raw } from "../checks.ts";
import { addScaled, checkLength } from "./arrays.ts";

/**
 * Weighted sums of a full mask: m [B, N, M], mask [B, T, N] or [1, T, N] (broadcast) -> sums [B, T, M], sums_t = Σ_n mask_tn · m_n,
 * and weights [B, T], Σ_n mask_tn. A Uint8Array is boolean: non-zero means use.
 */
export function maskMoments(
  m: ArrayLike<number>,
  mask: ArrayLike<number>,
  sizes: { batch: number; queryLength: number; contextLength: number; momentDim: number },
): { sums: Float64Array; weights: Float64Array } {
  const where = "maskMoments";
  const batch = checkInteger(where, "batch", sizes.batch, 1);
  const queries = checkInteger(where, "queryLength", sizes.queryLength, 0);
  const tokens = checkInteger(where, "contextLength", sizes.contextLength, 0);
  const width = checkInteger(where, "momentDim", sizes.momentDim, 1);
  checkLength(where, "m", m, batch * tokens * width, "B·N·M");
  const maskStride = fullMaskStride(where, mask, batch, queries, tokens);
  const boolean = mask instanceof Uint8Array;
  const sums = new Float64Array(batch * queries * width);
  const weights = new Float64Array(batch * queries);
  for (let b = 0; b < batch; b++) {
    for (let t = 0; t < queries; t++) {
      const sum = sums.subarray((b * queries + t) * width, (b * queries + t + 1) * width);
      let total = 0;
      for (let n = 0; n < tokens; n++) {
        const value = mask[b * maskStride + t * tokens + n]!;
        const weight = boolean && value !== 0 ? 1 : value;
        total += weight;
        if (weight !== 0) addScaled(sum, m, (b * tokens + n) * width, weight);
      }
      weights[b * queries + t] = total;
    }
  }
  return { sums, weights };
}

/** Distance between the masks of two batch rows: T·N, or 0 where one mask serves all. */
export function fullMaskStride(where: string, mask: ArrayLike<number>, batch: number, queries: number, tokens: number): number {
  const one = queries * tokens;
  if (mask?.length === batch * one) return batch === 1 ? 0 : one;
  if (mask?.length === one) return 0;
  throw rangeError(where, "mask.full", `hold B·T·N = ${batch * one} or, for every batch row alike, T·N = ${one} numbers`, raw(`${mask?.length}`));
}
