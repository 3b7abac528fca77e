import { checkInteger, checkObject, rangeError } from "../checks.ts";
import { checkLength, parameter } from "./arrays.ts";
import { homBlock, withPrefix } from "./block.ts";
import { embed } from "./embed.ts";
import { linear } from "./linear.ts";
import { positions } from "./positions.ts";
import { shift } from "./shift.ts";
import type { Weights } from "./types.ts";

/** Sizes of the language model, as those of `Hlm`. */
export interface HlmConfig {
  readonly vocabSize: number;
  readonly dim: number;
  readonly layers: number;
  readonly contextLength: number;
  readonly order: number;
  readonly orderExpand: number;
  readonly ffwExpand: number;
  /** Each layer's mixer sees tokens mixed with the one before, by `layers.i.shift.mix`, see `shift`. */
  readonly tokenShift?: boolean | undefined;
  /** Causal means in which tokens fade, by factors `layers.i.hom.decay`, see `decayMoments`. */
  readonly decay?: boolean | undefined;
  /** Default true: the position embedding. */
  readonly positions?: boolean | undefined;
}

/** What {@link hlmReference} may be told besides the tokens. */
export interface HlmArguments {
  readonly batch?: number | undefined;
  /** Added to the positions 0 … n-1: one number, or one a batch row. */
  readonly posOffset?: number | ArrayLike<number> | undefined;
  /** [B, n], as in training on padded batches: zeroes the QUERY rows of the causal mask, not the context columns. */
  readonly attentionMask?: ArrayLike<number> | undefined;
}

/** The cap the original training puts on a batch's mean loss. */
export const HLM_LOSS_MAX = 15;

/** Token embedding + position embedding, causal HoM blocks, output projection: tokenIds [B·n] -> logits [B, n, V]. No normalisation layer. */
export function hlmReference(config: HlmConfig, weights: Weights, tokenIds: ArrayLike<number>, args: HlmArguments = {}): Float64Array {
  const where = "hlmReference";
  checkObject(where, "arguments", args, ["batch", "posOffset", "attentionMask"]);
  const { vocabSize, dim, layers, contextLength } = config;
  checkInteger(where, "layers", layers, 0);
  const batch = checkInteger(where, "batch", args.batch ?? 1, 1);
  const length = tokensPerRow(where, tokenIds, batch);
  if (length > contextLength) throw rangeError(where, "tokenIds", `hold at most contextLength = ${contextLength} tokens a row`, length);
  if (args.attentionMask) checkLength(where, "attentionMask", args.attentionMask, batch * length, "B·n");

  const table = parameter(where, weights, "token_emb.weight", vocabSize * dim);
  const places = config.positions === false ? undefined : positionEmbedding(where, dim, weights, batch, length, args.posOffset);
  let x = embed(tokenIds, table, places, { batch, length, vocabSize, dim });
  for (let i = 0; i < layers; i++) {
    const own = withPrefix(weights, `layers.${i}.`);
    const query = config.tokenShift ? shift(x, parameter(where, own, "shift.mix", dim), { batch, length, dim }) : x;
    const decay = config.decay ? parameter(where, own, "hom.decay", config.orderExpand * dim) : undefined;
    const call = { query, mask: "causal", queryMask: args.attentionMask, decay, batch, queryLength: length } as const;
    x = homBlock(config, own, { up: "ffw.0", down: "ffw.2" }, call, x);
  }
  const bias = parameter(where, weights, "output_proj.bias", vocabSize, true);
  return linear(x, parameter(where, weights, "output_proj.weight", vocabSize * dim), bias, { inDim: dim, outDim: vocabSize });
}

/** pos_emb.2(silu(pos_emb.0([cos(p·f) | sin(p·f)]))): [n, D], or [B, n, D] where the offset differs by batch row */
function positionEmbedding(
  where: string,
  dim: number,
  weights: Weights,
  batch: number,
  length: number,
  posOffset: number | ArrayLike<number> | undefined,
): Float64Array {
  if (checkInteger(where, "dim", dim, 2) % 2 !== 0) throw rangeError(where, "dim", "be even", dim);
  const offsets = typeof posOffset === "number" ? [posOffset] : posOffset ? checkLength(where, "posOffset", posOffset, batch, "B") : [0];
  const values = new Float64Array(offsets.length * length);
  for (let r = 0; r < offsets.length; r++) for (let p = 0; p < length; p++) values[r * length + p] = offsets[r]! + p;
  const features = positions(values, parameter(where, weights, "freqs", dim / 2));
  const inner = 2 * dim;
  const hidden = linear(
    features,
    parameter(where, weights, "pos_emb.0.weight", inner * dim),
    parameter(where, weights, "pos_emb.0.bias", inner, true),
    {
      inDim: dim,
      outDim: inner,
      activation: "silu",
    },
  );
  const down = parameter(where, weights, "pos_emb.2.weight", dim * inner);
  return linear(hidden, down, parameter(where, weights, "pos_emb.2.bias", dim, true), { inDim: inner, outDim: dim });
}

/**
 * Next-token loss: min(15, mean over the B·(n-1) positions of attentionMask · crossentropy(logits_t, ids_{t+1})).
 * Padded positions count in the divisor. logits [B, n, V], tokenIds [B, n].
 */
export function hlmLoss(
  logits: ArrayLike<number>,
  tokenIds: ArrayLike<number>,
  args: { vocabSize: number; batch?: number | undefined; attentionMask?: ArrayLike<number> | undefined },
): number {
  const where = "hlmLoss";
  const vocabSize = checkInteger(where, "vocabSize", args.vocabSize, 1);
  const batch = checkInteger(where, "batch", args.batch ?? 1, 1);
  const length = tokensPerRow(where, tokenIds, batch);
  if (length < 2) throw rangeError(where, "tokenIds", "hold at least 2 tokens a row", length);
  checkLength(where, "logits", logits, batch * length * vocabSize, "B·n·V");
  if (args.attentionMask) checkLength(where, "attentionMask", args.attentionMask, batch * length, "B·n");
  let total = 0;
  for (let b = 0; b < batch; b++) {
    for (let t = b * length; t < (b + 1) * length - 1; t++) {
      const target = checkInteger(where, `tokenIds[${t + 1}]`, tokenIds[t + 1], 0, vocabSize - 1);
      const weight = args.attentionMask ? args.attentionMask[t]! : 1;
      if (weight !== 0) total += weight * crossEntropy(logits, t * vocabSize, vocabSize, target);
    }
  }
  return Math.min(HLM_LOSS_MAX, total / (batch * (length - 1)));
}

/** log Σ exp(logits) - logits[target], shifted by the largest logit */
function crossEntropy(logits: ArrayLike<number>, base: number, vocabSize: number, target: number): number {
  let largest = -Infinity;
  for (let v = 0; v < vocabSize; v++) largest = Math.max(largest, logits[base + v]!);
  let sum = 0;
  for (let v = 0; v < vocabSize; v++) sum += Math.exp(logits[base + v]! - largest);
  return Math.log(sum) + largest - logits[base + target]!;
}

function tokensPerRow(where: string, tokenIds: ArrayLike<number>, batch: number): number {
  const length = tokenIds.length / batch;
  if (!Number.isInteger(length) || length < 1)
    throw rangeError(where, "tokenIds", `hold one or more tokens for each of ${batch} batch rows`, tokenIds);
  return length;
}
