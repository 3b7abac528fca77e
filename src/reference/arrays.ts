import { checkInteger, checkOneOf, rangeError, raw, typeError } from "../checks.ts";
import { WeightsError } from "../errors.ts";
import { ACTIVATION_NAMES } from "./activations.ts";
import type { HomShape, Weights } from "./types.ts";

/** The same numbers as doubles; a Float64Array is returned as it is. */
export function toFloat64(values: ArrayLike<number>): Float64Array {
  return values instanceof Float64Array ? values : Float64Array.from(values);
}

/** Refuses anything that is not an array of exactly `length` numbers; `shape` is how the message writes the length. */
export function checkLength(where: string, argument: string, values: unknown, length: number, shape: string): ArrayLike<number> {
  const found = (values as ArrayLike<number> | null | undefined)?.length;
  if (typeof values !== "object" || typeof found !== "number") throw typeError(where, argument, `be an array of ${shape} numbers`, values);
  if (found !== length) throw rangeError(where, argument, `hold ${shape} = ${length} numbers`, raw(`${found}`));
  return values as ArrayLike<number>;
}

/** One parameter as doubles; undefined only where `optional`. */
export function parameter(where: string, weights: Weights, key: string, length: number, optional: true): Float64Array | undefined;
export function parameter(where: string, weights: Weights, key: string, length: number): Float64Array;
export function parameter(where: string, weights: Weights, key: string, length: number, optional = false): Float64Array | undefined {
  const values = weights[key];
  if (values === undefined) {
    if (optional) return undefined;
    throw new WeightsError(`${where}: params must have ${JSON.stringify(key)}, got ${Object.keys(weights).join(", ") || "none"}`);
  }
  if (values.length !== length) throw new WeightsError(`${where}: ${JSON.stringify(key)} must hold ${length} numbers, got ${values.length}`);
  return toFloat64(values);
}

/** M = order · orderExpand · dim, after checking the sizes and the activation. */
export function momentDim(where: string, shape: HomShape): number {
  checkInteger(where, "dim", shape.dim, 1);
  checkInteger(where, "order", shape.order, 1);
  checkInteger(where, "orderExpand", shape.orderExpand, 1);
  if (shape.activation !== undefined) checkOneOf(where, "activation", shape.activation, ACTIVATION_NAMES);
  return shape.order * shape.orderExpand * shape.dim;
}

/** `length / width`, refusing a ragged array. */
export function rowCount(where: string, argument: string, values: ArrayLike<number>, width: number): number {
  const rows = values.length / width;
  if (!Number.isInteger(rows)) throw rangeError(where, argument, `hold whole rows of ${width} numbers`, raw(`${values.length}`));
  return rows;
}

/** row[i] = values[rowIndex, i]; copies one row at a time, so that a long input is never duplicated. */
export function loadRow(values: ArrayLike<number>, rowIndex: number, row: Float64Array): void {
  const base = rowIndex * row.length;
  for (let i = 0; i < row.length; i++) row[i] = values[base + i]!;
}

/** sum[j] += weight · values[base + j] */
export function addScaled(sum: Float64Array, values: ArrayLike<number>, base: number, weight: number): void {
  for (let j = 0; j < sum.length; j++) sum[j] = sum[j]! + weight * values[base + j]!;
}
