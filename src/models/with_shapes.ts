import { Weights, type WeightsSource } from "../weights/safetensors.ts";

/** A parsed file, or parameters by checkpoint name: bare arrays (of the model's shapes) or `{ dtype, shape, data }`. */
export type ModelWeights = WeightsSource | Readonly<Record<string, Float32Array>>;

/** Bare arrays say nothing of their shapes: one whose size is right has the model's. */
export function withShapes(weights: ModelWeights, shapes: Readonly<Record<string, readonly number[]>>): WeightsSource {
  if (weights instanceof Weights || typeof weights !== "object" || weights === null) return weights;
  const named = Object.entries(weights).map(([name, value]) => {
    if (!(value instanceof Float32Array)) return [name, value];
    const key = Object.keys(shapes).find((k) => name === k || name.endsWith(`.${k}`));
    const shape = key === undefined ? undefined : shapes[key];
    return [name, { shape: shape?.reduce((a, b) => a * b, 1) === value.length ? shape : [value.length], data: value }];
  });
  return Object.fromEntries(named);
}
