import { describe, FULL, rangeError, raw } from "../checks.ts";
import { WeightsError } from "../errors.ts";
import { decodeF16, encodeF16 } from "../half.ts";
import { I4_GROUP } from "../ops/op.ts";
import type { Gpu } from "../runtime/gpu.ts";
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
  if (!FULL || dtype === "f32") return packed;
  if (dtype === "f16") {
    const bad = packed.findIndex((value) => Math.abs(value) >= F16_LIMIT);
    if (bad !== -1) throw new WeightsError(`${where}: weights must be below ${F16_LIMIT} to be stored in f16, got ${packed[bad]}; store them in f32`);
    return encodeF16(packed);
  }
  return dtype === "i8" ? encodeI8(packed, outer) : encodeI4(packed, outer);
}

/** One parameter of this many elements, all finite. @throws WeightsError */
export function parameter(where: string, params: Readonly<Record<string, Float32Array>>, key: string, shape: readonly number[]): Float32Array {
  const array = params[key];
  const size = shape.reduce((a, b) => a * b, 1);
  if (!(array instanceof Float32Array))
    throw new WeightsError(`${where}: params must have a Float32Array ${JSON.stringify(key)} of shape [${shape.join(", ")}], got ${describe(array)}`);
  if (array.length !== size)
    throw new WeightsError(`${where}: params["${key}"] must have ${size} elements ([${shape.join(", ")}]), got ${array.length}`);
  const bad = array.findIndex((value) => !Number.isFinite(value));
  if (bad !== -1) throw new WeightsError(`${where}: params["${key}"] must be finite, got ${array[bad]} at element ${bad}`);
  return array;
}

/** @throws RangeError for weights that the device cannot bind */
export function checkStored(where: string, gpu: Gpu, stored: Readonly<Record<string, ArrayBufferView>>): void {
  const { maxStorageBufferBindingSize } = gpu.limits;
  for (const { byteLength } of Object.values(stored)) {
    if (byteLength <= maxStorageBufferBindingSize) continue;
    const rule = `keep its weights within the device's maxStorageBufferBindingSize of ${maxStorageBufferBindingSize} bytes`;
    throw rangeError(where, "config", rule, raw(`${byteLength} bytes`), "use a smaller layer, or f16 or i8 weights");
  }
}

/** A byte a weight, one scale a channel. */
function encodeI8(packed: Float32Array, outer: number): Uint32Array {
  const inner = packed.length / outer - 1;
  const words = new Uint32Array((inner * outer) / 4 + 2 * outer);
  const bytes = new Int8Array(words.buffer);
  const floats = new Float32Array(words.buffer, inner * outer);
  for (let channel = 0; channel < outer; channel++) {
    const scale = largest(packed, outer, channel, 0, inner);
    for (let row = 0; row < inner && scale > 0; row++) {
      bytes[row * outer + channel] = Math.round(((packed[row * outer + channel] ?? 0) / scale) * 127);
    }
    floats[channel] = scale;
    floats[outer + channel] = packed[inner * outer + channel] ?? 0;
  }
  return words;
}

/** Half a byte a weight, an f16 scale for I4_GROUP inputs of a channel. */
function encodeI4(packed: Float32Array, outer: number): Uint32Array {
  const inner = packed.length / outer - 1;
  const groups = Math.ceil(inner / I4_GROUP);
  const weightWords = (inner * outer) / 8;
  const words = new Uint32Array(weightWords + (groups * outer) / 2 + outer);
  const scales = new Uint16Array(words.buffer, weightWords * 4, groups * outer);
  new Float32Array(words.buffer, (weightWords + (groups * outer) / 2) * 4).set(packed.subarray(inner * outer));
  for (let channel = 0; channel < outer; channel++) {
    for (let group = 0; group < groups; group++) {
      const first = group * I4_GROUP;
      const end = Math.min(first + I4_GROUP, inner);
      // The scale as it is stored, so that the weights are rounded to what it can give.
      const stored = encodeF16(Float32Array.of(largest(packed, outer, channel, first, end) / 7));
      scales[group * outer + channel] = stored[0] ?? 0;
      const [scale = 0] = decodeF16(stored);
      for (let row = first; row < end; row++) {
        const value = scale === 0 ? 0 : Math.max(-7, Math.min(7, Math.round((packed[row * outer + channel] ?? 0) / scale)));
        const word = Math.floor(row / 2) * (outer / 4) + Math.floor(channel / 4);
        words[word] = (words[word] ?? 0) | ((value + 8) << (16 * (row % 2) + 4 * (channel % 4)));
      }
    }
  }
  return words;
}

/** The largest absolute value of a channel's rows. */
function largest(packed: Float32Array, outer: number, channel: number, first: number, end: number): number {
  let max = 0;
  for (let row = first; row < end; row++) max = Math.max(max, Math.abs(packed[row * outer + channel] ?? 0));
  return max;
}

/** From here on a value rounds to infinity in f16. */
const F16_LIMIT = 65_520;
