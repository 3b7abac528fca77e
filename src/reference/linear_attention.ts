import { checkInteger } from "../checks.ts";
import { checkLength } from "./arrays.ts";
import { type AttentionArguments, projected } from "./attention.ts";
import { type LinearAttentionShape, randomFeatures } from "./random_features.ts";
import type { Weights } from "./types.ts";

/** Denominators nearer to 0 than this are moved there, keeping their sign: a row whose features underflow gives 0 and not NaN. */
export const DENOMINATOR_MIN = 1e-30;

/** Sizes of features [B, N, H, R] and values [B, N, H·d]. */
export interface FeatureSizes {
  readonly batch: number;
  readonly length: number;
  readonly heads: number;
  readonly headDim: number;
  readonly features: number;
}

function checkSizes(where: string, sizes: FeatureSizes) {
  return {
    batch: checkInteger(where, "batch", sizes.batch, 1),
    length: checkInteger(where, "length", sizes.length, 1),
    heads: checkInteger(where, "heads", sizes.heads, 1),
    headDim: checkInteger(where, "headDim", sizes.headDim, 1),
    features: checkInteger(where, "features", sizes.features, 1),
  };
}

/**
 * What linear attention keeps of a block of tokens: Σ φ(k)_i v and Σ φ(k)_i, from features [B, N, H, R] and values [B, N, H·d].
 * Returns `sums` [B, blocks, H, R, d] and `weights` [B, blocks, H, R].
 */
export function featureSums(
  phi: ArrayLike<number>,
  v: ArrayLike<number>,
  sizes: FeatureSizes & { readonly blockTokens: number },
): { sums: Float64Array; weights: Float64Array } {
  const where = "featureSums";
  const { batch, length, heads, headDim, features } = checkSizes(where, sizes);
  const blockTokens = checkInteger(where, "blockTokens", sizes.blockTokens, 1);
  checkLength(where, "phi", phi, batch * length * heads * features, "B·N·H·R");
  checkLength(where, "v", v, batch * length * heads * headDim, "B·N·H·d");
  const blocks = Math.ceil(length / blockTokens);
  const sums = new Float64Array(batch * blocks * heads * features * headDim);
  const weights = new Float64Array(batch * blocks * heads * features);
  for (let row = 0; row < batch * length; row++) {
    const block = Math.floor(row / length) * blocks + Math.floor((row % length) / blockTokens);
    for (let head = 0; head < heads; head++) {
      for (let i = 0; i < features; i++) {
        const at = (block * heads + head) * features + i;
        const value = phi[(row * heads + head) * features + i]!;
        weights[at] = weights[at]! + value;
        for (let d = 0; d < headDim; d++) sums[at * headDim + d] = sums[at * headDim + d]! + value * v[(row * heads + head) * headDim + d]!;
      }
    }
  }
  return { sums, weights };
}

/**
 * φ(q_t)·φ(k_s) of the tokens s of t's block up to t itself, or with `later` from t on, 0 for the others: features [B, N, H, R] ->
 * [B, N, H, blockTokens].
 */
export function featureScores(
  phiQ: ArrayLike<number>,
  phiK: ArrayLike<number>,
  sizes: FeatureSizes & { readonly blockTokens: number; readonly later?: boolean | undefined },
): Float64Array {
  const where = "featureScores";
  const { batch, length, heads, features } = checkSizes(where, sizes);
  const blockTokens = checkInteger(where, "blockTokens", sizes.blockTokens, 1);
  checkLength(where, "phiQ", phiQ, batch * length * heads * features, "B·N·H·R");
  checkLength(where, "phiK", phiK, batch * length * heads * features, "B·N·H·R");
  const out = new Float64Array(batch * length * heads * blockTokens);
  for (let row = 0; row < batch * length; row++) {
    const within = (row % length) % blockTokens;
    const end = sizes.later ? Math.min(blockTokens, within + length - (row % length)) : within + 1;
    for (let head = 0; head < heads; head++) {
      for (let s = sizes.later ? within : 0; s < end; s++) {
        let sum = 0;
        const [q, k] = [(row * heads + head) * features, ((row - within + s) * heads + head) * features];
        for (let i = 0; i < features; i++) sum += phiQ[q + i]! * phiK[k + i]!;
        out[(row * heads + head) * blockTokens + s] = sum;
      }
    }
  }
  return out;
}

/**
 * y_t = (φ(q_t) S + Σ_s a_ts v_s) / (φ(q_t)·z + Σ_s a_ts): features of queries [B, N, H, R], sums and weights [B, blocks, H, R(, d)] of what the
 * tokens of a block see of others, and, if given, `local` scores a [B, N, H, blockTokens] (of `featureScores`) for the values of their own block.
 */
