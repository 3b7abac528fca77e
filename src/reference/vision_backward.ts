import { checkObject } from "../checks.ts";
import { checkLength, parameter } from "./arrays.ts";
import { withPrefix } from "./block.ts";
import { homBlockBackward } from "./block_backward.ts";
import { denseBackward } from "./hlm_backward.ts";
import { resizeGridBackward, unpatchify } from "./images.ts";
import type { Weights } from "./types.ts";
import { VISION_KEYS, type VisionArguments, type VisionShape, visionForward } from "./vision.ts";

/** The call, and the gradient of its output. */
export interface VisionBackwardArguments extends VisionArguments {
  /** [B, classes], or [B, n, classes] without pooling. */
  readonly gradOutput: ArrayLike<number>;
}

/** What {@link visionBackward} gives. */
export interface VisionGradients {
  /** [B, C, H, W] */
  readonly image: Float64Array;
  /** Under the checkpoint's names and in their layout. */
  readonly params: Record<string, Float64Array>;
}

/** Gradients of the classifier for a gradient of its logits. */
export function visionBackward(shape: VisionShape, weights: Weights, args: VisionBackwardArguments): VisionGradients {
  const where = "visionBackward";
  checkObject(where, "arguments", args, ["image", "mask", "batch", "height", "width", "gradOutput"]);
  const { dim, order, orderExpand, ffwExpand, layers, classes, channels, patch } = shape;
  const { gradOutput, ...forward } = args;
  const { batch, height, width } = args;
  const { inner, n, tokens, known, patches, calls, read, rows } = visionForward(where, shape, weights, forward);
  checkLength(where, "gradOutput", gradOutput, batch * read.count * classes, "B·rows·classes");
  const params: Record<string, Float64Array> = {};
  const dense = (name: string, x: Float64Array, dy: Float64Array, from: number, to: number): Float64Array => {
    const { dx, weight, bias } = denseBackward({ weight: parameter(where, weights, `${name}.weight`, to * from), inner: from, outer: to }, x, dy);
    params[`${name}.weight`] = weight;
    if (weights[`${name}.bias`]) params[`${name}.bias`] = bias;
    return dx;
  };

  const drows = dense("out_proj", rows, Float64Array.from(gradOutput), dim, classes);
  let dx: Float64Array = new Float64Array(batch * tokens * dim);
  for (let b = 0; b < batch; b++) {
    dx.set(drows.subarray(b * read.count * dim, (b + 1) * read.count * dim), (b * tokens + read.at) * dim);
  }
  for (let i = layers - 1; i >= 0; i--) {
    const own = withPrefix(weights, `layers.${i}.`);
    const block = homBlockBackward({ dim, order, orderExpand, ffwExpand }, own, VISION_KEYS, { ...calls[i]!, gradOutput: dx });
    for (const [key, value] of Object.entries(block.params)) params[`layers.${i}.${key}`] = value;
    dx = block.query;
  }

  const cls = new Float64Array(dim);
  const position = new Float64Array(n * dim);
  const dembedded = new Float64Array(batch * n * dim);
  for (let b = 0; b < batch; b++) {
    for (let i = 0; i < tokens * dim; i++) {
      const value = dx[b * tokens * dim + i]!;
      if (i < dim) {
        cls[i]! += value;
      } else {
        position[i - dim]! += value;
        dembedded[b * n * dim + i - dim] = value;
      }
    }
  }
  params["cls"] = cls;
  params["position"] = known === n ? position : resizeGridBackward(position, Math.sqrt(known), dim, false);
  const dpatches = dense("conv", patches, dembedded, inner, dim);
  return { image: unpatchify(dpatches, { batch, channels, height, width, patch }, false), params };
}
