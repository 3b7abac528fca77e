import fc from "fast-check";
import type { PomShape } from "../../src/reference/pom.ts";
import type { HomShape } from "../../src/reference/types.ts";

/** Standard normal numbers from a seed (mulberry32, Box-Muller), so that a failing property names all it needs. */
export function normals(seed: number, length: number, scale = 1): Float64Array {
  const next = uniforms(seed);
  return Float64Array.from({ length }, () => scale * Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(2 * Math.PI * next()));
}

/** Uniform numbers in [0, 1) from a seed. */
export function uniforms(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

export interface RandomParams {
  "ho_proj.weight": Float64Array;
  "ho_proj.bias"?: Float64Array;
  "se_proj.weight": Float64Array;
  "se_proj.bias"?: Float64Array;
  "ag_proj.weight": Float64Array;
  "ag_proj.bias"?: Float64Array;
}

/** Parameters of a HoM layer with pre-activations of unit variance. */
export function randomParams(seed: number, shape: HomShape, bias = true): RandomParams {
  const width = shape.order * shape.orderExpand * shape.dim;
  const scale = 1 / Math.sqrt(shape.dim);
  const weights = {
    "ho_proj.weight": normals(seed + 1, width * shape.dim, scale),
    "se_proj.weight": normals(seed + 2, width * shape.dim, scale),
    "ag_proj.weight": normals(seed + 3, shape.dim * width, 1 / Math.sqrt(width)),
  };
  if (!bias) return weights;
  return {
    ...weights,
    "ho_proj.bias": normals(seed + 4, width, 0.5),
    "se_proj.bias": normals(seed + 5, width, 0.5),
    "ag_proj.bias": normals(seed + 6, shape.dim, 0.5),
  };
}

/** Parameters of a PoM layer: pre-activations of unit variance, coefficients that keep every power in sight. */
export function randomPomParams(seed: number, shape: PomShape, bias = false): Record<string, Float64Array> {
  const { dim, degree, expand, nGroups: groups = 1, nSelHeads: heads = 1 } = shape;
  const width = expand * dim;
  const gates = heads > 1 ? heads : width;
  const scale = 1 / Math.sqrt(dim);
  const coefficients = normals(seed + 2, width * degree);
  for (let i = 0; i < coefficients.length; i++) coefficients[i]! /= 2 ** (i % degree);
  const common = {
    po_coeff: coefficients,
    "ag_proj.weight": normals(seed + 3, dim * width, 1 / Math.sqrt(width)),
    ...(bias && { "ag_proj.bias": normals(seed + 4, dim, 0.5) }),
  };
  if (groups === 1) return { ...common, "qc_proj.weight": normals(seed + 1, (width + gates) * dim, scale), se_bias: normals(seed + 5, gates) };
  return {
    ...common,
    "po_proj.weight": normals(seed + 1, (width * dim) / groups, scale * Math.sqrt(groups)),
    "se_proj.weight": normals(seed + 6, gates * dim, scale),
    ...(bias && { "po_proj.bias": normals(seed + 7, width, 0.5), "se_proj.bias": normals(seed + 5, gates) }),
  };
}

/**
 * A property over 100 cases, the same ones every run: a random case can cancel to almost nothing, whose relative error no bound holds.
 * Set the seed to another number to look for new ones.
 */
export function forAll<T>(arbitrary: fc.Arbitrary<T>, check: (value: T) => void): void {
  fc.assert(fc.property(arbitrary, check), { seed: 1 });
}
