import { checkObject, rangeError, raw } from "../checks.ts";
import { checkLength, parameter } from "./arrays.ts";
import { homBlock, withPrefix } from "./block.ts";
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
  const where = "visionReference";
  checkObject(where, "arguments", args, ["image", "mask", "batch", "height", "width"]);
  const { dim, order, orderExpand, ffwExpand, layers, classes, channels, patch, pooling } = shape;
  const { image, mask, batch, height, width } = args;
  const inner = channels * patch * patch;
  const n = Math.floor(height / patch) * Math.floor(width / patch);
  const sizes = { batch, channels, height, width, patch };
  const weight = parameter(where, weights, "conv.weight", dim * inner);
  const patches = linear(patchify(image, sizes), weight, parameter(where, weights, "conv.bias", dim, true), { inDim: inner, outDim: dim });
  const known = (weights["position"]?.length ?? 0) / dim;
  let position: ArrayLike<number> = parameter(where, weights, "position", known * dim);
  if (known !== n) {
    const side = Math.floor(Math.sqrt(n));
    if (side * side !== n) throw rangeError(where, "image", "have a square number of patches", raw(`${n}`));
    position = resizeGrid(position, side, dim, false);
  }
  const cls = parameter(where, weights, "cls", dim);
  const tokens = n + 1;
  let x: Float64Array = new Float64Array(batch * tokens * dim);
  for (let b = 0; b < batch; b++) {
    x.set(cls, b * tokens * dim);
    for (let i = 0; i < n * dim; i++) x[(b * tokens + 1) * dim + i] = patches[b * n * dim + i]! + position[i]!;
  }
  let padding: Float64Array | undefined;
  if (mask) {
    checkLength(where, "mask", mask, batch * n, "B·n");
    padding = Float64Array.from({ length: batch * tokens }, (_, i) =>
      i % tokens === 0 ? 1 : Number(mask[Math.floor(i / tokens) * n + (i % tokens) - 1]),
    );
  }
  for (let i = 0; i < layers; i++) {
    const call = { query: x, ...(padding && { mask: { padding } }), batch, queryLength: tokens };
    x = homBlock({ dim, order, orderExpand, ffwExpand }, withPrefix(weights, `layers.${i}.`), { up: "ffw.1", down: "ffw.3" }, call);
  }
  const rows = pooling === "cls" ? 1 : n;
  const read = new Float64Array(batch * rows * dim);
  for (let b = 0; b < batch; b++) {
    const first = (b * tokens + (pooling === "cls" ? 0 : 1)) * dim;
    read.set(x.subarray(first, first + rows * dim), b * rows * dim);
  }
  const out = parameter(where, weights, "out_proj.weight", classes * dim);
  return linear(read, out, parameter(where, weights, "out_proj.bias", classes, true), { inDim: dim, outDim: classes });
}
