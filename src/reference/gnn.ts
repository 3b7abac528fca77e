import { checkObject } from "../checks.ts";
import { aggregate } from "./aggregate.ts";
import { loadRow, momentDim, parameter } from "./arrays.ts";
import { feedForward, withPrefix } from "./block.ts";
import { linear } from "./linear.ts";
import { momentExpander } from "./moments.ts";
import { selectRow } from "./select.ts";
import type { HomParams, HomShape, Weights } from "./types.ts";

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

const PROJECTIONS = ["ho_proj", "se_proj", "ag_proj"].flatMap((name) => [`${name}.weight`, `${name}.bias`]);

/** A layer over a graph: x + hom(x) with tanh, h the mean over a node's neighbours, then the feed-forward part. A node that sees none has h = 0. */
export function gnnLayer(shape: GnnShape, weights: Weights, args: GnnArguments): Float64Array {
  const where = "gnnLayer";
  const { dim, order, orderExpand, ffwExpand } = shape;
  const hom: HomShape = { dim, order, orderExpand, activation: "tanh" };
  const params = Object.fromEntries(PROJECTIONS.map((key) => [key, weights[key]])) as HomParams;
  const { x, adjacency, batch, nodes } = args;
  const select = selectRow(where, params, hom);
  const expand = momentExpander(where, params, hom);
  const row = new Float64Array(dim);
  const out = new Float64Array(batch * nodes * dim);
  const call = { query: x, mask: { full: adjacency }, batch, queryLength: nodes };
  aggregate(where, { dim, momentDim: momentDim(where, hom), expand, epsilon: 0 }, call, (start, end, h, base) => {
    for (let i = start; i < end; i++) {
      loadRow(x, i, row);
      select(row, h, base, out.subarray(i * dim, (i + 1) * dim));
    }
  });
  for (let i = 0; i < out.length; i++) out[i] = out[i]! + x[i]!;
  return feedForward(dim, ffwExpand, weights, { up: "ffw.1", down: "ffw.3" }, out);
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
