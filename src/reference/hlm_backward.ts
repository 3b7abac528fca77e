import { checkInteger, checkObject, rangeError, raw } from "../checks.ts";
import { activationGradient } from "./activation_gradients.ts";
import { gelu, silu } from "./activations.ts";
import { checkLength, parameter } from "./arrays.ts";
import { homParams } from "./block.ts";
import { embed } from "./embed.ts";
import type { HlmConfig } from "./hlm.ts";
import { homReference } from "./hom.ts";
import { homBackward } from "./hom_backward.ts";
import { linear } from "./linear.ts";
import { positions } from "./positions.ts";
import { shift, shiftBackward } from "./shift.ts";
import type { Weights } from "./types.ts";

/** What {@link hlmBackward} may be told besides the tokens. */
export interface HlmBackwardArguments {
  readonly batch?: number | undefined;
  /** Added to the positions 0 … n-1: one number, or one a batch row. */
  readonly posOffset?: number | ArrayLike<number> | undefined;
}

/** What {@link hlmBackward} gives. */
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
  const { vocabSize: V, dim: D, layers, order, orderExpand, ffwExpand } = config;
  const shape = { dim: D, order, orderExpand };
  const batch = checkInteger(where, "batch", args.batch ?? 1, 1);
  const n = tokens.length / batch - 1;
  if (!Number.isInteger(n) || n < 1)
    throw rangeError(where, "tokens", `hold 2 or more tokens for each of ${batch} batch rows`, raw(`${tokens.length}`));
  const rows = batch * n;
  const ids = Int32Array.from({ length: rows }, (_, r) => tokens[Math.floor(r / n) * (n + 1) + (r % n)]!);
  const targets = Int32Array.from({ length: rows }, (_, r) => tokens[Math.floor(r / n) * (n + 1) + (r % n) + 1]!);
  const grads: Record<string, Float64Array> = {};
  const geluSlope = activationGradient("gelu");
  const siluSlope = activationGradient("silu");
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

  // Forward, keeping the input of every part.
  const offsets =
    typeof args.posOffset === "number" ? [args.posOffset] : args.posOffset ? checkLength(where, "posOffset", args.posOffset, batch, "B") : [0];
  const positioned = config.positions !== false;
  const places = Float64Array.from({ length: rows }, (_, r) => (offsets[offsets.length === 1 ? 0 : Math.floor(r / n)] ?? 0) + (r % n));
  const embedding = positioned ? positionPart() : undefined;
  const table = parameter(where, weights, "token_emb.weight", V * D);
  let x = embed(ids, table, embedding?.out, { batch, length: n, vocabSize: V, dim: D });
  const kept = Array.from({ length: layers }, (_, i) => {
    const hom = homParams(weights, `layers.${i}.hom.`);
    const mix = config.tokenShift ? parameter(where, weights, `layers.${i}.shift.mix`, D) : undefined;
    const query = mix ? shift(x, mix, { batch, length: n, dim: D }) : x;
    const decay = config.decay ? parameter(where, weights, `layers.${i}.hom.decay`, orderExpand * D) : undefined;
    const call = { query, mask: "causal", decay, batch, queryLength: n } as const;
    const input = x;
    const mixed = homReference(shape, hom, call);
    const mid = mixed.map((value, j) => value + input[j]!);
    const up = dense(`layers.${i}.ffw.0`, D, ffwExpand * D);
    const down = dense(`layers.${i}.ffw.2`, ffwExpand * D, D);
    const inner = forward(up, mid);
    const hidden = inner.map(gelu);
    const out = forward(down, hidden).map((value, j) => value + mid[j]!);
    const layer = { hom, call, mix, input, mid, up, down, inner, hidden };
    x = out;
    return layer;
  });
  const output = dense("output_proj", D, V);
  const logits = forward(output, x);

  // The mean over rows of log Σ exp(l) - l[target]; its gradient is (softmax - onehot) / rows.
  let loss = 0;
  for (let r = 0; r < rows; r++) {
    const row = logits.subarray(r * V, (r + 1) * V);
    const target = checkInteger(where, `tokens (target of row ${r})`, targets[r], 0, V - 1);
    const largest = row.reduce((a, b) => Math.max(a, b), -Infinity);
    const total = row.reduce((sum, value) => sum + Math.exp(value - largest), 0);
    loss += (Math.log(total) + largest - row[target]!) / rows;
    for (let v = 0; v < V; v++) row[v] = (Math.exp(row[v]! - largest) / total - (v === target ? 1 : 0)) / rows;
  }

  // Backward.
  let dx = back("output_proj", output, x, logits);
  for (let i = layers - 1; i >= 0; i--) {
    const { hom, call, mix, input, mid, up, down, inner, hidden } = kept[i]!;
    const dHidden = back(`layers.${i}.ffw.2`, down, hidden, dx);
    const dInner = dHidden.map((value, j) => value * geluSlope(inner[j]!));
    const dMid = add(back(`layers.${i}.ffw.0`, up, mid, dInner), dx);
    const mixed = homBackward(shape, hom, { ...call, gradOutput: dMid });
    for (const [key, value] of Object.entries(mixed.params)) grads[`layers.${i}.hom.${key}`] = value;
    if (!mix) {
      dx = add(mixed.query, dMid);
      continue;
    }
    const shifted = shiftBackward(input, mix, mixed.query, { batch, length: n, dim: D });
    grads[`layers.${i}.shift.mix`] = shifted.dmix;
    dx = add(shifted.dx, dMid);
  }
  const dTable = new Float64Array(V * D);
  for (let r = 0; r < rows; r++) for (let d = 0; d < D; d++) dTable[ids[r]! * D + d]! += dx[r * D + d]!;
  grads["token_emb.weight"] = dTable;
  if (embedding) {
    const { pos0, pos2, features, posInner, posHidden } = embedding;
    const dPosHidden = back("pos_emb.2", pos2, posHidden, dx);
    back(
      "pos_emb.0",
      pos0,
      features,
      dPosHidden.map((value, j) => value * siluSlope(posInner[j]!)),
    );
  }
  return { loss, grads };

  function positionPart() {
    const features = positions(places, parameter(where, weights, "freqs", D / 2));
    const pos0 = dense("pos_emb.0", D, 2 * D);
    const pos2 = dense("pos_emb.2", 2 * D, D);
    const posInner = forward(pos0, features);
    const posHidden = posInner.map(silu);
    return { pos0, pos2, features, posInner, posHidden, out: forward(pos2, posHidden) };
  }
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
export function denseBackward({ weight, inner, outer }: Omit<Dense, "bias">, x: Float64Array, dy: Float64Array) {
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

const add = (a: Float64Array, b: Float64Array): Float64Array => a.map((value, i) => value + b[i]!);
