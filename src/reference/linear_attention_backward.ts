import { checkInteger } from "../checks.ts";
import { checkLength } from "./arrays.ts";
import { type AttentionBackwardArguments, type AttentionGradients, projectedBackward } from "./attention_backward.ts";
import { DENOMINATOR_MIN, linearMix } from "./linear_attention.ts";
import { type LinearAttentionShape, randomFeatures } from "./random_features.ts";
import { randomFeaturesBackward } from "./random_features_backward.ts";
import type { Weights } from "./types.ts";

/** Gradients of queries, keys and values, each [B, N, H·d]. */
export interface MixGradients {
  readonly q: Float64Array;
  readonly k: Float64Array;
  readonly v: Float64Array;
}

/**
 * Gradients of y_t = Σ_s a_ts v_s / Σ_s a_ts, a_ts = φ(q_t)·φ(k_s), for a gradient of y [B, N, H·d]. With the denominator n_t,
 *
 *   g_t = dy_t / n_t,   da_ts = g_t·(v_s - y_t),   dv_s = Σ_t a_ts g_t,   dφ(q_t) = Σ_s da_ts φ(k_s),   dφ(k_s) = Σ_t da_ts φ(q_t)
 *
 * over the pairs where t sees s. A token whose denominator is nearer to 0 than DENOMINATOR_MIN adds nothing: its features have underflown.
 */
export function linearMixBackward(
  q: ArrayLike<number>,
  k: ArrayLike<number>,
  v: ArrayLike<number>,
  gradContext: ArrayLike<number>,
  params: Weights,
  shape: LinearAttentionShape,
  sizes: { readonly batch: number; readonly length: number; readonly causal?: boolean | undefined },
): MixGradients {
  const where = "linearMixBackward";
  const { heads, dim, features } = shape;
  const batch = checkInteger(where, "batch", sizes.batch, 1);
  const length = checkInteger(where, "length", sizes.length, 1);
  const { causal = false } = sizes;
  for (const [name, values] of Object.entries({ q, k, v, gradContext })) checkLength(where, name, values, batch * length * dim, "B·N·D");
  const headDim = checkInteger(where, "dim / heads", dim / heads, 1);
  const phiQ = randomFeatures(q, params, shape, { asQuery: true });
  const phiK = randomFeatures(k, params, shape);
  const [gradPhiQ, gradPhiK] = [new Float64Array(phiQ.length), new Float64Array(phiK.length)];
  const gradV = new Float64Array(batch * length * dim);
  const scores = new Float64Array(length);
  const y = new Float64Array(headDim);
  for (let t = 0; t < batch * length; t++) {
    const first = t - (t % length);
    const seen = causal ? (t % length) + 1 : length;
    for (let head = 0; head < heads; head++) {
      const [qAt, yAt] = [(t * heads + head) * features, t * dim + head * headDim];
      let denominator = 0;
      y.fill(0);
      for (let s = 0; s < seen; s++) {
        const [kAt, vAt] = [((first + s) * heads + head) * features, (first + s) * dim + head * headDim];
        let score = 0;
        for (let i = 0; i < features; i++) score += phiQ[qAt + i]! * phiK[kAt + i]!;
        scores[s] = score;
        denominator += score;
        for (let d = 0; d < headDim; d++) y[d] = y[d]! + score * v[vAt + d]!;
      }
      if (Math.abs(denominator) < DENOMINATOR_MIN) continue;
      for (let s = 0; s < seen; s++) {
        const [kAt, vAt] = [((first + s) * heads + head) * features, (first + s) * dim + head * headDim];
        let ofScore = 0;
        for (let d = 0; d < headDim; d++) {
          const share = gradContext[yAt + d]! / denominator;
          ofScore += share * (v[vAt + d]! - y[d]! / denominator);
          gradV[vAt + d] = gradV[vAt + d]! + scores[s]! * share;
        }
        for (let i = 0; i < features; i++) {
          gradPhiQ[qAt + i] = gradPhiQ[qAt + i]! + ofScore * phiK[kAt + i]!;
          gradPhiK[kAt + i] = gradPhiK[kAt + i]! + ofScore * phiQ[qAt + i]!;
        }
      }
    }
  }
  return {
    q: randomFeaturesBackward(q, gradPhiQ, params, shape, { asQuery: true }),
    k: randomFeaturesBackward(k, gradPhiK, params, shape),
    v: gradV,
  };
}

/** Gradients of `linearAttentionReference` for a gradient of its output; the random vectors are constants. */
export function linearAttentionBackward(shape: LinearAttentionShape, params: Weights, args: AttentionBackwardArguments): AttentionGradients {
  return projectedBackward(
    "linearAttentionBackward",
    shape,
    params,
    args,
    (q, k, v) => linearMix(q, k, v, params, shape, args),
    (q, k, v, gradContext) => linearMixBackward(q, k, v, gradContext, params, shape, args),
  );
}
