import { checkInteger } from "../checks.ts";
import { parameter } from "./arrays.ts";
import { type HomArguments, homReference, MASK_EPSILON } from "./hom.ts";
import { linear } from "./linear.ts";
import type { HomParams, HomShape, Weights } from "./types.ts";

/** Names of the two Linears of a feed-forward part: "ffw.1" and "ffw.3" in HoMLayer (a dropout sits at 0), "ffw.0" and "ffw.2" in HLM. */
export interface FfwKeys {
  readonly up: string;
  readonly down: string;
  /** What comes before the mixer's names. Default "hom.". */
  readonly hom?: string | undefined;
}

/** x = residual + hom(xq, xc, mask); y = x + ffw.down(gelu(ffw.up(x))): query [B, T, D] -> [B, T, D]. The residual is the query where none is given. */
export function homBlock(
  shape: HomShape & { readonly ffwExpand: number },
  weights: Weights,
  ffw: FfwKeys,
  args: HomArguments,
  residual: ArrayLike<number> = args.query,
  epsilon: number = MASK_EPSILON,
): Float64Array {
  const mixed = homReference(shape, homParams(weights, ffw.hom ?? "hom."), args, epsilon);
  for (let i = 0; i < mixed.length; i++) mixed[i] = mixed[i]! + residual[i]!;
  return feedForward(shape.dim, shape.ffwExpand, weights, ffw, mixed);
}

/** x + down(gelu(up(x))): x [rows, D] -> [rows, D], inner width ffwExpand·D */
export function feedForward(dim: number, ffwExpand: number, weights: Weights, ffw: FfwKeys, x: Float64Array): Float64Array {
  const where = "feedForward";
  const inner = checkInteger(where, "ffwExpand", ffwExpand, 1) * dim;
  const hidden = linear(x, parameter(where, weights, `${ffw.up}.weight`, inner * dim), parameter(where, weights, `${ffw.up}.bias`, inner, true), {
    inDim: dim,
    outDim: inner,
    activation: "gelu",
  });
  return linear(hidden, parameter(where, weights, `${ffw.down}.weight`, dim * inner), parameter(where, weights, `${ffw.down}.bias`, dim, true), {
    inDim: inner,
    outDim: dim,
    residual: x,
  });
}

/** The entries under `prefix`, without it. */
export function withPrefix(weights: Weights, prefix: string): Record<string, ArrayLike<number> | undefined> {
  const found: Record<string, ArrayLike<number> | undefined> = {};
  for (const [key, values] of Object.entries(weights)) if (key.startsWith(prefix)) found[key.slice(prefix.length)] = values;
  return found;
}

/** The mixer's parameters; their presence and length are checked by who reads them. */
export function homParams(weights: Weights, prefix: string): HomParams {
  const own = Object.entries(withPrefix(weights, prefix)).filter(([key]) => key !== "decay" && !key.startsWith("ffw."));
  return Object.fromEntries(own) as HomParams;
}
