import { checkInteger } from "../checks.ts";

/** What decides a draw of {@link sample}; the same numbers draw the same token. */
export interface SampleArguments {
  readonly vocabulary: number;
  /** 0 takes the largest logit. */
  readonly temperature: number;
  readonly topK: number;
  readonly seed: number;
  readonly step: number;
}

/** A 32-bit integer hash with low bias: two xorshift-multiply rounds, with constants found by search (C. Wellons, hash-prospector). */
function hash(value: number): number {
  let x = value >>> 0;
  x = Math.imul(x ^ (x >>> 16), 0x7feb352d);
  x = Math.imul(x ^ (x >>> 15), 0x846ca68b);
  return (x ^ (x >>> 16)) >>> 0;
}

/** An exponential number for each seed, step, batch row and index: counter-based, so that any order of evaluation agrees. */
export function exponential(seed: number, step: number, row: number, index: number): number {
  const bits = hash(hash(hash(hash(seed) + step) + row) + index);
  return -Math.log1p(-((bits >>> 9) + 0.5) / 8388608);
}

/**
 * The next token of each batch row of logits `[batch, V]`: argmax of logit / temperature - log E over the logits that reach the topK-th largest, E
 * exponential. This is a draw from their softmax (the Gumbel-max trick).
 */
export function sample(logits: ArrayLike<number>, { vocabulary, temperature, topK, seed, step }: SampleArguments): Uint32Array {
  const where = "sample";
  checkInteger(where, "vocabulary", vocabulary, 1);
  checkInteger(where, "topK", topK, 1);
  const batch = checkInteger(where, "batch", logits.length / vocabulary, 1);
  return Uint32Array.from({ length: batch }, (_, row) => {
    const own = Array.from({ length: vocabulary }, (_, i) => logits[row * vocabulary + i]!);
    const threshold = topK < vocabulary ? [...own].sort((a, b) => b - a)[topK - 1]! : -Infinity;
    let best = 0;
    let bestScore = -Infinity;
    own.forEach((logit, i) => {
      if (logit < threshold) return;
      const score = temperature === 0 ? logit : logit / temperature - Math.log(exponential(seed, step, row, i));
      if (score > bestScore) {
        best = i;
        bestScore = score;
      }
    });
    return best;
  });
}
