import { checkObject } from "../checks.ts";
import { checkLength, parameter } from "./arrays.ts";
import { withPrefix } from "./block.ts";
import { homBlockBackward } from "./block_backward.ts";
import { GNN_KEYS, type GnnArguments, type GnnShape, gnnLayer } from "./gnn.ts";
import { denseBackward } from "./hlm_backward.ts";
import type { Weights } from "./types.ts";

/** The call, and the gradient of its output. */
export interface GnnBackwardArguments extends GnnArguments {
  /** [B, N, D], or [B, N, classes] of a network. */
  readonly gradOutput: ArrayLike<number>;
}

/** What {@link gnnLayerBackward} and {@link gnnBackward} give. */
export interface GnnGradients {
  /** [B, N, D] */
  readonly x: Float64Array;
  /** Under the checkpoint's names and in their layout. */
  readonly params: Record<string, Float64Array>;
}

/** Gradients of `gnnLayer`. */
export function gnnLayerBackward(shape: GnnShape, weights: Weights, args: GnnBackwardArguments): GnnGradients {
  const { x, adjacency, batch, nodes, gradOutput } = args;
  const call = { query: x, mask: { full: adjacency }, batch, queryLength: nodes, gradOutput };
  const { query, params } = homBlockBackward({ ...shape, activation: "tanh" }, weights, GNN_KEYS, call, 0);
  return { x: query, params };
}

/** Gradients of `gnnReference`. */
export function gnnBackward(
  shape: GnnShape & { readonly layers: number; readonly classes: number },
  weights: Weights,
  args: GnnBackwardArguments,
): GnnGradients {
  const where = "gnnBackward";
  checkObject(where, "arguments", args, ["x", "adjacency", "batch", "nodes", "gradOutput"]);
  const { dim, layers, classes } = shape;
  const { gradOutput, ...call } = args;
  checkLength(where, "gradOutput", gradOutput, args.batch * args.nodes * classes, "B·N·classes");
  const own = (i: number) => withPrefix(weights, `layers.${i}.`);
  const inputs: ArrayLike<number>[] = [call.x];
  for (let i = 0; i < layers; i++) inputs.push(gnnLayer(shape, own(i), { ...call, x: inputs[i]! }));
  const weight = parameter(where, weights, "linear.weight", classes * dim);
  const linear = denseBackward({ weight, inner: dim, outer: classes }, Float64Array.from(inputs[layers]!), Float64Array.from(gradOutput));
  const params: Record<string, Float64Array> = { "linear.weight": linear.weight, ...(weights["linear.bias"] && { "linear.bias": linear.bias }) };
  let dx: Float64Array = linear.dx;
  for (let i = layers - 1; i >= 0; i--) {
    const layer = gnnLayerBackward(shape, own(i), { ...call, x: inputs[i]!, gradOutput: dx });
    for (const [key, value] of Object.entries(layer.params)) params[`layers.${i}.${key}`] = value;
    dx = layer.x;
  }
  return { x: dx, params };
}
