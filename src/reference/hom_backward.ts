import { checkObject } from "../checks.ts";
import { activationGradient } from "./activation_gradients.ts";
import { activationFunction, sigmoid } from "./activations.ts";
import { aggregateBackward } from "./aggregate_backward.ts";
import { checkLength, loadRow, momentDim, parameter } from "./arrays.ts";
import { type HomArguments, homMoments, MASK_EPSILON } from "./hom.ts";
import { projection } from "./projection.ts";
import type { HomParams, HomShape } from "./types.ts";

export interface HomGradients {
  /** [B, T, D]; of a self-mixing call, the gradient with respect to the tokens in both of their parts. */
  readonly query: Float64Array;
  /** [B, N, D]; absent where the context was the query. */
  readonly context?: Float64Array;
  /** Under the parameters' names and in their layout; biases where the layer has them. */
  readonly params: Record<string, Float64Array>;
}

export interface HomBackwardArguments extends HomArguments {
  /** [B, T, D], the gradient of the output. */
  readonly gradOutput: ArrayLike<number>;
}

/** Gradients of the HoM layer for a gradient of its output. O(B·(N + T)·M) memory. */
export function homBackward(shape: HomShape, params: HomParams, args: HomBackwardArguments): HomGradients {
  const where = "homBackward";
  const { gradOutput, ...forward } = args;
  checkObject(where, "params", params, ["ho_proj.weight", "ho_proj.bias", "se_proj.weight", "se_proj.bias", "ag_proj.weight", "ag_proj.bias"]);
  const h = homMoments(shape, params, forward);
  const { dim } = shape;
  const width = momentDim(where, shape);
  const queries = args.batch * args.queryLength;
  const tokens = args.batch * (args.contextLength ?? args.queryLength);
  checkLength(where, "gradOutput", gradOutput, queries * dim, "B·T·D");
  const gradients: Record<string, Float64Array> = {};
  const ag = linearBackward(where, params, "ag_proj", width, dim, gradients);
  const se = linearBackward(where, params, "se_proj", dim, width, gradients);
  const ho = linearBackward(where, params, "ho_proj", dim, width, gradients);

  // r = σ(logit) ⊙ h, y = r·agᵀ + b
  const project = projection(where, params, "se_proj", dim, width);
  const query = new Float64Array(queries * dim);
  const gradMeans = new Float64Array(queries * width);
  const x = new Float64Array(dim);
  const dy = new Float64Array(dim);
  const r = new Float64Array(width);
  const dr = new Float64Array(width);
  const logit = new Float64Array(width);
  for (let i = 0; i < queries; i++) {
    loadRow(args.query, i, x);
    loadRow(gradOutput, i, dy);
    project(x, logit);
    const base = i * width;
    for (let j = 0; j < width; j++) r[j] = sigmoid(logit[j]!) * h[base + j]!;
    dr.fill(0);
    ag(r, dy, dr);
    for (let j = 0; j < width; j++) {
      const s = sigmoid(logit[j]!);
      gradMeans[base + j] = dr[j]! * s;
      logit[j] = dr[j]! * h[base + j]! * s * sigmoid(-logit[j]!);
    }
    se(x, logit, query.subarray(i * dim, (i + 1) * dim));
  }

  const gradMoments = aggregateBackward(where, width, MASK_EPSILON, forward, gradMeans);

  // m_i = z_i ⊙ m_(i-1), z = act(u)
  const { context = args.query } = args;
  const gradContext = args.context ? new Float64Array(tokens * dim) : query;
  const expand = projection(where, params, "ho_proj", dim, width);
  const act = activationFunction(shape.activation);
  const slope = activationGradient(shape.activation);
  const chunk = width / shape.order;
  const u = new Float64Array(width);
  const m = new Float64Array(width);
  for (let n = 0; n < tokens; n++) {
    loadRow(context, n, x);
    expand(x, u);
    for (let j = 0; j < width; j++) m[j] = act(u[j]!) * (j < chunk ? 1 : m[j - chunk]!);
    const dm = gradMoments.subarray(n * width, (n + 1) * width);
    for (let j = width - 1; j >= 0; j--) {
      const before = j < chunk ? 1 : m[j - chunk]!;
      if (j >= chunk) dm[j - chunk]! += dm[j]! * act(u[j]!);
      dm[j] = dm[j]! * before * slope(u[j]!);
    }
    ho(x, dm, gradContext.subarray(n * dim, (n + 1) * dim));
  }
  return { query, ...(args.context && { context: gradContext }), params: gradients };
}

/** y = W·x + b of one row: dx += dy·W, and to the gradients of the parameters W += dy·xᵀ, b += dy. */
function linearBackward(where: string, params: HomParams, name: string, inDim: number, outDim: number, gradients: Record<string, Float64Array>) {
  const key = `${name}.weight`;
  const weight = parameter(where, params, key, outDim * inDim);
  const gradient = new Float64Array(outDim * inDim);
  gradients[key] = gradient;
  const bias = parameter(where, params, `${name}.bias`, outDim, true) && new Float64Array(outDim);
  if (bias) gradients[`${name}.bias`] = bias;
  return (x: Float64Array, dy: Float64Array, dx: Float64Array): void => {
    for (let o = 0; o < outDim; o++) {
      const g = dy[o]!;
      if (g === 0) continue;
      if (bias) bias[o]! += g;
      const base = o * inDim;
      for (let i = 0; i < inDim; i++) {
        dx[i]! += g * weight[base + i]!;
        gradient[base + i]! += g * x[i]!;
      }
    }
  };
}
