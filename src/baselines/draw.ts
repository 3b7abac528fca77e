import { checkInteger, checkObject, checkOneOf, rangeError } from "../checks.ts";
import { FEATURE_MAPS } from "../ops/types.ts";
import type { LinearAttentionConfig } from "./config.ts";
import { vectorsOf } from "./feature_weights.ts";

/** Options of {@link drawFeatures}. */
export interface DrawOptions {
  /** Gaussian vectors that are orthogonal in groups of d, with lengths as if they were not: less variance. Default true for `"favor"`, false for `"rfa"`. */
  readonly orthogonal?: boolean;
}

/**
 * Random vectors for a {@link LinearAttentionLayer}, the same for a seed everywhere: `omega [H, m, d]` of standard normal numbers, or `rademacher [H, R, L, d]` of signs with
 * `degrees [H, R]`, of which n has probability 2^-(n+1) and L is the largest.
 *
 * @throws TypeError, RangeError
 */
export function drawFeatures(
  config: Pick<LinearAttentionConfig, "dim" | "heads" | "featureMap" | "features">,
  seed: number,
  options: DrawOptions = {},
): Record<string, Float32Array<ArrayBuffer> | Int32Array<ArrayBuffer>> {
  const where = "drawFeatures";
  const dim = checkInteger(where, "dim", config.dim, 1, 65_536);
  const heads = checkInteger(where, "heads", config.heads, 1, 65_536);
  if (dim % heads !== 0) throw rangeError(where, "heads", `divide the width ${dim}`, heads);
  const featureMap = checkOneOf(where, "featureMap", config.featureMap, FEATURE_MAPS);
  const features = checkInteger(where, "features", config.features, 1, 4096);
  if (featureMap === "rfa" && features % 2 !== 0) throw rangeError(where, "features", 'be even for featureMap "rfa"', features);
  checkInteger(where, "seed", seed, 0, 0xffffffff);
  checkObject(where, "options", options, ["orthogonal"]);
  const { orthogonal = featureMap === "favor" } = options;
  const headDim = dim / heads;
  const next = uniforms(seed);
  if (featureMap === "maclaurin_exp" || featureMap === "maclaurin_gaussian") return drawMaclaurin(heads, features, headDim, next);
  const vectors = vectorsOf({ featureMap, features });
  const omega = new Float32Array(heads * vectors * headDim);
  for (let at = 0; at < heads * vectors; at++) {
    if (!orthogonal) omega.set(normals(next, headDim), at * headDim);
    else if ((at % vectors) % headDim === 0) {
      // A group does not reach into the next head.
      const count = Math.min(headDim, vectors - (at % vectors));
      for (const [i, vector] of orthogonalVectors(next, headDim, count).entries()) omega.set(vector, (at + i) * headDim);
    }
  }
  return { omega };
}

function drawMaclaurin(heads: number, features: number, headDim: number, next: () => number) {
  const degrees = Int32Array.from({ length: heads * features }, () => Math.floor(-Math.log2(1 - next())));
  const levels = degrees.reduce((a, b) => Math.max(a, b), 0);
  const rademacher = Float32Array.from({ length: heads * features * levels * headDim }, () => (next() < 0.5 ? -1 : 1));
  return { degrees, rademacher };
}

/** Gram-Schmidt, then the lengths of other Gaussian vectors. */
function orthogonalVectors(next: () => number, dim: number, count: number): Float64Array[] {
  const directions: Float64Array[] = [];
  while (directions.length < count) {
    const vector = normals(next, dim);
    // Twice: once leaves what rounding has left of the earlier directions.
    for (let turn = 0; turn < 2; turn++) {
      for (const other of directions) {
        const overlap = dot(vector, other);
        for (let d = 0; d < dim; d++) vector[d] = (vector[d] ?? 0) - overlap * (other[d] ?? 0);
      }
    }
    const length = Math.sqrt(dot(vector, vector));
    if (length > 1e-6) directions.push(vector.map((value) => value / length));
  }
  return directions.map((direction) => {
    const other = normals(next, dim);
    const length = Math.sqrt(dot(other, other));
    return direction.map((value) => value * length);
  });
}

function dot(a: Float64Array, b: Float64Array): number {
  return a.reduce((sum, value, i) => sum + value * (b[i] ?? 0), 0);
}

/** Standard normal numbers (Box and Muller). */
function normals(next: () => number, length: number): Float64Array {
  return Float64Array.from({ length }, () => Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(2 * Math.PI * next()));
}

/** Uniform numbers in [0, 1) with 53 bits: hashes of a counter that starts somewhere else for each seed. */
function uniforms(seed: number): () => number {
  let counter = hash(hash(seed) ^ 0x7f4a7c15);
  const word = () => {
    counter = (counter + 0x9e3779b9) >>> 0;
    return hash(counter);
  };
  return () => ((word() >>> 5) * 2 ** 26 + (word() >>> 6)) / 2 ** 53;
}

/** Every bit of the result depends on every bit of the value. */
function hash(value: number): number {
  let x = value | 0;
  x = Math.imul(x ^ (x >>> 16), 0x7feb352d);
  x = Math.imul(x ^ (x >>> 15), 0x846ca68b);
  return (x ^ (x >>> 16)) >>> 0;
}
