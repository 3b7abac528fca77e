import { expect } from "vitest";
import { normals } from "../reference/inputs.ts";
import { FINITE_DIFFERENCE_F64 } from "./tolerances.ts";

/** A gradient against a fourth-order central difference of the loss along a random direction. */
export function expectDerivative(
  what: string,
  gradient: Float64Array,
  value: ArrayLike<number>,
  lossAt: (value: Float64Array) => number,
  options: { readonly seed: number; readonly step: number },
): void {
  expect(gradient.length, what).toBe(value.length);
  const { seed, step } = options;
  const direction = normals(seed, value.length);
  const slope = gradient.reduce((sum, g, i) => sum + g * direction[i]!, 0);
  const at = (distance: number) => lossAt(Float64Array.from(value, (v, i) => v + distance * direction[i]!));
  // The error falls with step⁴, its rounding grows with 1/step.
  const difference = (8 * (at(step) - at(-step)) - (at(2 * step) - at(-2 * step))) / (12 * step);
  const size = Math.sqrt(gradient.reduce((sum, g) => sum + g * g, 0) * direction.reduce((sum, d) => sum + d * d, 0));
  expect(Math.abs(difference - slope), `${what}: ${difference} against ${slope}`).toBeLessThanOrEqual(FINITE_DIFFERENCE_F64 * (1 + size));
}
