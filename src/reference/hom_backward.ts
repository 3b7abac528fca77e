import { checkObject } from "../checks.ts";
import { aggregateBackward } from "./aggregate_backward.ts";
import { checkLength, loadRow, momentDim } from "./arrays.ts";
import { gateBackwardRow } from "./gate_backward.ts";
import { type HomArguments, homMoments, MASK_EPSILON } from "./hom.ts";
import { momentsBackwardRow } from "./moments_backward.ts";
import { projectionBackward } from "./projection.ts";
import type { HomParams, HomShape } from "./types.ts";

/** What {@link homBackward} gives. */
export interface HomGradients {
  /** [B, T, D]; of a self-mixing call, the gradient with respect to the tokens in both of their parts. */
  readonly query: Float64Array;
  /** [B, N, D]; absent where the context was the query. */
  readonly context?: Float64Array;
  /** Under the parameters' names and in their layout; biases where the layer has them. */
  readonly params: Record<string, Float64Array>;
}

/** The call, and the gradient of its output. */
export interface HomBackwardArguments extends HomArguments {
  /** [B, T, D], the gradient of the output. */
  readonly gradOutput: ArrayLike<number>;
}

/** Gradients of the HoM layer for a gradient of its output. O(B·(N + T)·M) memory. */
export function homBackward(shape: HomShape, params: HomParams, args: HomBackwardArguments, epsilon: number = MASK_EPSILON): HomGradients {
  const where = "homBackward";
  const { gradOutput, ...forward } = args;
  checkObject(where, "params", params, ["ho_proj.weight", "ho_proj.bias", "se_proj.weight", "se_proj.bias", "ag_proj.weight", "ag_proj.bias"]);
  const h = homMoments(shape, params, forward, epsilon);
  const { dim } = shape;
  const width = momentDim(where, shape);
  const queries = args.batch * args.queryLength;
  const tokens = args.batch * (args.contextLength ?? args.queryLength);
  checkLength(where, "gradOutput", gradOutput, queries * dim, "B·T·D");
  const gradients: Record<string, Float64Array> = {};
  const ag = projectionBackward(where, params, "ag_proj", width, dim, gradients);
  const se = projectionBackward(where, params, "se_proj", dim, width, gradients);
  const ho = projectionBackward(where, params, "ho_proj", dim, width, gradients);

  const dy = new Float64Array(dim);
  const select = gateBackwardRow(where, params, shape, (r, dr) => {
    dr.fill(0);
    ag(r, dy, dr);
  });
  const query = new Float64Array(queries * dim);
  const gradMeans = new Float64Array(queries * width);
  const x = new Float64Array(dim);
  const [r, dr, gradLogits] = [new Float64Array(width), new Float64Array(width), new Float64Array(width)];
  for (let i = 0; i < queries; i++) {
    loadRow(args.query, i, x);
    loadRow(gradOutput, i, dy);
    select(x, h, i * width, dr, { r, gradLogits, gradMoments: gradMeans.subarray(i * width, (i + 1) * width) });
    se(x, gradLogits, query.subarray(i * dim, (i + 1) * dim));
  }

  const gradMoments = aggregateBackward(where, width, epsilon, forward, gradMeans);

  const { context = args.query } = args;
  const gradContext = args.context ? new Float64Array(tokens * dim) : query;
  const expand = momentsBackwardRow(where, params, shape);
  for (let n = 0; n < tokens; n++) {
    loadRow(context, n, x);
    const du = gradMoments.subarray(n * width, (n + 1) * width);
    expand(x, du);
    ho(x, du, gradContext.subarray(n * dim, (n + 1) * dim));
  }
  return { query, ...(args.context && { context: gradContext }), params: gradients };
}
