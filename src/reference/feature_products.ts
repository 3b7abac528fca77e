import { checkInteger } from "../checks.ts";
import { checkLength } from "./arrays.ts";

/**
 * y_t = x_t S + Σ_s a_ts u_s: rows x [B, N, H, I], `sums` S [B, blocks, H, R, W] of `featureSums`, and, if given, `local` scores a [B, N, H, blockTokens] of
 * `featureScores` for rows u of the same block [B, N, H, C]. I = R and C = W; or, with `transposed`, y_t = x_t Sᵀ + …, I = W and C = R. Returns [B, N, H, C].
 */
export function featureProducts(
  x: ArrayLike<number>,
  sums: ArrayLike<number>,
  sizes: {
    readonly batch: number;
    readonly length: number;
    readonly heads: number;
    readonly features: number;
    readonly width: number;
    readonly blockTokens: number;
    readonly transposed?: boolean | undefined;
  },
  local?: { readonly scores: ArrayLike<number>; readonly u: ArrayLike<number> },
): Float64Array {
  const where = "featureProducts";
  const { batch, length, heads, features, width, transposed = false } = sizes;
  const blockTokens = checkInteger(where, "blockTokens", sizes.blockTokens, 1);
  const blocks = Math.ceil(length / blockTokens);
  const [inner, columns] = transposed ? [width, features] : [features, width];
  checkLength(where, "x", x, batch * length * heads * inner, "B·N·H·I");
  checkLength(where, "sums", sums, batch * blocks * heads * features * width, "B·blocks·H·R·W");
  const out = new Float64Array(batch * length * heads * columns);
  for (let row = 0; row < batch * length; row++) {
    const t = row % length;
    const block = Math.floor(row / length) * blocks + Math.floor(t / blockTokens);
    for (let head = 0; head < heads; head++) {
      const base = (block * heads + head) * features * width;
      const at = row * heads + head;
      for (let c = 0; c < columns; c++) {
        let sum = 0;
        for (let i = 0; i < inner; i++) sum += x[at * inner + i]! * sums[base + (transposed ? c * width + i : i * width + c)]!;
        const first = t - (t % blockTokens);
        for (let s = first; local && s < Math.min(first + blockTokens, length); s++)
          sum += local.scores[at * blockTokens + s - first]! * local.u[((row - t + s) * heads + head) * columns + c]!;
        out[at * columns + c] = sum;
      }
    }
  }
  return out;
}
