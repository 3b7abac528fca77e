import { checkInteger } from "../checks.ts";
import { checkLength, rowCount } from "./arrays.ts";

const EPSILON = 1e-6;

/**
 * Backward of `modulate`, y = LN(x) ⊙ (1 + scale) + shift: x, dy [rows, D] -> dx and, a row each, the gradients of its scale and its shift, [rows, D]. Rows that share a scale
 * have it as many times.
 */
export function modulateBackward(
  x: ArrayLike<number>,
  dy: ArrayLike<number>,
  scale: (row: number, c: number) => number,
  dim: number,
): { dx: Float64Array; dscale: Float64Array; dshift: Float64Array } {
  const where = "modulateBackward";
  checkInteger(where, "dim", dim, 1);
  const rows = rowCount(where, "x", x, dim);
  const dshift = Float64Array.from(checkLength(where, "dy", dy, rows * dim, "rows·D"));
  const [dx, dscale] = [new Float64Array(rows * dim), new Float64Array(rows * dim)];
  for (let row = 0; row < rows; row++) {
    const at = row * dim;
    const mean = average(dim, (c) => x[at + c]!);
    const deviation = Math.sqrt(average(dim, (c) => (x[at + c]! - mean) ** 2) + EPSILON);
    const normal = (c: number) => (x[at + c]! - mean) / deviation;
    const dnormal = (c: number) => dy[at + c]! * (1 + scale(row, c));
    const [along, across] = [average(dim, dnormal), average(dim, (c) => dnormal(c) * normal(c))];
    for (let c = 0; c < dim; c++) {
      dscale[at + c] = dy[at + c]! * normal(c);
      dx[at + c] = (dnormal(c) - along - normal(c) * across) / deviation;
    }
  }
  return { dx, dscale, dshift };
}

function average(count: number, value: (i: number) => number): number {
  let sum = 0;
  for (let i = 0; i < count; i++) sum += value(i);
  return sum / count;
}
