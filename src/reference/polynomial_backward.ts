import { checkLength, loadRow, parameter, rowCount } from "./arrays.ts";
import { clampedLeaky, contextProjection, type PomShape, type PositionOf, pomMomentDim, type Rotate, rotation } from "./pom.ts";
import type { Weights } from "./types.ts";

/** Derivative of `clampedLeaky`: 0.01 at 0, and the clamps pass it at their very ends. */
export function clampedLeakyGradient(z: number): number {
  if (z > 6 || z < -10) return 0;
  return z > 0 ? 1 : 0.01;
}

/** Undoes a rotation: with the two halves of every part exchanged it turns the other way. */
export function turnBack(rotate: Rotate, shape: PomShape): Rotate {
  const parts = shape.rotary === "2d" ? 2 : 1;
  const exchange = (v: Float64Array) => {
    const half = v.length / (2 * parts);
    for (let part = 0; part < parts; part++) {
      const whole = v.subarray(2 * part * half, 2 * (part + 1) * half);
      whole.set(Float64Array.of(...whole.subarray(half), ...whole.subarray(0, half)));
    }
  };
  return (v, token, position) => {
    exchange(v);
    rotate(v, token, position);
    exchange(v);
  };
}

/**
 * One token: x [D], gradients of its moments [M] -> gradients of the projection's outputs [M], in place; adds to those of the coefficients [M, degree].
 */
export type PolynomialBackwardRow = (row: Float64Array, gradient: Float64Array, token: number, gradCoefficients: Float64Array) => void;

/** f = Σ_j coeff_j a^j, a = clampedLeaky(u), turned by the token's position: df turned back, du = df · Σ_j j coeff_j a^(j-1) · a'(u), dcoeff_j += df · a^j. */
export function polynomialBackwardRow(where: string, params: Weights, shape: PomShape, position?: PositionOf): PolynomialBackwardRow {
  const { degree } = shape;
  const width = pomMomentDim(where, shape);
  const coefficients = parameter(where, params, "po_coeff", width * degree);
  const rotate = rotation(where, params, shape, "moments");
  const back = rotate && turnBack(rotate, shape);
  const project = contextProjection(where, params, shape, width);
  const u = new Float64Array(width);
  return (row, gradient, token, gradCoefficients) => {
    project(row, u);
    if (back && position) back(gradient, token, position);
    for (let c = 0; c < width; c++) {
      const a = clampedLeaky(u[c]!);
      let slope = 0;
      let power = 1;
      for (let j = 0; j < degree; j++) {
        slope += (j + 1) * coefficients[c * degree + j]! * power;
        power *= a;
        gradCoefficients[c * degree + j]! += gradient[c]! * power;
      }
      gradient[c] = gradient[c]! * slope * clampedLeakyGradient(u[c]!);
    }
  };
}

/** x [rows, D], gradients of the moments [rows, M] -> those of x·po_projᵀ + b [rows, M] and of the coefficients [M, degree]. */
export function polynomialBackward(
  x: ArrayLike<number>,
  gradMoments: ArrayLike<number>,
  params: Weights,
  shape: PomShape,
  position?: PositionOf,
): { gradProjections: Float64Array; gradCoefficients: Float64Array } {
  const where = "polynomialBackward";
  const width = pomMomentDim(where, shape);
  const rows = rowCount(where, "x", x, shape.dim);
  checkLength(where, "gradMoments", gradMoments, rows * width, "rows·M");
  const backward = polynomialBackwardRow(where, params, shape, position);
  const gradProjections = Float64Array.from(gradMoments);
  const gradCoefficients = new Float64Array(width * shape.degree);
  const row = new Float64Array(shape.dim);
  for (let n = 0; n < rows; n++) {
    loadRow(x, n, row);
    backward(row, gradProjections.subarray(n * width, (n + 1) * width), n, gradCoefficients);
  }
  return { gradProjections, gradCoefficients };
}
