import { checkInteger, checkObject, rangeError, raw } from "../checks.ts";
import { erfc, gelu, sigmoid, silu } from "./activations.ts";
import { checkLength, parameter } from "./arrays.ts";
import { withPrefix } from "./block.ts";
import { embed } from "./embed.ts";
import type { HlmConfig } from "./hlm.ts";
import { homReference } from "./hom.ts";
import { linear } from "./linear.ts";
import { positions } from "./positions.ts";
import type { Weights } from "./types.ts";

export interface HlmBackwardArguments {
  readonly batch?: number | undefined;
  /** Added to the positions 0 … n-1: one number, or one a batch row. */
  readonly posOffset?: number | ArrayLike<number> | undefined;
}

export interface HlmGradients {
  /** Mean cross-entropy of the B·n predictions. */
  readonly loss: number;
  /** d loss / d parameter, by checkpoint name and in the checkpoint's layout; `freqs` is not trained. */
  readonly grads: Record<string, Float64Array>;
}

/**
 * Loss of next-token prediction and its gradients: tokens [B, n+1], of which the first n of a row are inputs and the last n targets.
 * Every formula is written out; nothing is differentiated by a rule that the kernels share.
 */
export function hlmBackward(config: HlmConfig, weights: Weights, tokens: ArrayLike<number>, args: HlmBackwardArguments = {}): HlmGradients {
  const where = "hlmBackward";
  checkObject(where, "arguments", args, ["batch", "posOffset"]);
  const { vocabSize: V, dim: D, layers, ffwExpand } = config;
  const batch = checkInteger(where, "batch", args.batch ?? 1, 1);
  const n = tokens.length / batch - 1;
  if (!Number.isInteger(n) || n < 1)
    throw rangeError(where, "tokens", `hold 2 or more tokens for each of ${batch} batch rows`, raw(`${tokens.length}`));
  const rows = batch * n;
  const ids = Int32Array.from({ length: rows }, (_, r) => tokens[Math.floor(r / n) * (n + 1) + (r % n)]!);
  const targets = Int32Array.from({ length: rows }, (_, r) => tokens[Math.floor(r / n) * (n + 1) + (r % n) + 1]!);
  const grads: Record<string, Float64Array> = {};
  const dense = (name: string, inner: number, outer: number) => ({
    weight: parameter(where, weights, `${name}.weight`, outer * inner),
    bias: parameter(where, weights, `${name}.bias`, outer, true),
    inner,
    outer,
  });
  /** Gradients of a Linear's parameters go to `grads`; returns that of its input. */
  const back = (name: string, layer: Dense, x: Float64Array, dy: Float64Array): Float64Array => {
    const { dx, weight, bias } = denseBackward(layer, x, dy);
    grads[`${name}.weight`] = weight;
    if (layer.bias) grads[`${name}.bias`] = bias;
    return dx;
  };

  // ---- forward, keeping the input of every part ----
  const offsets =
    typeof args.posOffset === "number" ? [args.posOffset] : args.posOffset ? checkLength(where, "posOffset", args.posOffset, batch, "B") : [0];
  const places = Float64Array.from({ length: rows }, (_, r) => (offsets[offsets.length === 1 ? 0 : Math.floor(r / n)] ?? 0) + (r % n));
  const features = positions(places, parameter(where, weights, "freqs", D / 2));
  const pos0 = dense("pos_emb.0", D, 2 * D);
  const pos2 = dense("pos_emb.2", 2 * D, D);
  const posInner = forward(pos0, features);
  const posHidden = posInner.map(silu);
  const table = parameter(where, weights, "token_emb.weight", V * D);
  let x = embed(ids, table, forward(pos2, posHidden), { batch, length: n, vocabSize: V, dim: D });
  const kept = Array.from({ length: layers }, (_, i) => {
    const own = withPrefix(weights, `layers.${i}.`);
    const mixed = homReference(shapeOf(config), withPrefix(own, "hom.") as never, { query: x, mask: "causal", batch, queryLength: n });
    const mid = mixed.map((value, j) => value + x[j]!);
    const up = dense(`layers.${i}.ffw.0`, D, ffwExpand * D);
    const down = dense(`layers.${i}.ffw.2`, ffwExpand * D, D);
    const inner = forward(up, mid);
    const hidden = inner.map(gelu);
    const out = forward(down, hidden).map((value, j) => value + mid[j]!);
    const layer = { x, mid, up, down, inner, hidden };
    x = out;
    return layer;
  });
  const output = dense("output_proj", D, V);
  const logits = forward(output, x);

  // ---- loss: mean over rows of log Σ exp(l) - l[target]; its gradient is (softmax - onehot) / rows ----
  let loss = 0;
  for (let r = 0; r < rows; r++) {
    const row = logits.subarray(r * V, (r + 1) * V);
    const target = checkInteger(where, `tokens (target of row ${r})`, targets[r], 0, V - 1);
    const largest = row.reduce((a, b) => Math.max(a, b), -Infinity);
    const total = row.reduce((sum, value) => sum + Math.exp(value - largest), 0);
    loss += (Math.log(total) + largest - row[target]!) / rows;
    for (let v = 0; v < V; v++) row[v] = (Math.exp(row[v]! - largest) / total - (v === target ? 1 : 0)) / rows;
  }

  // ---- backward ----
  let dx = back("output_proj", output, x, logits);
  for (let i = layers - 1; i >= 0; i--) {
    const { x: input, mid, up, down, inner, hidden } = kept[i]!;
    const dHidden = back(`layers.${i}.ffw.2`, down, hidden, dx);
    const dInner = dHidden.map((value, j) => value * geluGradient(inner[j]!));
    const dMid = add(back(`layers.${i}.ffw.0`, up, mid, dInner), dx);
    const mixed = causalHomBackward(config, withPrefix(weights, `layers.${i}.hom.`), input, dMid, batch, n);
    for (const [key, value] of Object.entries(mixed.grads)) grads[`layers.${i}.hom.${key}`] = value;
    dx = add(mixed.dx, dMid);
  }
  const dTable = new Float64Array(V * D);
  for (let r = 0; r < rows; r++) for (let d = 0; d < D; d++) dTable[ids[r]! * D + d]! += dx[r * D + d]!;
  grads["token_emb.weight"] = dTable;
  const dPosHidden = back("pos_emb.2", pos2, posHidden, dx);
  back(
    "pos_emb.0",
    pos0,
    features,
    dPosHidden.map((value, j) => value * siluGradient(posInner[j]!)),
  );
  return { loss, grads };
}

