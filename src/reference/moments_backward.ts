import { activationGradient } from "./activation_gradients.ts";
import { activationFunction } from "./activations.ts";
import { checkLength, loadRow, momentDim, rowCount } from "./arrays.ts";
import { projection } from "./projection.ts";
import type { HomParams, HomShape } from "./types.ts";

/** One token: x [D], gradients of its moments [M] -> gradients of the projection's outputs [M], in place. */
export type MomentsBackwardRow = (row: Float64Array, gradient: Float64Array) => void;

/** m_i = z_i ⊙ m_(i-1), z = act(u): from the last order to the first, dm_(i-1) += dm_i ⊙ z_i and du_i = dm_i ⊙ m_(i-1) ⊙ act'(u_i). */
export function momentsBackwardRow(where: string, params: HomParams, shape: HomShape): MomentsBackwardRow {
  const width = momentDim(where, shape);
  const chunk = width / shape.order;
  const project = projection(where, params, "ho_proj", shape.dim, width);
  const act = activationFunction(shape.activation);
  const slope = activationGradient(shape.activation);
  const u = new Float64Array(width);
  const z = new Float64Array(width);
  const m = new Float64Array(width);
  return (row, gradient) => {
    project(row, u);
    for (let j = 0; j < width; j++) {
      z[j] = act(u[j]!);
      m[j] = z[j]! * (j < chunk ? 1 : m[j - chunk]!);
    }
    for (let j = width - 1; j >= 0; j--) {
      const below = j < chunk ? 1 : m[j - chunk]!;
      if (j >= chunk) gradient[j - chunk]! += gradient[j]! * z[j]!;
      gradient[j] = gradient[j]! * below * slope(u[j]!);
    }
  };
}

/** x [rows, D], gradients of the moments [rows, M] -> gradients of x·ho_projᵀ + b, [rows, M]. */
export function momentsBackward(x: ArrayLike<number>, gradMoments: ArrayLike<number>, params: HomParams, shape: HomShape): Float64Array {
  const where = "momentsBackward";
  const width = momentDim(where, shape);
  const rows = rowCount(where, "x", x, shape.dim);
  checkLength(where, "gradMoments", gradMoments, rows * width, "rows·M");
  const backward = momentsBackwardRow(where, params, shape);
  const out = Float64Array.from(gradMoments);
  const row = new Float64Array(shape.dim);
  for (let n = 0; n < rows; n++) {
    loadRow(x, n, row);
    backward(row, out.subarray(n * width, (n + 1) * width));
  }
  return out;
}