export function featureAttention(
  phiQ: ArrayLike<number>,
  state: { readonly sums: ArrayLike<number>; readonly weights: ArrayLike<number> },
  sizes: FeatureSizes & { readonly blockTokens: number },
  local?: { readonly scores: ArrayLike<number>; readonly v: ArrayLike<number> },
): Float64Array {
  const where = "featureAttention";
  const { batch, length, heads, headDim, features } = checkSizes(where, sizes);
  const blockTokens = checkInteger(where, "blockTokens", sizes.blockTokens, 1);
  const blocks = Math.ceil(length / blockTokens);
  checkLength(where, "phiQ", phiQ, batch * length * heads * features, "B·N·H·R");
  checkLength(where, "sums", state.sums, batch * blocks * heads * features * headDim, "B·blocks·H·R·d");
  checkLength(where, "weights", state.weights, batch * blocks * heads * features, "B·blocks·H·R");
  const out = new Float64Array(batch * length * heads * headDim);
  const sum = new Float64Array(headDim);
  for (let row = 0; row < batch * length; row++) {
    const block = Math.floor(row / length) * blocks + Math.floor((row % length) / blockTokens);
    const within = (row % length) % blockTokens;
    for (let head = 0; head < heads; head++) {
      sum.fill(0);
      let denominator = 0;
      const add = (weight: number, total: number, values: ArrayLike<number>, base: number) => {
        denominator += total;
        for (let d = 0; d < headDim; d++) sum[d] = sum[d]! + weight * values[base + d]!;
      };
      for (let i = 0; i < features; i++) {
        const value = phiQ[(row * heads + head) * features + i]!;
        const at = (block * heads + head) * features + i;
        add(value, value * state.weights[at]!, state.sums, at * headDim);
      }
      for (let s = 0; local && s <= within; s++) {
        const score = local.scores[(row * heads + head) * blockTokens + s]!;
        add(score, score, local.v, ((row - within + s) * heads + head) * headDim);
      }
      const guarded = guard(denominator);
      for (let d = 0; d < headDim; d++) out[(row * heads + head) * headDim + d] = sum[d]! / guarded;
    }
  }
  return out;
}

/** The denominator, at least DENOMINATOR_MIN away from 0. */
export function guard(denominator: number): number {
  if (Math.abs(denominator) >= DENOMINATOR_MIN) return denominator;
  return denominator < 0 ? -DENOMINATOR_MIN : DENOMINATOR_MIN;
}

/**
 * Self-attention with K(q, k) = φ(q)·φ(k) in place of the exponential, in time linear in N: [B, N, D] -> [B, N, D]. Parameters: those of
 * `attentionReference`, and `omega`, or `rademacher` and `degrees` (see `randomFeatures`).
 */
export function linearAttentionReference(shape: LinearAttentionShape, params: Weights, args: AttentionArguments): Float64Array {
  return projected("linearAttentionReference", shape, params, args, (q, k, v) => linearMix(q, k, v, params, shape, args));
}

/** Queries, keys and values [B, N, H·d] -> what linear attention makes of them, [B, N, H·d]. */
export function linearMix(
  q: ArrayLike<number>,
  k: ArrayLike<number>,
  v: Float64Array,
  params: Weights,
  shape: LinearAttentionShape,
  { batch, length, causal }: Omit<AttentionArguments, "x">,
): Float64Array {
  const { features, heads, dim } = shape;
  const sizes = { batch, length, heads, headDim: dim / heads, features };
  const [phiQ, phiK] = [randomFeatures(q, params, shape, { asQuery: true }), randomFeatures(k, params, shape)];
  if (!causal) return featureAttention(phiQ, featureSums(phiK, v, { ...sizes, blockTokens: length }), { ...sizes, blockTokens: length });
  // The sums grow by a token a step.
  const out = new Float64Array(v.length);
  for (let b = 0; b < batch; b++) {
    const sums = new Float64Array(features * dim);
    const weights = new Float64Array(heads * features);
    for (let t = b * length; t < (b + 1) * length; t++) {
      const one = { ...sizes, batch: 1, length: 1, blockTokens: 1 };
      const [from, to] = [t * heads * features, (t + 1) * heads * features];
      const token = featureSums(phiK.subarray(from, to), v.subarray(t * dim, (t + 1) * dim), one);
      for (let i = 0; i < sums.length; i++) sums[i] = sums[i]! + token.sums[i]!;
      for (let i = 0; i < weights.length; i++) weights[i] = weights[i]! + token.weights[i]!;
      out.set(featureAttention(phiQ.subarray(from, to), { sums, weights }, one), t * dim);
    }
  }
  return out;
}
