import { checkObject } from "../checks.ts";
import { activationGradient } from "./activation_gradients.ts";
import { gelu } from "./activations.ts";
import { parameter } from "./arrays.ts";
import { type FfwKeys, homParams } from "./block.ts";
import { denseBackward } from "./hlm_backward.ts";
import { type HomArguments, homReference, MASK_EPSILON } from "./hom.ts";
import { homBackward } from "./hom_backward.ts";
import { linear } from "./linear.ts";
import type { HomShape, Weights } from "./types.ts";

/** A self-mixing call of a block, and the gradient of its output. */
export interface BlockBackwardArguments extends Omit<HomArguments, "context" | "contextLength"> {
  /** [B, T, D] */
  readonly gradOutput: ArrayLike<number>;
}

/** What {@link homBlockBackward} gives. */
export interface BlockGradients {
  /** [B, T, D] */
  readonly query: Float64Array;
  /** Under the block's checkpoint names and in their layout. */
  readonly params: Record<string, Float64Array>;
}

/** Gradients of `homBlock` over its own tokens, x = xq + hom(xq), y = x + down(gelu(up(x))), for a gradient of y. */
export function homBlockBackward(
  shape: HomShape & { readonly ffwExpand: number },
  weights: Weights,
  keys: FfwKeys,
  args: BlockBackwardArguments,
  epsilon: number = MASK_EPSILON,
): BlockGradients {
  const where = "homBlockBackward";
  checkObject(where, "arguments", args, ["query", "mask", "batch", "queryLength", "gradOutput"]);
  const { dim, ffwExpand } = shape;
  const { gradOutput, ...call } = args;
  const { hom: prefix = "hom.", up, down } = keys;
  const width = ffwExpand * dim;
  const dy = Float64Array.from(gradOutput);
  const hom = homParams(weights, prefix);
  const x = homReference(shape, hom, call, epsilon).map((value, i) => value + call.query[i]!);
  const [upWeight, downWeight] = [parameter(where, weights, `${up}.weight`, width * dim), parameter(where, weights, `${down}.weight`, dim * width)];
  const u = linear(x, upWeight, parameter(where, weights, `${up}.bias`, width, true), { inDim: dim, outDim: width });

  const ofDown = denseBackward({ weight: downWeight, inner: width, outer: dim }, u.map(gelu), dy);
  const slope = activationGradient("gelu");
  const du = ofDown.dx.map((value, i) => value * slope(u[i]!));
  const ofUp = denseBackward({ weight: upWeight, inner: dim, outer: width }, x, du);
  const dx = ofUp.dx.map((value, i) => value + dy[i]!);
  const mixed = homBackward(shape, hom, { ...call, gradOutput: dx }, epsilon);
  const params: Record<string, Float64Array> = {};
  for (const [key, value] of Object.entries(mixed.params)) params[`${prefix}${key}`] = value;
  for (const [name, { weight, bias }] of [[up, ofUp] as const, [down, ofDown] as const]) {
    params[`${name}.weight`] = weight;
    if (weights[`${name}.bias`]) params[`${name}.bias`] = bias;
  }
  return { query: mixed.query.map((value, i) => value + dx[i]!), params };
}
