import { checkInteger } from "../checks.ts";
import { checkLength, loadRow } from "./arrays.ts";
import { projection } from "./projection.ts";
import type { Weights } from "./types.ts";

/** Sizes of multi-head self-attention; each head has dim / heads channels. */
export interface AttentionShape {
  readonly dim: number;
  readonly heads: number;
}

/** Self-attention of tokens [B, N, D]; with `causal`, row t sees tokens 0 to t. */
export interface AttentionArguments {
  readonly x: ArrayLike<number>;
  readonly batch: number;
  readonly length: number;
  readonly causal?: boolean | undefined;
}

/**
 * y_t = Σ_n K(q_t, k_n) v_n / Σ_n K(q_t, k_n), K = exp(scale · q·k), head by head: queries [B, T, H·d], keys and values [B, N, H·d] -> [B, T, H·d].
 * `scale` is 1/√d unless given. With `causal`, query t is token `firstQuery` + t and sees no later one.
 */
export function attention(
  q: ArrayLike<number>,
  k: ArrayLike<number>,
  v: ArrayLike<number>,
  sizes: {
    batch: number;
    queryLength: number;
    keyLength: number;
    heads: number;
    headDim: number;
    scale?: number | undefined;
    causal?: boolean | undefined;
    firstQuery?: number | undefined;
  },
): Float64Array {
  const where = "attention";
  const batch = checkInteger(where, "batch", sizes.batch, 1);
  const queries = checkInteger(where, "queryLength", sizes.queryLength, 1);
  const keys = checkInteger(where, "keyLength", sizes.keyLength, 1);
  const heads = checkInteger(where, "heads", sizes.heads, 1);
  const headDim = checkInteger(where, "headDim", sizes.headDim, 1);
  const { scale = 1 / Math.sqrt(headDim), causal = false, firstQuery = 0 } = sizes;
  const width = heads * headDim;
  checkLength(where, "q", q, batch * queries * width, "B·T·H·d");
  checkLength(where, "k", k, batch * keys * width, "B·N·H·d");
  checkLength(where, "v", v, batch * keys * width, "B·N·H·d");
  const out = new Float64Array(batch * queries * width);
  const scores = new Float64Array(keys);
  for (let b = 0; b < batch; b++) {
    for (let t = 0; t < queries; t++) {
      const seen = causal ? Math.min(keys, firstQuery + t + 1) : keys;
      for (let head = 0; head < heads; head++) {
        const at = (b * queries + t) * width + head * headDim;
        let largest = Number.NEGATIVE_INFINITY;
        for (let n = 0; n < seen; n++) {
          const key = (b * keys + n) * width + head * headDim;
          let dot = 0;
          for (let d = 0; d < headDim; d++) dot += q[at + d]! * k[key + d]!;
          scores[n] = scale * dot;
          largest = Math.max(largest, scores[n]!);
        }
        let total = 0;
        for (let n = 0; n < seen; n++) {
          const value = (b * keys + n) * width + head * headDim;
          const share = Math.exp(scores[n]! - largest);
          total += share;
          for (let d = 0; d < headDim; d++) out[at + d] = out[at + d]! + share * v[value + d]!;
        }
        for (let d = 0; d < headDim; d++) out[at + d] = out[at + d]! / total;
      }
    }
  }
  return out;
}

/** Softmax self-attention with its projections `q_proj`, `k_proj`, `v_proj`, `out_proj` (each [D, D], biases optional): [B, N, D] -> [B, N, D]. */
export function attentionReference(shape: AttentionShape, params: Weights, args: AttentionArguments): Float64Array {
  const where = "attentionReference";
  return projected(where, shape, params, args, (q, k, v, sizes) =>
    attention(q, k, v, { ...sizes, queryLength: args.length, keyLength: args.length, causal: args.causal }),
  );
}

/** The projections around any kind of attention. */
export function projected(
  where: string,
  shape: AttentionShape,
  params: Weights,
  { x, batch, length }: AttentionArguments,
  mix: (q: Float64Array, k: Float64Array, v: Float64Array, sizes: { batch: number; heads: number; headDim: number }) => Float64Array,
): Float64Array {
  const dim = checkInteger(where, "dim", shape.dim, 1);
  const heads = checkInteger(where, "heads", shape.heads, 1);
  const headDim = checkInteger(where, "dim / heads", dim / heads, 1);
  checkInteger(where, "batch", batch, 1);
  checkInteger(where, "length", length, 1);
  checkLength(where, "x", x, batch * length * dim, "B·N·D");
  const apply = (values: ArrayLike<number>, name: string): Float64Array => {
    const project = projection(where, params, name, dim, dim);
    const row = new Float64Array(dim);
    const out = new Float64Array(batch * length * dim);
    for (let i = 0; i < batch * length; i++) {
      loadRow(values, i, row);
      project(row, out.subarray(i * dim, (i + 1) * dim));
    }
    return out;
  };
  return apply(mix(apply(x, "q_proj"), apply(x, "k_proj"), apply(x, "v_proj"), { batch, heads, headDim }), "out_proj");
}
