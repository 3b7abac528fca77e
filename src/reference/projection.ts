import { parameter } from "./arrays.ts";
import type { Weights } from "./types.ts";

/** out[o] = bias[o] + Σ_i weight[o, i]·row[i]; row [inDim], out [outDim] */
export type Projection = (row: Float64Array, out: Float64Array) => void;

/** The Linear `<name>.weight` [outDim, inDim], `<name>.bias` [outDim] or none, as a function of one row. */
export function projection(where: string, weights: Weights, name: string, inDim: number, outDim: number): Projection {
  const weight = parameter(where, weights, `${name}.weight`, outDim * inDim);
  const bias = parameter(where, weights, `${name}.bias`, outDim, true) ?? new Float64Array(outDim);
  return (row, out) => matvec(weight, bias, row, out);
}

/** out = bias + weight·row. Four rows of the weight at a time: one running sum alone waits for each addition, 3× slower. */
export function matvec(weight: Float64Array, bias: Float64Array, row: Float64Array, out: Float64Array): void {
  const inDim = row.length;
  const outDim = out.length;
  let o = 0;
  for (; o + 4 <= outDim; o += 4) {
    const base0 = o * inDim;
    const base1 = base0 + inDim;
    const base2 = base1 + inDim;
    const base3 = base2 + inDim;
    let sum0 = 0;
    let sum1 = 0;
    let sum2 = 0;
    let sum3 = 0;
    for (let i = 0; i < inDim; i++) {
      const x = row[i]!;
      sum0 += weight[base0 + i]! * x;
      sum1 += weight[base1 + i]! * x;
      sum2 += weight[base2 + i]! * x;
      sum3 += weight[base3 + i]! * x;
    }
    out[o] = sum0 + bias[o]!;
    out[o + 1] = sum1 + bias[o + 1]!;
    out[o + 2] = sum2 + bias[o + 2]!;
    out[o + 3] = sum3 + bias[o + 3]!;
  }
  for (; o < outDim; o++) {
    let sum = 0;
    for (let i = 0; i < inDim; i++) sum += weight[o * inDim + i]! * row[i]!;
    out[o] = sum + bias[o]!;
  }
}

/** Of the same Linear: adds to dx, for a row x and the gradient dy of its result, and to the parameters' gradients, which it puts into `gradients`. */
export function projectionBackward(
  where: string,
  weights: Weights,
  name: string,
  inDim: number,
  outDim: number,
  gradients: Record<string, Float64Array>,
): (x: Float64Array, dy: Float64Array, dx: Float64Array) => void {
  const key = `${name}.weight`;
  const weight = parameter(where, weights, key, outDim * inDim);
  const gradient = new Float64Array(outDim * inDim);
  gradients[key] = gradient;
  const bias = parameter(where, weights, `${name}.bias`, outDim, true) && new Float64Array(outDim);
  if (bias) gradients[`${name}.bias`] = bias;
  return (x, dy, dx) => {
    for (let o = 0; o < outDim; o++) {
      const g = dy[o]!;
      if (g === 0) continue;
      if (bias) bias[o]! += g;
      const base = o * inDim;
      for (let i = 0; i < inDim; i++) {
        dx[i]! += g * weight[base + i]!;
        gradient[base + i]! += g * x[i]!;
      }
    }
  };
}
