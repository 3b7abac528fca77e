import { checkInteger, checkOneOf, rangeError } from "../checks.ts";
import { parameter, rowCount } from "./arrays.ts";
import type { AttentionShape } from "./attention.ts";
import type { Weights } from "./types.ts";

/**
 * What a kernel K(q, k) is estimated by: positive random features of exp(q·k / √d) (Choromanski et al. 2020), sines and cosines of the Gaussian
 * kernel of normalised vectors (Peng et al. 2021), random Maclaurin features of exp(q·k / √d) (Kar and Karnick 2012), or of the Gaussian kernel
 * exp(-|q - k|² / (2√d)).
 */
export type FeatureMap = "favor" | "rfa" | "maclaurin_exp" | "maclaurin_gaussian";

/** The names of all feature maps. */
export const FEATURE_MAPS: readonly FeatureMap[] = ["favor", "rfa", "maclaurin_exp", "maclaurin_gaussian"];

/** Sizes of linear attention, and its feature map. */
export interface LinearAttentionShape extends AttentionShape {
  readonly featureMap: FeatureMap;
  /** R, the width of φ, per head; even for "rfa", which has a sine and a cosine a random vector. */
  readonly features: number;
}

/** φ of one head's channels: x [d] -> out [R]. */
export type FeatureRow = (x: Float64Array, out: Float64Array) => void;

/**
 * φ(x) of rows x [rows, H·d] -> [rows, H, R].
 *
 * - favor: x/d^¼, then exp(-|x|²/2 + ω_i·x) / √R, `omega` [H, R, d]
 * - rfa: x/|x|, then [sin(ω_i·x) | cos(ω_i·x)] / √(R/2), `omega` [H, R/2, d]
 * - maclaurin_exp: x/d^¼, then √(2^(n+1)/n!) Π_(j<n) (r_ij·x) / √R, n = `degrees` [H, R], r = `rademacher` [H, R, L, d]
 * - maclaurin_gaussian: the same times exp(-|x|²/2)
 *
 * A factor that all features of a query share cancels in attention. `asQuery` leaves them as the kernel does, which keeps long queries from
 * underflowing: favor has exp(-3|x|) in place of exp(-|x|²/2), maclaurin_gaussian nothing.
 */
export function randomFeatures(
  x: ArrayLike<number>,
  params: Weights,
  shape: LinearAttentionShape,
  options: { readonly asQuery?: boolean | undefined } = {},
): Float64Array {
  const where = "randomFeatures";
  const { heads, dim, features } = shape;
  const headDim = checkInteger(where, "dim / heads", dim / heads, 1);
  const rows = rowCount(where, "x", x, dim);
  const maps = featureRows(where, params, shape, options.asQuery ?? false);
  const row = new Float64Array(headDim);
  const out = new Float64Array(rows * heads * features);
  for (let r = 0; r < rows; r++) {
    for (let head = 0; head < heads; head++) {
      for (let d = 0; d < headDim; d++) row[d] = x[r * dim + head * headDim + d]!;
      const at = (r * heads + head) * features;
      maps[head]!(row, out.subarray(at, at + features));
    }
  }
  return out;
}

/** φ of each head. */
export function featureRows(where: string, params: Weights, shape: LinearAttentionShape, asQuery: boolean): FeatureRow[] {
  const heads = checkInteger(where, "heads", shape.heads, 1);
  const headDim = checkInteger(where, "dim / heads", shape.dim / heads, 1);
  const features = checkInteger(where, "features", shape.features, 1);
  const featureMap = checkOneOf(where, "featureMap", shape.featureMap, FEATURE_MAPS);
  const indices = Array.from({ length: heads }, (_, head) => head);
  if (featureMap === "favor" || featureMap === "rfa") {
    if (featureMap === "rfa" && features % 2 !== 0) throw rangeError(where, "features", "be even for rfa", features);
    const vectors = featureMap === "rfa" ? features / 2 : features;
    const omega = parameter(where, params, "omega", heads * vectors * headDim);
    return indices.map((head) => {
      const own = omega.subarray(head * vectors * headDim, (head + 1) * vectors * headDim);
      return featureMap === "rfa" ? trigonometric(own, vectors, headDim) : positive(own, vectors, headDim, asQuery);
    });
  }
  const degrees = parameter(where, params, "degrees", heads * features);
  const levels = (params["rademacher"]?.length ?? 0) / (heads * features * headDim);
  const rademacher = parameter(where, params, "rademacher", heads * features * checkInteger(where, "rademacher's levels", levels, 0) * headDim);
  const isGaussian = featureMap === "maclaurin_gaussian" && !asQuery;
  return indices.map((head) => {
    const own = rademacher.subarray(head * features * levels * headDim, (head + 1) * features * levels * headDim);
    const map = maclaurin(own, degrees.subarray(head * features, (head + 1) * features), levels, headDim);
    if (!isGaussian) return map;
    return (x, out) => {
      map(x, out);
      const factor = Math.exp(-squaredLength(x) / (2 * Math.sqrt(headDim)));
      for (let i = 0; i < features; i++) out[i] = out[i]! * factor;
    };
  });
}

function positive(omega: Float64Array, vectors: number, headDim: number, asQuery: boolean): FeatureRow {
  const scale = headDim ** -0.25;
  return (x, out) => {
    const length2 = squaredLength(x) * scale * scale;
    const common = asQuery ? 3 * Math.sqrt(length2) : length2 / 2;
    for (let i = 0; i < vectors; i++) out[i] = Math.exp(scale * dot(omega, i * headDim, x) - common) / Math.sqrt(vectors);
  };
}

function trigonometric(omega: Float64Array, vectors: number, headDim: number): FeatureRow {
  return (x, out) => {
    const length = Math.sqrt(squaredLength(x));
    for (let i = 0; i < vectors; i++) {
      const angle = length > 0 ? dot(omega, i * headDim, x) / length : 0;
      out[i] = Math.sin(angle) / Math.sqrt(vectors);
      out[vectors + i] = Math.cos(angle) / Math.sqrt(vectors);
    }
  };
}

function maclaurin(rademacher: Float64Array, degrees: Float64Array, levels: number, headDim: number): FeatureRow {
  const scale = headDim ** -0.25;
  const features = degrees.length;
  return (x, out) => {
    for (let i = 0; i < features; i++) {
      const degree = degrees[i]!;
      let product = maclaurinCoefficient(degree) / Math.sqrt(features);
      for (let j = 0; j < degree; j++) product *= scale * dot(rademacher, (i * levels + j) * headDim, x);
      out[i] = product;
    }
  };
}

/** √(2^(n+1) / n!): degree n is drawn with probability 2^-(n+1), and exp has the coefficient 1/n!. */
export function maclaurinCoefficient(degree: number): number {
  let square = 2;
  for (let n = 1; n <= degree; n++) square *= 2 / n;
  return Math.sqrt(square);
}

function dot(matrix: Float64Array, base: number, x: Float64Array): number {
  let sum = 0;
  for (let d = 0; d < x.length; d++) sum += matrix[base + d]! * x[d]!;
  return sum;
}

function squaredLength(x: Float64Array): number {
  let sum = 0;
  for (let d = 0; d < x.length; d++) sum += x[d]! * x[d]!;
  return sum;
}
