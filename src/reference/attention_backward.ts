import { checkInteger } from "../checks.ts";
import { checkLength, loadRow } from "./arrays.ts";
import { type AttentionArguments, type AttentionShape, attention } from "./attention.ts";
import type { MixGradients } from "./linear_attention_backward.ts";
import { projection, projectionBackward } from "./projection.ts";
import type { Weights } from "./types.ts";

/** The call, and the gradient of its output [B, N, D]. */
export interface AttentionBackwardArguments extends AttentionArguments {
  readonly gradOutput: ArrayLike<number>;
}

/** Gradients of self-attention with its projections. */
export interface AttentionGradients {
  /** [B, N, D], of the tokens. */
  readonly query: Float64Array;
  /** Under the parameters' names and in their layout; biases where the layer has them. */
  readonly params: Record<string, Float64Array>;
}

/**
 * Gradients of `attention` of tokens among themselves, for a gradient of its result [B, N, H·d]. With the shares p_tn, of which y_t = Σ_n p_tn v_n,
 *
 *   ds_tn = p_tn (dy_t·v_n - dy_t·y_t),   dq_t = scale Σ_n ds_tn k_n,   dk_n = scale Σ_t ds_tn q_t,   dv_n = Σ_t p_tn dy_t
 *
 * over the pairs where t sees n.
 */
export function attentionBackward(
  q: ArrayLike<number>,
  k: ArrayLike<number>,
  v: ArrayLike<number>,
  gradContext: ArrayLike<number>,
  sizes: { readonly batch: number; readonly length: number; readonly heads: number; readonly headDim: number; readonly causal?: boolean | undefined },
): MixGradients {
  const where = "attentionBackward";
  const { batch, length, heads, headDim, causal = false } = sizes;
  const y = attention(q, k, v, { batch, queryLength: length, keyLength: length, heads, headDim, causal });
  checkLength(where, "gradContext", gradContext, y.length, "B·N·H·d");
  const [ofQ, ofK, ofV] = [new Float64Array(y.length), new Float64Array(y.length), new Float64Array(y.length)];
  const width = heads * headDim;
  const scale = 1 / Math.sqrt(headDim);
  const [scores, slopes] = [new Float64Array(length), new Float64Array(length)];
  for (let t = 0; t < batch * length; t++) {
    const first = t - (t % length);
    const seen = causal ? (t % length) + 1 : length;
    for (let head = 0; head < heads; head++) {
      const at = t * width + head * headDim;
      let delta = 0;
      for (let d = 0; d < headDim; d++) delta += gradContext[at + d]! * y[at + d]!;
      let largest = Number.NEGATIVE_INFINITY;
      for (let n = 0; n < seen; n++) {
        const key = (first + n) * width + head * headDim;
        let [score, slope] = [0, 0];
        for (let d = 0; d < headDim; d++) {
          score += q[at + d]! * k[key + d]!;
          slope += gradContext[at + d]! * v[key + d]!;
        }
        scores[n] = scale * score;
        slopes[n] = slope;
        largest = Math.max(largest, scores[n]!);
      }
      let total = 0;
      for (let n = 0; n < seen; n++) total += Math.exp(scores[n]! - largest);
      for (let n = 0; n < seen; n++) {
        const key = (first + n) * width + head * headDim;
        const share = Math.exp(scores[n]! - largest) / total;
        const ofScore = scale * share * (slopes[n]! - delta);
        for (let d = 0; d < headDim; d++) {
          ofQ[at + d]! += ofScore * k[key + d]!;
          ofK[key + d]! += ofScore * q[at + d]!;
          ofV[key + d]! += share * gradContext[at + d]!;
        }
      }
    }
  }
  return { q: ofQ, k: ofK, v: ofV };
}

/** Gradients of `attentionReference` for a gradient of its output. */
export function attentionLayerBackward(shape: AttentionShape, params: Weights, args: AttentionBackwardArguments): AttentionGradients {
  const { batch, length, causal } = args;
  const mix = (q: Float64Array, k: Float64Array, v: Float64Array, sizes: { batch: number; heads: number; headDim: number }) =>
    attention(q, k, v, { ...sizes, queryLength: length, keyLength: length, causal });
  return projectedBackward("attentionLayerBackward", shape, params, args, mix, (q, k, v, gradContext, sizes) =>
    attentionBackward(q, k, v, gradContext, { ...sizes, batch, length, causal }),
  );
}

/** The backward pass of the projections around any kind of attention: of what `mix` computes, with its gradients from `mixBackward`. */
export function projectedBackward(
  where: string,
  shape: AttentionShape,
  params: Weights,
  { x, gradOutput, batch, length }: AttentionBackwardArguments,
  mix: (q: Float64Array, k: Float64Array, v: Float64Array, sizes: { batch: number; heads: number; headDim: number }) => Float64Array,
  mixBackward: (
    q: Float64Array,
    k: Float64Array,
    v: Float64Array,
    gradContext: Float64Array,
    sizes: { batch: number; heads: number; headDim: number },
  ) => MixGradients,
): AttentionGradients {
  const dim = checkInteger(where, "dim", shape.dim, 1);
  const heads = checkInteger(where, "heads", shape.heads, 1);
  const headDim = checkInteger(where, "dim / heads", dim / heads, 1);
  checkInteger(where, "batch", batch, 1);
  checkInteger(where, "length", length, 1);
  checkLength(where, "x", x, batch * length * dim, "B·N·D");
  checkLength(where, "gradOutput", gradOutput, batch * length * dim, "B·N·D");
  const gradients: Record<string, Float64Array> = {};
  const rows = (values: Float64Array, i: number) => values.subarray(i * dim, (i + 1) * dim);
  const tokens = Float64Array.from(x);
  const forward = (name: string) => {
    const project = projection(where, params, name, dim, dim);
    const out = new Float64Array(tokens.length);
    for (let i = 0; i < batch * length; i++) project(rows(tokens, i), rows(out, i));
    return out;
  };
  const backward = (values: Float64Array, name: string, gradient: ArrayLike<number>, into: Float64Array) => {
    const back = projectionBackward(where, params, name, dim, dim, gradients);
    const dy = new Float64Array(dim);
    for (let i = 0; i < batch * length; i++) {
      loadRow(gradient, i, dy);
      back(rows(values, i), dy, rows(into, i));
    }
    return into;
  };
  const [q, k, v] = [forward("q_proj"), forward("k_proj"), forward("v_proj")];
  const sizes = { batch, heads, headDim };
  const gradContext = backward(mix(q, k, v, sizes), "out_proj", gradOutput, new Float64Array(tokens.length));
  const mixed = mixBackward(q, k, v, gradContext, sizes);
  const query = new Float64Array(tokens.length);
  backward(tokens, "q_proj", mixed.q, query);
  backward(tokens, "k_proj", mixed.k, query);
  backward(tokens, "v_proj", mixed.v, query);
  return { query, params: gradients };
}
