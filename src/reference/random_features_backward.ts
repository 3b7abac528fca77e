import { checkInteger, checkOneOf } from "../checks.ts";
import { checkLength, parameter, rowCount } from "./arrays.ts";
import { FEATURE_MAPS, featureRows, type LinearAttentionShape, maclaurinCoefficient } from "./random_features.ts";
import type { Weights } from "./types.ts";

/**
 * Gradients of rows x [rows, H·d] for gradients `gradPhi` [rows, H, R] of their features (see `randomFeatures`); the random vectors are constants.
 * `asQuery` counts the factor that all features of a query share as a constant, too: it cancels in attention, and so does its gradient.
 *
 * - favor: Σ_i dφ_i φ_i (d^-¼ ω_i - x/√d)
 * - rfa, a_i the angle: Σ_i (dsin_i cos_i - dcos_i sin_i) ω_i without its part along x, over |x|; 0 for x = 0
 * - maclaurin_exp: Σ_i dφ_i Σ_j (the product without its factor j) r_ij, never a division by a factor
 * - maclaurin_gaussian: the same times exp(-|x|²/2), minus Σ_i dφ_i φ_i x/√d
 */
export function randomFeaturesBackward(
  x: ArrayLike<number>,
  gradPhi: ArrayLike<number>,
  params: Weights,
  shape: LinearAttentionShape,
  options: { readonly asQuery?: boolean | undefined } = {},
): Float64Array {
  const where = "randomFeaturesBackward";
  const { heads, dim, features } = shape;
  const { asQuery = false } = options;
  const headDim = checkInteger(where, "dim / heads", dim / heads, 1);
  const featureMap = checkOneOf(where, "featureMap", shape.featureMap, FEATURE_MAPS);
  const rows = rowCount(where, "x", x, dim);
  checkLength(where, "gradPhi", gradPhi, rows * heads * features, "rows·H·R");
  const maps = featureRows(where, params, shape, asQuery);
  const row = new Float64Array(headDim);
  const dx = new Float64Array(headDim);
  const phi = new Float64Array(features);
  const out = new Float64Array(rows * dim);
  const isMaclaurin = featureMap === "maclaurin_exp" || featureMap === "maclaurin_gaussian";
  const vectors = featureMap === "rfa" ? features / 2 : features;
  const omega = isMaclaurin ? undefined : parameter(where, params, "omega", heads * vectors * headDim);
  const degrees = isMaclaurin ? parameter(where, params, "degrees", heads * features) : undefined;
  const rademacher = isMaclaurin ? Float64Array.from(params["rademacher"] ?? []) : undefined;
  const levels = (rademacher?.length ?? 0) / (heads * features * headDim);
  const hasLength = (featureMap === "favor" || featureMap === "maclaurin_gaussian") && !asQuery;
  const scale = headDim ** -0.25;
  const add = (factor: number, matrix: Float64Array, base: number) => {
    for (let d = 0; d < headDim; d++) dx[d] = dx[d]! + factor * matrix[base + d]!;
  };
  const dot = (matrix: Float64Array, base: number) => {
    let sum = 0;
    for (let d = 0; d < headDim; d++) sum += matrix[base + d]! * row[d]!;
    return sum;
  };
  for (let r = 0; r < rows; r++) {
    for (let head = 0; head < heads; head++) {
      for (let d = 0; d < headDim; d++) row[d] = x[r * dim + head * headDim + d]!;
      const at = (r * heads + head) * features;
      maps[head]!(row, phi);
      dx.fill(0);
      const length2 = dot(row, 0);
      const length = Math.sqrt(length2);
      if (omega && featureMap === "favor") {
        for (let i = 0; i < vectors; i++) add(scale * gradPhi[at + i]! * phi[i]!, omega, (head * vectors + i) * headDim);
      } else if (omega && length > 0) {
        for (let i = 0; i < vectors; i++) {
          const base = (head * vectors + i) * headDim;
          const ofAngle = gradPhi[at + i]! * phi[vectors + i]! - gradPhi[at + vectors + i]! * phi[i]!;
          add(ofAngle / length, omega, base);
          add((-ofAngle * dot(omega, base)) / (length2 * length), row, 0);
        }
      }
      for (let i = 0; degrees && rademacher && i < features; i++) {
        const degree = degrees[head * features + i]!;
        const base = (head * features + i) * levels * headDim;
        const factors = Array.from({ length: degree }, (_, j) => scale * dot(rademacher, base + j * headDim));
        const shared = hasLength ? Math.exp((-length2 * scale * scale) / 2) : 1;
        const coefficient = (gradPhi[at + i]! * shared * maclaurinCoefficient(degree)) / Math.sqrt(features);
        for (let j = 0; j < degree; j++) {
          const others = factors.reduce((product, factor, k) => (k === j ? product : product * factor), coefficient);
          add(scale * others, rademacher, base + j * headDim);
        }
      }
      if (hasLength) {
        let sum = 0;
        for (let i = 0; i < features; i++) sum += gradPhi[at + i]! * phi[i]!;
        add(-sum * scale * scale, row, 0);
      }
      out.set(dx, r * dim + head * headDim);
    }
  }
  return out;
}
