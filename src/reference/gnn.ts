import { checkObject } from "../checks.ts";
import { parameter } from "./arrays.ts";
import { type FfwKeys, homBlock, withPrefix } from "./block.ts";
import { linear } from "./linear.ts";
import type { HomShape, Weights } from "./types.ts";

/** Sizes of the graph network. */
export interface GnnShape extends Omit<HomShape, "activation"> {
  readonly ffwExpand: number;
}

/** What the graph network is given. */
export interface GnnArguments {
  /** [B, N, D] */
  readonly x: ArrayLike<number>;
  /** [N, N] or [B, N, N]: row t holds the weights of the nodes that node t sees; a Uint8Array is boolean */
  readonly adjacency: ArrayLike<number>;
  readonly batch: number;
  readonly nodes: number;
}

/** Keys of a layer: the mixer's are beside those of the feed-forward part. */
export const GNN_KEYS: FfwKeys = { hom: "", up: "ffw.1", down: "ffw.3" };

/** A layer over a graph: x + hom(x) with tanh, h the mean over a node's neighbours, then the feed-forward part. A node that sees none has h = 0. */
export function gnnLayer(shape: GnnShape, weights: Weights, { x, adjacency, batch, nodes }: GnnArguments): Float64Array {
  const call = { query: x, mask: { full: adjacency }, batch, queryLength: nodes };
  return homBlock({ ...shape, activation: "tanh" }, weights, GNN_KEYS, call, x, 0);
}

/** Layers `layers.0`, `layers.1`, …, then `linear`: [B, N, D] -> [B, N, classes]. */
export function gnnReference(
  shape: GnnShape & { readonly layers: number; readonly classes: number },
  weights: Weights,
  args: GnnArguments,
): Float64Array {
  const where = "gnnReference";
  checkObject(where, "arguments", args, ["x", "adjacency", "batch", "nodes"]);
  let x: ArrayLike<number> = args.x;
  for (let i = 0; i < shape.layers; i++) x = gnnLayer(shape, withPrefix(weights, `layers.${i}.`), { ...args, x });
  const { dim, classes } = shape;
  return linear(x, parameter(where, weights, "linear.weight", classes * dim), parameter(where, weights, "linear.bias", classes, true), {
    inDim: dim,
    outDim: classes,
  });
}
