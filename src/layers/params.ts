/** Channels as the kernels see them: `count` stretches of `width`, each padded to a multiple of 4. */
export interface Channels {
  readonly count: number;
  readonly width: number;
}

const padded = (width: number): number => Math.ceil(width / 4) * 4;

/**
 * A Linear layer as the kernels read it: `[inner + 1, outer]`, the weight transposed and then the bias, zeros in the padding. Four
 * neighbouring outputs lie in one vec4, so that neighbouring invocations read neighbouring memory and the bias needs no binding.
 *
 * @param weight `[outer, inner]`, as in a checkpoint
 * @param bias `[outer]`, or undefined for zeros
 */
export function packLinear(
  weight: ArrayLike<number>,
  bias: ArrayLike<number> | undefined,
  outer: Channels,
  inner: Channels,
): Float32Array<ArrayBuffer> {
  const stride = outer.count * padded(outer.width);
  const rows = inner.count * padded(inner.width);
  const packed = new Float32Array((rows + 1) * stride);
  const innerSize = inner.count * inner.width;
  for (let oc = 0; oc < outer.count; oc++) {
    for (let o = 0; o < outer.width; o++) {
      const column = oc * padded(outer.width) + o;
      const source = (oc * outer.width + o) * innerSize;
      for (let ic = 0; ic < inner.count; ic++) {
        const row = ic * padded(inner.width);
        for (let i = 0; i < inner.width; i++) packed[(row + i) * stride + column] = weight[source + ic * inner.width + i] ?? 0;
      }
      packed[rows * stride + column] = bias?.[oc * outer.width + o] ?? 0;
    }
  }
  return packed;
}

/** Bytes of {@link packLinear}'s result. */
export function packedBytes(outer: Channels, inner: Channels): number {
  return (inner.count * padded(inner.width) + 1) * outer.count * padded(outer.width) * 4;
}
