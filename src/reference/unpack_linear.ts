import { checkInteger } from "../checks.ts";
import { checkLength } from "./arrays.ts";

/** Channels in `count` stretches of `width`. */
export interface Channels {
  readonly count: number;
  readonly width: number;
}

/**
 * One layer of packed weights [inner + 1, stride], whose channels are `count` stretches of `width` filled up to multiples of 4 -> weight
 * [outer, inner] and bias [outer], the last row.
 */
export function unpackLinear(
  packed: ArrayLike<number>,
  sizes: { stride: number; firstColumn: number; inner: Channels; outer: Channels },
): { weight: Float64Array; bias: Float64Array } {
  const where = "unpackLinear";
  const { inner, outer } = sizes;
  const stride = checkInteger(where, "stride", sizes.stride, 1);
  const padded = (width: number) => Math.ceil(width / 4) * 4;
  const rows = inner.count * padded(inner.width);
  checkLength(where, "packed", packed, (rows + 1) * stride, "(inner + 1)·stride");
  const weight: number[] = [];
  const bias: number[] = [];
  for (let oc = 0; oc < outer.count; oc++) {
    for (let o = 0; o < outer.width; o++) {
      const column = sizes.firstColumn + oc * padded(outer.width) + o;
      for (let ic = 0; ic < inner.count; ic++) {
        for (let i = 0; i < inner.width; i++) weight.push(packed[(ic * padded(inner.width) + i) * stride + column]!);
      }
      bias.push(packed[rows * stride + column]!);
    }
  }
  return { weight: Float64Array.from(weight), bias: Float64Array.from(bias) };
}
