import { aggregateBackward } from "./aggregate_backward.ts";
import { checkLength, loadRow, parameter } from "./arrays.ts";
import { polynomialBackwardRow, turnBack } from "./polynomial_backward.ts";
import { gateCount, hardSigmoid, type PomArguments, type PomShape, pomMeans, pomMomentDim, queryPositions, rotation, tokenPositions } from "./pom.ts";
import { matvec } from "./projection.ts";
import type { Weights } from "./types.ts";

/** What {@link pomBackward} gives. */
export interface PomGradients {
  /** [B, T, D]; of a self-mixing call, the gradient with respect to the tokens in both of their parts. */
  readonly query: Float64Array;
  /** [B, N, D]; absent where the context was the query. */
  readonly context?: Float64Array;
  /** Under the parameters' names and in their layout; tables of rotations are constants. */
  readonly params: Record<string, Float64Array>;
}

/** The call, and the gradient of its output. */
export interface PomBackwardArguments extends PomArguments {
  /** [B, T, D], the gradient of the output. */
  readonly gradOutput: ArrayLike<number>;
}

/** Derivative of `hardSigmoid`: 0 at its ends. */
export function hardSigmoidGradient(l: number): number {
  return l > -3 && l < 3 ? 1 / 6 : 0;
}

/** Gradients of the PoM layer for a gradient of its output. O(B·(N + T)·M) memory. */
export function pomBackward(shape: PomShape, params: Weights, args: PomBackwardArguments): PomGradients {
  const where = "pomBackward";
  const { gradOutput, ...forward } = args;
  const { dim, nGroups: groups = 1 } = shape;
  const M = pomMomentDim(where, shape);
  const G = gateCount(shape);
  const queries = args.batch * args.queryLength;
  const tokens = args.batch * (args.contextLength ?? args.queryLength);
  checkLength(where, "gradOutput", gradOutput, queries * dim, "B·T·D");
  const h = new Float64Array(queries * M);
  pomMeans(where, shape, params, forward, (start, end, mean, base) => {
    for (let i = start; i < end; i++) h.set(mean.subarray(base, base + M), i * M);
  });

  const plain = groups === 1;
  const of = (key: string, length: number) => parameter(where, params, key, length);
  const gradients: Record<string, Float64Array> = {};
  const gradientOf = (key: string) => {
    const length = params[key]?.length;
    if (length === undefined) return undefined;
    gradients[key] = new Float64Array(length);
    return gradients[key];
  };
  const se = plain ? of("qc_proj.weight", (M + G) * dim).subarray(M * dim) : of("se_proj.weight", G * dim);
  const seBias = params[plain ? "se_bias" : "se_proj.bias"];
  const ag = of("ag_proj.weight", dim * M);
  const inputs = dim / groups;
  const po = plain ? of("qc_proj.weight", (M + G) * dim).subarray(0, M * dim) : of("po_proj.weight", M * inputs);
  const gradQc = plain ? gradientOf("qc_proj.weight") : undefined;
  const gradPo = gradQc ? gradQc.subarray(0, M * dim) : gradientOf("po_proj.weight")!;
  const gradSe = gradQc ? gradQc.subarray(M * dim) : gradientOf("se_proj.weight")!;
  const gradPoBias = gradientOf("po_proj.bias");
  const gradSeBias = gradientOf(plain ? "se_bias" : "se_proj.bias");
  const gradAg = gradientOf("ag_proj.weight")!;
  const gradAgBias = gradientOf("ag_proj.bias");
  const gradCoefficients = gradientOf("po_coeff")!;

  // ---- selection ----
  const gatesAt = queryPositions(where, shape, forward);
  const turnGates = rotation(where, params, shape, "gates");
  const query = new Float64Array(queries * dim);
  const gradMeans = new Float64Array(queries * M);
  const [x, dy] = [new Float64Array(dim), new Float64Array(dim)];
  const [logits, s, ds] = [new Float64Array(G), new Float64Array(G), new Float64Array(G)];
  const bias = seBias ? Float64Array.from(seBias) : new Float64Array(G);
  const gateOf = (c: number) => Math.floor((c * G) / M);
  for (let i = 0; i < queries; i++) {
    loadRow(args.query, i, x);
    loadRow(gradOutput, i, dy);
    matvec(se, bias, x, logits);
    for (let j = 0; j < G; j++) s[j] = hardSigmoid(logits[j]!);
    if (turnGates && gatesAt) turnGates(s, i, gatesAt);
    ds.fill(0);
    for (let c = 0; c < M; c++) {
      const mean = h[i * M + c]!;
      let dr = 0;
      for (let o = 0; o < dim; o++) {
        dr += dy[o]! * ag[o * M + c]!;
        gradAg[o * M + c]! += dy[o]! * s[gateOf(c)]! * mean;
      }
      gradMeans[i * M + c] = dr * s[gateOf(c)]!;
      ds[gateOf(c)]! += dr * mean;
    }
    if (gradAgBias) for (let o = 0; o < dim; o++) gradAgBias[o]! += dy[o]!;
    if (turnGates && gatesAt) turnBack(turnGates, shape)(ds, i, gatesAt);
    for (let j = 0; j < G; j++) {
      const g = ds[j]! * hardSigmoidGradient(logits[j]!);
      if (gradSeBias) gradSeBias[j]! += g;
      for (let d = 0; d < dim; d++) {
        gradSe[j * dim + d]! += g * x[d]!;
        query[i * dim + d]! += g * se[j * dim + d]!;
      }
    }
  }

  // ---- tokens ----
  const gradMoments = aggregateBackward(where, M, 0, forward, gradMeans);
  const tokensAt = tokenPositions(where, shape, forward);
  const backward = polynomialBackwardRow(where, params, shape, tokensAt);
  const { context = args.query } = args;
  const gradContext = args.context ? new Float64Array(tokens * dim) : query;
  for (let n = 0; n < tokens; n++) {
    loadRow(context, n, x);
    const dz = gradMoments.subarray(n * M, (n + 1) * M);
    backward(x, dz, n, gradCoefficients);
    for (let c = 0; c < M; c++) {
      const g = dz[c]!;
      if (gradPoBias) gradPoBias[c]! += g;
      const first = Math.floor((c * groups) / M) * inputs;
      for (let d = 0; d < inputs; d++) {
        gradPo[c * inputs + d]! += g * x[first + d]!;
        gradContext[n * dim + first + d]! += g * po[c * inputs + d]!;
      }
    }
  }
  return { query, ...(args.context && { context: gradContext }), params: gradients };
}
