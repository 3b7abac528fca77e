import { checkInteger, rangeError } from "../checks.ts";
import { checkLength } from "./arrays.ts";

/** Sizes of {@link decayMoments}: B, n and M. */
export interface DecaySizes {
  readonly batch: number;
  readonly length: number;
  /** M = order · E, E the number of factors: the same factors for every order. */
  readonly momentDim: number;
}

/** Sums `[B, M]` and the weights in them `[B, M]`, of all tokens so far. */
export interface DecayState {
  readonly sum: Float64Array;
  readonly count: Float64Array;
}

/**
 * Decayed means of moments m [B, n, M] with factors γ [E]: s_t = γ s_(t-1) + m_t, n_t = γ n_(t-1) + 1, h_t = s_t / n_t -> h [B, n, M] and the
 * state after the last token. γ = 1 gives the plain causal mean.
 */
export function decayMoments(
  m: ArrayLike<number>,
  factors: ArrayLike<number>,
  sizes: DecaySizes,
  initial?: DecayState,
): { h: Float64Array; state: DecayState } {
  const { batch, length, momentDim: M } = check("decayMoments", m, factors, sizes);
  const sum = initial ? Float64Array.from(initial.sum) : new Float64Array(batch * M);
  const count = initial ? Float64Array.from(initial.count) : new Float64Array(batch * M);
  const h = Float64Array.from(m, (value, i) => {
    const c = i % M;
    const at = Math.floor(i / (length * M)) * M + c;
    const factor = factors[c % factors.length]!;
    sum[at] = factor * sum[at]! + value;
    count[at] = factor * count[at]! + 1;
    return sum[at]! / count[at]!;
  });
  return { h, state: { sum, count } };
}

/** Gradients of the moments from those of their decayed means: dh [B, n, M] -> g [B, n, M], g_t = dh_t / n_t + γ g_(t+1). */
export function decayBackward(dh: ArrayLike<number>, factors: ArrayLike<number>, sizes: DecaySizes): Float64Array {
  const { batch, length, momentDim: M } = check("decayBackward", dh, factors, sizes);
  const out = new Float64Array(dh.length);
  for (let b = 0; b < batch; b++) {
    for (let c = 0; c < M; c++) {
      const factor = factors[c % factors.length]!;
      const counts = new Float64Array(length);
      for (let t = 0; t < length; t++) counts[t] = factor * (counts[t - 1] ?? 0) + 1;
      let later = 0;
      for (let t = length - 1; t >= 0; t--) {
        const i = (b * length + t) * M + c;
        later = dh[i]! / counts[t]! + factor * later;
        out[i] = later;
      }
    }
  }
  return out;
}

function check(where: string, values: ArrayLike<number>, factors: ArrayLike<number>, sizes: DecaySizes): DecaySizes {
  const batch = checkInteger(where, "batch", sizes.batch, 1);
  const length = checkInteger(where, "length", sizes.length, 1);
  const momentDim = checkInteger(where, "momentDim", sizes.momentDim, 1);
  checkLength(where, "values", values, batch * length * momentDim, "B·n·M");
  if (factors.length === 0 || momentDim % factors.length !== 0)
    throw rangeError(where, "factors", `have a number that divides momentDim = ${momentDim}`, factors.length);
  for (let i = 0; i < factors.length; i++) {
    const factor = factors[i]!;
    if (!(factor > 0 && factor <= 1)) throw rangeError(where, `factors[${i}]`, "be in (0, 1]", factor);
  }
  return sizes;
}
