/** Channels as the kernels see them: `count` stretches of `width`, each padded to a multiple of 4. */
export interface Channels {
  readonly count: number;
  readonly width: number;
}

/** A Linear layer as in a checkpoint: weight `[outer, inner]`, bias `[outer]` or undefined for zeros. */
export interface LinearParams {
  readonly weight: ArrayLike<number>;
  readonly bias: ArrayLike<number> | undefined;
  readonly outer: Channels;
}

const padded = (width: number): number => Math.ceil(width / 4) * 4;
const paddedSize = ({ count, width }: Channels): number => count * padded(width);

/**
 * Linear layers of one input side by side, as the kernels read them: `[inner + 1, outer…]`, the weights transposed and then the biases, zeros
 * in the padding. Four neighbouring outputs lie in one vec4, so that neighbouring invocations read neighbouring memory, and neither the bias nor
 * the second layer takes a binding of its own.
 */
export function packLinear(layers: readonly LinearParams[], inner: Channels): Float32Array<ArrayBuffer> {
  const stride = layers.reduce((sum, { outer }) => sum + paddedSize(outer), 0);
  const rows = paddedSize(inner);
  const packed = new Float32Array((rows + 1) * stride);
  let left = 0;
  for (const { weight, bias, outer } of layers) {
    for (let o = 0; o < outer.count * outer.width; o++) {
      const column = left + Math.floor(o / outer.width) * padded(outer.width) + (o % outer.width);
      for (let ic = 0, source = o * inner.count * inner.width; ic < inner.count; ic++) {
        let at = ic * padded(inner.width) * stride + column;
        for (let i = 0; i < inner.width; i++, at += stride) packed[at] = weight[source++] ?? 0;
      }
      packed[rows * stride + column] = bias?.[o] ?? 0;
    }
    left += paddedSize(outer);
  }
  return packed;
}
