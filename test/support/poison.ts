import { type Gpu, Tensor } from "../../src/index.ts";

/** An output tensor full of NaN: a value that a kernel forgets to write cannot pass for a result. */
export function poisoned(gpu: Gpu, shape: readonly number[]): Tensor {
  const size = shape.reduce((a, b) => a * b, 1);
  return Tensor.from(gpu, new Float32Array(size).fill(Number.NaN), shape);
}