interface Dense {
  /** [outer, inner] */
  readonly weight: Float64Array;
  readonly bias: Float64Array | undefined;
  readonly inner: number;
  readonly outer: number;
}

const forward = ({ weight, bias, inner, outer }: Dense, x: Float64Array): Float64Array => linear(x, weight, bias, { inDim: inner, outDim: outer });

/** y = x Wᵀ + b: dx = dy W, dW = dyᵀ x, db = Σ dy. */
function denseBackward({ weight, inner, outer }: Dense, x: Float64Array, dy: Float64Array) {
  const rows = x.length / inner;
  const dx = new Float64Array(rows * inner);
  const gradient = { weight: new Float64Array(outer * inner), bias: new Float64Array(outer) };
  for (let r = 0; r < rows; r++) {
    for (let o = 0; o < outer; o++) {
      const g = dy[r * outer + o]!;
      gradient.bias[o]! += g;
      for (let i = 0; i < inner; i++) {
        dx[r * inner + i]! += g * weight[o * inner + i]!;
        gradient.weight[o * inner + i]! += g * x[r * inner + i]!;
      }
    }
  }
  return { dx, ...gradient };
}

const shapeOf = ({ dim, order, orderExpand }: HlmConfig) => ({ dim, order, orderExpand });
const add = (a: Float64Array, b: Float64Array): Float64Array => a.map((value, i) => value + b[i]!);

/** Φ(x) + x·φ(x) */
const geluGradient = (x: number): number => 0.5 * erfc(-x * Math.SQRT1_2) + (x * Math.exp((-x * x) / 2)) / Math.sqrt(2 * Math.PI);
/** σ(x)·(1 + x·(1 - σ(x))) */
const siluGradient = (x: number): number => sigmoid(x) * (1 + x * (1 - sigmoid(x)));

/** y_t = ag(σ(se(x_t)) ⊙ h_t), h_t = mean over i ≤ t of m_i: gradients of the layer's parameters and of x, which is query and context. */
function causalHomBackward(config: HlmConfig, weights: Weights, x: Float64Array, dy: Float64Array, batch: number, n: number) {
  const where = "hlmBackward";
  const { dim: D, order, orderExpand } = config;
  const E = orderExpand * D;
  const M = order * E;
  const rows = batch * n;
  const layer = (name: string, inner: number, outer: number): Dense => ({
    weight: parameter(where, weights, `${name}.weight`, outer * inner),
    bias: parameter(where, weights, `${name}.bias`, outer, true),
    inner,
    outer,
  });
  const [ho, se, ag] = [layer("ho_proj", D, M), layer("se_proj", D, M), layer("ag_proj", M, D)];
  const u = forward(ho, x);
  const s = forward(se, x).map(sigmoid);
  const z = u.map(gelu);
  const m = Float64Array.from(z);
  for (let r = 0; r < rows; r++) for (let c = E; c < M; c++) m[r * M + c]! *= m[r * M + c - E]!;
  const h = new Float64Array(rows * M);
  for (let b = 0; b < batch; b++) {
    const sum = new Float64Array(M);
    for (let t = 0; t < n; t++) {
      for (let c = 0; c < M; c++) {
        sum[c]! += m[(b * n + t) * M + c]!;
        h[(b * n + t) * M + c] = sum[c]! / (t + 1);
      }
    }
  }
  const out = denseBackward(
    ag,
    s.map((value, j) => value * h[j]!),
    dy,
  );
  const dLogit = out.dx.map((dr, j) => dr * h[j]! * s[j]! * (1 - s[j]!));
  const du = new Float64Array(rows * M);
  for (let b = 0; b < batch; b++) {
    const suffix = new Float64Array(M);
    for (let t = n - 1; t >= 0; t--) {
      const base = (b * n + t) * M;
      for (let c = 0; c < M; c++) suffix[c]! += (out.dx[base + c]! * s[base + c]!) / (t + 1);
      const dm = Float64Array.from(suffix);
      for (let c = M - 1; c >= E; c--) {
        du[base + c] = dm[c]! * m[base + c - E]! * geluGradient(u[base + c]!);
        dm[c - E]! += dm[c]! * z[base + c]!;
      }
      for (let c = 0; c < E; c++) du[base + c] = dm[c]! * geluGradient(u[base + c]!);
    }
  }
  const context = denseBackward(ho, x, du);
  const query = denseBackward(se, x, dLogit);
  const grads: Record<string, Float64Array> = {};
  for (const [name, layer, of] of [
    ["ho_proj", ho, context],
    ["se_proj", se, query],
    ["ag_proj", ag, out],
  ] as const) {
    grads[`${name}.weight`] = of.weight;
    if (layer.bias) grads[`${name}.bias`] = of.bias;
  }
  return { dx: add(context.dx, query.dx), grads };
}
