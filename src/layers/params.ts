import { WeightsError } from "../errors.ts";
import { encodeF16 } from "../half.ts";
import type { WeightDtype } from "../runtime/kernel.ts";

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

export const padded = (width: number): number => Math.ceil(width / 4) * 4;
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

/**
 * Packed weights in the storage that the kernels read (shaders/shared/load_w_*.wgsl).
 * @param packed `[inner + 1, outer]`, the last row the bias
 * @throws WeightsError for a value that f16 cannot hold
 */
export function encodeWeights(where: string, packed: Float32Array, outer: number, dtype: WeightDtype): Float32Array | Uint16Array | Uint32Array {
  if (dtype === "f32") return packed;
  if (dtype === "f16") {
    const bad = packed.findIndex((value) => Math.abs(value) >= F16_LIMIT);
    if (bad !== -1) throw new WeightsError(`${where}: weights must be below ${F16_LIMIT} to be stored in f16, got ${packed[bad]}; store them in f32`);
    return encodeF16(packed);
  }
  const inner = packed.length / outer - 1;
  const words = new Uint32Array((inner * outer) / 4 + 2 * outer);
  const bytes = new Int8Array(words.buffer);
  const floats = new Float32Array(words.buffer, inner * outer);
  for (let channel = 0; channel < outer; channel++) {
    let scale = 0;
    for (let row = 0; row < inner; row++) scale = Math.max(scale, Math.abs(packed[row * outer + channel] ?? 0));
    for (let row = 0; row < inner && scale > 0; row++) {
      bytes[row * outer + channel] = Math.round(((packed[row * outer + channel] ?? 0) / scale) * 127);
    }
    floats[channel] = scale;
    floats[outer + channel] = packed[inner * outer + channel] ?? 0;
  }
  return words;
}

/** From here on a value rounds to infinity in f16. */
const F16_LIMIT = 65_520;
