import { checkInteger } from "../checks.ts";
import { checkLength } from "./arrays.ts";

/** Channels in `count` stretches of `width`. */
export interface Channels {
  readonly count: number;
  readonly width: number;
}

/**
 * One layer of packed weights [inner + 1, stride], whose channels are `count` stretches of `width` filled up to multiples of 4 -> weight
 * [outer, inner] and bias [outer], the last row; of `inputs` and `outputs`, each a first channel and how many, where they are given.
 */
export function unpackLinear(
  packed: ArrayLike<number>,
  sizes: {
    stride: number;
    firstColumn: number;
    inner: Channels;
    outer: Channels;
    inputs?: readonly [number, number];
    outputs?: readonly [number, number];
  },
): { weight: Float64Array; bias: Float64Array } {
  const where = "unpackLinear";
  const { inner, outer } = sizes;
  const stride = checkInteger(where, "stride", sizes.stride, 1);
  const padded = (width: number) => Math.ceil(width / 4) * 4;
  const rows = inner.count * padded(inner.width);
  checkLength(where, "packed", packed, (rows + 1) * stride, "(inner + 1)·stride");
  const at = (channel: number, { width }: Channels) => Math.floor(channel / width) * padded(width) + (channel % width);
  const { inputs: [firstInput, inputCount] = [0, inner.count * inner.width], outputs: [firstOutput, outputCount] = [0, outer.count * outer.width] } =
    sizes;
  const weight: number[] = [];
  const bias: number[] = [];
  for (let o = firstOutput; o < firstOutput + outputCount; o++) {
    const column = sizes.firstColumn + at(o, outer);
    for (let i = firstInput; i < firstInput + inputCount; i++) weight.push(packed[at(i, inner) * stride + column]!);
    bias.push(packed[rows * stride + column]!);
  }
  return { weight: Float64Array.from(weight), bias: Float64Array.from(bias) };
}
