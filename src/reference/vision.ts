import { checkObject, rangeError, raw } from "../checks.ts";
import { checkLength, parameter } from "./arrays.ts";
import { type FfwKeys, homBlock, withPrefix } from "./block.ts";
import { patchify, resizeGrid } from "./images.ts";
import { linear } from "./linear.ts";
import type { HomShape, Weights } from "./types.ts";

/** Sizes of the classifier. */
export interface VisionShape extends HomShape {
  readonly ffwExpand: number;
  readonly layers: number;
  readonly classes: number;
  readonly channels: number;
  readonly patch: number;
  /** "cls": logits of the first token; "none": of every patch. */
  readonly pooling: "cls" | "none";
}

/** What the classifier is given. */
export interface VisionArguments {
  /** [B, C, H, W] */
  readonly image: ArrayLike<number>;
  /** `[B, n]`, patches that are seen */
  readonly mask?: ArrayLike<number> | undefined;
  readonly batch: number;
  readonly height: number;
  readonly width: number;
}

/** The classifier: patches + positions behind a `cls` token, HoM blocks, `out_proj`: [B, classes] or [B, n, classes]. */
export function visionReference(shape: VisionShape, weights: Weights, args: VisionArguments): Float64Array {
  return visionForward("visionReference", shape, weights, args).output;
}

/** Keys of a layer's feed-forward part. */
export const VISION_KEYS: FfwKeys = { up: "ffw.1", down: "ffw.3" };

/** Everything on the way from an image to the logits, in the order in which it is computed. */
export function visionForward(where: string, shape: VisionShape, weights: Weights, args: VisionArguments) {
  checkObject(where, "arguments", args, ["image", "mask", "batch", "height", "width"]);
  const { dim, order, orderExpand, ffwExpand, layers, classes, channels, patch, pooling } = shape;
  const { image, mask, batch, height, width } = args;
  const inner = channels * patch * patch;
  const n = Math.floor(height / patch) * Math.floor(width / patch);
  const patches = patchify(image, { batch, channels, height, width, patch });
  const weight = parameter(where, weights, "conv.weight", dim * inner);
  const embedded = linear(patches, weight, parameter(where, weights, "conv.bias", dim, true), { inDim: inner, outDim: dim });
  const known = (weights["position"]?.length ?? 0) / dim;
  let position: ArrayLike<number> = parameter(where, weights, "position", known * dim);
  if (known !== n) {
    const side = Math.floor(Math.sqrt(n));
    if (side * side !== n) throw rangeError(where, "image", "have a square number of patches", raw(`${n}`));
    position = resizeGrid(position, side, dim, false);
  }
  const cls = parameter(where, weights, "cls", dim);
  const tokens = n + 1;
  const first = new Float64Array(batch * tokens * dim);
  for (let b = 0; b < batch; b++) {
    first.set(cls, b * tokens * dim);
    for (let i = 0; i < n * dim; i++) first[(b * tokens + 1) * dim + i] = embedded[b * n * dim + i]! + position[i]!;
  }
  let padding: Float64Array | undefined;
  if (mask) {
    checkLength(where, "mask", mask, batch * n, "B·n");
    padding = Float64Array.from({ length: batch * tokens }, (_, i) =>
      i % tokens === 0 ? 1 : Number(mask[Math.floor(i / tokens) * n + (i % tokens) - 1]),
    );
  }
  const x: Float64Array[] = [first];
  const calls = Array.from({ length: layers }, (_, i) => {
    const call = { query: x[i]!, ...(padding && { mask: { padding } }), batch, queryLength: tokens };
    x.push(homBlock({ dim, order, orderExpand, ffwExpand }, withPrefix(weights, `layers.${i}.`), VISION_KEYS, call));
    return call;
  });
  /** The tokens that are read: where the first is, and how many there are of an image. */
  const read = pooling === "cls" ? { at: 0, count: 1 } : { at: 1, count: n };
  const rows = new Float64Array(batch * read.count * dim);
  for (let b = 0; b < batch; b++) {
    const at = (b * tokens + read.at) * dim;
    rows.set(x[layers]!.subarray(at, at + read.count * dim), b * read.count * dim);
  }
  const out = parameter(where, weights, "out_proj.weight", classes * dim);
  const output = linear(rows, out, parameter(where, weights, "out_proj.bias", classes, true), { inDim: dim, outDim: classes });
  return { inner, n, tokens, known, patches, calls, read, rows, output };
}
