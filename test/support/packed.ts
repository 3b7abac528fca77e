import { packLinear, padded } from "../../src/layers/params.ts";
import type { HomShape } from "../../src/reference/types.ts";

/** ho_proj and se_proj of a layer side by side, as the kernels read them. */
export function packProjections(
  params: Readonly<Record<string, ArrayLike<number>>>,
  { dim, order, orderExpand }: HomShape,
): Float32Array<ArrayBuffer> {
  const outer = { count: order, width: orderExpand * dim };
  const side = (name: string) => ({ weight: params[`${name}.weight`]!, bias: params[`${name}.bias`], outer });
  return packLinear([side("ho_proj"), side("se_proj")], { count: 1, width: dim });
}

/** Rows of moments `[rows, k·e·D]` with each order's channels filled up to a multiple of 4, `stride` numbers a row from column `first` on; NaN elsewhere. */
export function padMoments(moments: ArrayLike<number>, { dim, order, orderExpand }: HomShape, stride?: number, first = 0): Float32Array<ArrayBuffer> {
  const width = orderExpand * dim;
  const rows = moments.length / (order * width);
  const length = stride ?? order * padded(width);
  const out = new Float32Array(rows * length).fill(Number.NaN);
  for (let row = 0; row < rows; row++) {
    out.fill(0, row * length + first, row * length + first + order * padded(width));
    for (let i = 0; i < order; i++) {
      for (let j = 0; j < width; j++) out[row * length + first + i * padded(width) + j] = moments[(row * order + i) * width + j]!;
    }
  }
  return out;
}

/** The inverse of `padMoments`. Fails where the padding is not 0. */
export function unpadMoments(
  padding: ArrayLike<number>,
  { dim, order, orderExpand }: HomShape,
  stride?: number,
  first = 0,
): Float32Array<ArrayBuffer> {
  const width = orderExpand * dim;
  const length = stride ?? order * padded(width);
  const rows = padding.length / length;
  const out = new Float32Array(rows * order * width);
  for (let row = 0; row < rows; row++) {
    for (let i = 0; i < order; i++) {
      for (let j = 0; j < padded(width); j++) {
        const value = padding[row * length + first + i * padded(width) + j]!;
        if (j < width) out[(row * order + i) * width + j] = value;
        else if (value !== 0) throw new Error(`unpadMoments: the padding of row ${row}, order ${i + 1} is ${value}`);
      }
    }
  }
  return out;
}
