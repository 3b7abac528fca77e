import { checkInteger, rangeError, typeError } from "../checks.ts";

export interface SamplingOptions {
  /** 0 takes the likeliest token; 1 samples from the model's distribution. Default 1. */
  readonly temperature?: number;
  /** Sample among the k likeliest tokens only. */
  readonly topK?: number;
  /** The same seed gives the same tokens. Default 0. */
  readonly seed?: number;
}

export function checkSampling(where: string, options: SamplingOptions): Required<Omit<SamplingOptions, "topK">> & { topK: number } {
  const { temperature = 1, topK = Number.MAX_SAFE_INTEGER, seed = 0 } = options;
  if (typeof temperature !== "number") throw typeError(where, "temperature", "be a number", temperature);
  if (!(temperature >= 0 && temperature < Infinity)) throw rangeError(where, "temperature", "be a finite number >= 0", temperature);
  checkInteger(where, "topK", topK, 1);
  checkInteger(where, "seed", seed, 0, 0xffffffff);
  return { temperature, topK, seed };
}

/** A 32-bit integer hash with low bias (two xorshift-multiply rounds; the constants were found by search by C. Wellons, "hash-prospector"). */
function hash(value: number): number {
  let x = value >>> 0;
  x = Math.imul(x ^ (x >>> 16), 0x7feb352d);
  x = Math.imul(x ^ (x >>> 15), 0x846ca68b);
  return (x ^ (x >>> 16)) >>> 0;
}

/** A number in (0, 1) for each seed, step and index: counter-based, so that no state is kept and any order of evaluation agrees. */
export function uniform(seed: number, step: number, index: number): number {
  return (hash(hash(hash(seed) + step) + index) + 0.5) / 2 ** 32;
}

/**
 * Draws a token by the Gumbel-max trick: argmax of logit / temperature - log(-log u) is a sample from the softmax, with no sum over the
 * vocabulary and no normalisation.
 */
export function sample(logits: Float32Array, step: number, options: ReturnType<typeof checkSampling>): number {
  const { temperature, topK, seed } = options;
  const threshold = topK < logits.length && temperature > 0 ? ([...logits].sort((a, b) => b - a)[topK - 1] ?? -Infinity) : -Infinity;
  let best = -1;
  let bestScore = -Infinity;
  logits.forEach((logit, i) => {
    if (!(logit >= threshold)) return;
    const score = temperature === 0 ? logit : logit / temperature - Math.log(-Math.log(uniform(seed, step, i)));
    if (score > bestScore || best === -1) {
      best = i;
      bestScore = score;
    }
  });
  if (best === -1 || !Number.isFinite(bestScore))
    throw new Error("sample: the logits must be finite, got a NaN or infinity; the weights or the input overflow f32");
  return best;
}
