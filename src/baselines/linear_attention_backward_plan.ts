import { planAppendOnes } from "../ops/append_ones.ts";
import { planFeatureAttentionBackward } from "../ops/feature_attention_backward.ts";
import { type FeatureProductsArguments, planFeatureProducts } from "../ops/feature_products.ts";
import { planFeatureScores } from "../ops/feature_scores.ts";
import { featureStateStride4, planFeatureSums } from "../ops/feature_sums.ts";
import { planMergeMoments } from "../ops/merge_moments.ts";
import { planRandomFeatures } from "../ops/random_features.ts";
import { factorBytes, hasLength, planRandomFeaturesBackward } from "../ops/random_features_backward.ts";
import { planRandomVectorsBackward } from "../ops/random_vectors_backward.ts";
import { planScanGradients } from "../ops/scan_gradients.ts";
import { planScanMoments } from "../ops/scan_moments.ts";
import { type FeatureVectors, features4Of } from "../ops/types.ts";
import type { GpuLimits } from "../runtime/gpu.ts";
import { BIND_ALIGNMENT, type Slot } from "../runtime/kernel.ts";
import type { Tuning } from "../runtime/tuning.ts";
import type { BaselinePlan, Stretch } from "./attention_plan.ts";
import type { AttentionConfig } from "./config.ts";
import { featureSlabs, featureVectors, type LinearAttentionPlanConfig, sizesOf } from "./linear_attention_plan.ts";
import { type BaselineBackwardCall, ProjectionBackwardPlanner, rowBudget } from "./self_attention_backward.ts";

type Config = LinearAttentionPlanConfig & Pick<Required<AttentionConfig>, "bias">;

/** Bytes a token and head that stay in scratch memory beside the budget: 1 / n and h. */
const STATS_BYTES = 8;
/** The part of a scratch budget that holds gradients of the random features' factors; a few rows of them at least. */
const FACTOR_SHARE = 1 / 8;
const LEAST_FACTOR_ROWS = 8;

/** Bytes, per token unless said otherwise; values and their gradients have a number more. */
function backwardSizes(config: Config, tuning: Tuning, causal: boolean) {
  const { dim, heads } = config;
  const sizes = sizesOf(config, tuning, causal);
  const { q, kv, phi, scores, blockTokens } = sizes;
  const width4 = Math.ceil(dim / heads / 4) + 1;
  const features4 = features4Of(config.featureMap, config.vectors);
  const share = heads * width4 * 16;
  const state = featureStateStride4({ heads, head4: width4, features4 }) * 16;
  const factors = factorBytes(config, heads);
  // Queries, their gradients, dy and y; keys, values and their gradients; three kinds of features; values and shares.
  const token = 4 * q + 2 * kv + 3 * phi + 2 * share + 2 * scores;
  const fixed = (causal ? 4 : 2) * state;
  const block = (causal ? 2 : 1) * state + blockTokens * token;
  return { ...sizes, width4, features4, share, state, factors, fixed, block, widest: Math.max(kv, phi, share, scores) };
}

/** The largest sums that one binding has to hold, in bytes. */
export function backwardSumBytes(config: Config, tuning: Tuning): number {
  return 2 * backwardSizes(config, tuning, true).state;
}

/** The smallest scratch budget that holds a block of tokens with all their gradients. */
export function minimumLinearAttentionBackwardScratch(config: Config, tuning: Tuning): number {
  const needs = [true, false].map((causal) => {
    const { fixed, block, factors } = backwardSizes(config, tuning, causal);
    return Math.max((fixed + block) / (1 - FACTOR_SHARE), (LEAST_FACTOR_ROWS * factors) / FACTOR_SHARE);
  });
  return Math.ceil(Math.max(...needs) / rowBudget(1));
}

/**
 * The dispatches of the backward pass of linear attention. With g = dy / n and h = -dy·y / n of a query whose denominator is n, the gradient of a weight φ(q)·φ(k)
 * is g·v + h: so values have a 1 behind them, gradients an h, and all is products with two kinds of sums over tokens, S = Σ φ(k) [v, 1]ᵀ and G = Σ φ(q) [g, h]ᵀ:
 *
 *   [n y, n] = φ(q) S,   dφ(q) = [g, h] Sᵀ,   dφ(k) = [v, 1] Gᵀ,   dv = φ(k) G
 *
 * If causal, S is of what came before a block, from a scan, G of what comes after it, from a scan backwards, and scores add what lies in the block. Queries and keys
 * pass in slabs; where one holds all tokens, nothing is computed twice. Pure: nothing here touches a GPU.
 */
export function planLinearAttentionBackward(config: Config, tuning: Tuning, limits: GpuLimits, call: BaselineBackwardCall): BaselinePlan {
  return new LinearAttentionBackwardPlanner(config, tuning, limits, call).plan();
}

type Local = FeatureProductsArguments["local"];
type Products = Pick<FeatureProductsArguments, "x" | "sums" | "local" | "y"> & {
  readonly transposed?: boolean;
  readonly columns4: number;
  readonly yOffset4?: number;
  readonly yStride4?: number;
};

class LinearAttentionBackwardPlanner extends ProjectionBackwardPlanner {
  readonly #config: Config;
  readonly #sizes: ReturnType<typeof backwardSizes>;
  readonly #vectors: FeatureVectors;
  /** Rows whose factors have room. */
  readonly #factorRows: number;
  readonly #rowsAtOnce: number;
  /** Tokens of a slab. */
  readonly #tokens: number;

  constructor(config: Config, tuning: Tuning, limits: GpuLimits, call: BaselineBackwardCall) {
    super(config, tuning, limits, call);
    this.#config = config;
    this.#sizes = backwardSizes(config, tuning, call.causal);
    this.#vectors = featureVectors(config);
    const most = Math.min(rowBudget(config.scratchBudget) * FACTOR_SHARE, this.maxBinding);
    this.#factorRows = Math.max(LEAST_FACTOR_ROWS, 8 * Math.floor(most / this.#sizes.factors / 8));
    const budget = rowBudget(config.scratchBudget) * (1 - FACTOR_SHARE);
    const { rowsAtOnce, tokens } = featureSlabs(this, this.#sizes, { ...this.#sizes, budget });
    this.#rowsAtOnce = rowsAtOnce;
    this.#tokens = tokens;
  }

  plan(): BaselinePlan {
    const { batch, length, causal } = this.call;
    const tokens = this.#tokens;
    for (let row = 0; row < batch; row += this.#rowsAtOnce) {
      const rows = Math.min(this.#rowsAtOnce, batch - row);
      const slabs = Array.from({ length: Math.ceil(length / tokens) }, (_, i): Stretch => {
        const token = i * tokens;
        return { row, rows, token, tokens: Math.min(tokens, length - token) };
      });
      if (causal) this.#causal(slabs);
      else this.#full(slabs);
    }
    return this;
  }

  #full(slabs: readonly Stretch[]): void {
    for (const s of slabs) this.#merge(s, "sums", this.#blockSums(s, this.#keyFeatures(s), this.#values(s)));
    for (const s of slabs) {
      const phiQ = this.#queryFeatures(s);
      const shares = this.#throughQuotient(s, phiQ, this.#sums(s, "sums"), undefined);
      this.#queryGradients(s, shares, this.#sums(s, "sums"), undefined);
      this.#merge(s, "gradient_sums", this.#blockSums(s, phiQ, shares));
    }
    for (const s of slabs) this.#keyGradients(s, this.#sums(s, "gradient_sums"), undefined, undefined);
  }

  #causal(slabs: readonly Stretch[]): void {
    const { blockTokens, state, width4, features4 } = this.#sizes;
    const { maxWorkgroups } = this;
    const common = { stride4: state / 16, maxWorkgroups };
    const [first, last] = [slabs[0], slabs[slabs.length - 1]];
    for (const s of slabs) {
      const [phiQ, phiK, values] = [this.#queryFeatures(s), this.#keyFeatures(s), this.#values(s)];
      const blocks = Math.ceil(s.tokens / blockTokens);
      const carry = this.scratchSlot("carry", s.rows * blocks * state);
      this.steps.push(
        // Each block's sum is a row of its own.
        planScanMoments({
          ...common,
          rows: this.#blockSums(s, phiK, values),
          running: this.scratchSlot("running", 2 * s.rows * state),
          firstBatchRow: 0,
          carry,
          batchRows: s.rows,
          blocks,
          blockTokens: 1,
          slabTokens: blocks,
          firstBlock: s.token / blockTokens,
          accumulate: s !== first,
        }),
      );
      const scores = this.#scores("scores", s, phiQ, phiK, features4, false);
      const local = { later: false, blockTokens };
      const shares = this.#throughQuotient(s, phiQ, carry, { ...local, scores, u: values, uWidth4: width4 });
      const gradients = this.#scores("gradient_scores", s, shares, values, width4, false);
      this.#queryGradients(s, shares, carry, { ...local, scores: gradients, u: phiK, uWidth4: features4 });
    }
    for (const s of [...slabs].reverse()) {
      const [phiQ, phiK, values, shares] = [this.#queryFeatures(s), this.#keyFeatures(s), this.#values(s), this.#sharesAgain(s)];
      const blocks = Math.ceil(s.tokens / blockTokens);
      const totals = this.#blockSums(s, phiQ, shares);
      this.steps.push(
        planScanGradients({
          ...common,
          totals,
          running: this.scratchSlot("gradient_running", 2 * s.rows * state),
          batchRows: s.rows,
          blocks,
          firstBlock: s.token / blockTokens,
          accumulate: s !== last,
        }),
      );
      const local = { later: true, blockTokens };
      const scores = this.#scores("scores", s, phiK, phiQ, features4, true);
      const gradients = this.#scores("gradient_scores", s, values, shares, width4, true);
      this.#keyGradients(s, totals, { ...local, scores: gradients, u: phiQ, uWidth4: features4 }, { ...local, scores, u: shares, uWidth4: width4 });
    }
  }

  /** What attention gave, the output projection's gradient, and [g, h] of each query. */
  #throughQuotient(s: Stretch, phiQ: Slot, sums: Slot, local: Local): Slot {
    const { width4 } = this.#sizes;
    return this.once("shares", s, () => {
      const shares = this.#sharesSlot(s);
      this.#products(s, { x: phiQ, sums, local, y: shares, columns4: width4 });
      const mixed = this.scratchSlot("mixed", this.#rows(s) * this.#sizes.q);
      this.#quotient(s, shares, mixed);
      this.outputGradients(s, mixed);
      return shares;
    });
  }

  /** [g, h] of each query, if need be from its stats. */
  #sharesAgain(s: Stretch): Slot {
    return this.once("shares", s, () => {
      const shares = this.#sharesSlot(s);
      this.#quotient(s, shares, undefined);
      return shares;
    });
  }

  #sharesSlot(s: Stretch): Slot {
    return this.scratchSlot("shares", this.#rows(s) * this.#sizes.share);
  }

  /** `mixed` is what attention gives; without it, [g, h] come from stats. */
  #quotient(s: Stretch, shares: Slot, mixed: Slot | undefined): void {
    const { heads, head4, maxWorkgroups } = this;
    const bytes = heads * STATS_BYTES;
    // Those of a causal slab are read again after those of all others are written.
    const pitch = BIND_ALIGNMENT * Math.ceil((s.rows * this.#tokens * bytes) / BIND_ALIGNMENT);
    const offset = this.call.causal ? (s.token / this.#tokens) * pitch : 0;
    const size = this.#rows(s) * bytes;
    const stats = { ...this.scratchSlot("stats", offset + size), offset, size };
    const common = { dy: this.contextGradients(s), stats, shares, rows: this.#rows(s), heads, head4, maxWorkgroups };
    this.steps.push(planFeatureAttentionBackward({ ...common, y: mixed ?? this.scratchSlot("unused", 16), isSecond: !mixed }));
  }

  #queryGradients(s: Stretch, shares: Slot, sums: Slot, local: Local): void {
    const { q, features4 } = this.#sizes;
    const dphi = this.#featureGradients(s, { x: shares, sums, local, transposed: true, columns4: features4 });
    const dq = this.scratchSlot("query_gradients", this.#rows(s) * q);
    this.#throughFeatures(s, this.queries(s), this.#queryFeatures(s), dphi, dq, this.width4, true);
    this.queryGradients(s, dq);
  }

  /** `ofFeatures` and `ofValues` are what later queries of a block add. */
  #keyGradients(s: Stretch, sums: Slot, ofFeatures: Local, ofValues: Local): void {
    const { kv, features4 } = this.#sizes;
    const { head4, width4 } = this;
    const phiK = this.#keyFeatures(s);
    const dphi = this.#featureGradients(s, { x: this.#values(s), sums, local: ofFeatures, transposed: true, columns4: features4 });
    const dkv = this.scratchSlot("key_value_gradients", this.#rows(s) * kv);
    this.#products(s, { x: phiK, sums, local: ofValues, y: dkv, columns4: head4, yOffset4: width4, yStride4: 2 * width4 });
    this.#throughFeatures(s, this.keysAndValues(s), phiK, dphi, dkv, 2 * width4, false);
    this.keyValueGradients(s, dkv);
  }

  #featureGradients(s: Stretch, a: Omit<Products, "y">): Slot {
    const y = this.scratchSlot("feature_gradients", this.#rows(s) * this.#sizes.phi);
    this.#products(s, { ...a, y });
    return y;
  }

  /** From gradients of features to those of queries or keys, as many rows at a time as there is room for their factors. */
  #throughFeatures(s: Stretch, x: Slot, phi: Slot, dphi: Slot, dx: Slot, stride4: number, asQuery: boolean): void {
    const { heads, headDim, maxWorkgroups } = this;
    const { featureMap } = this.#config;
    const rows = this.#rows(s);
    for (let firstRow = 0; firstRow < rows; firstRow += this.#factorRows) {
      const rowsAtOnce = Math.min(this.#factorRows, rows - firstRow);
      const factors = this.scratchSlot("factors", rowsAtOnce * this.#sizes.factors);
      const common = { x, xStride4: stride4, vectors: this.#vectors, factors, firstRow, rowsAtOnce, heads, headDim, maxWorkgroups };
      this.steps.push(
        planRandomFeaturesBackward({ ...common, featureMap, phi, dphi, rows, asQuery }),
        planRandomVectorsBackward({ ...common, hasLength: hasLength(featureMap, asQuery), dx, dxStride4: stride4 }),
      );
    }
  }

  #queryFeatures(s: Stretch): Slot {
    const x = this.queries(s);
    return this.once("query_features", s, () => this.#features("query_features", s, x, this.width4, true));
  }

  #keyFeatures(s: Stretch): Slot {
    const x = this.keysAndValues(s);
    return this.once("key_features", s, () => this.#features("key_features", s, x, 2 * this.width4, false));
  }

  #features(role: string, s: Stretch, x: Slot, xStride4: number, asQuery: boolean): Slot {
    const { heads, headDim, maxWorkgroups } = this;
    const { featureMap } = this.#config;
    const rows = this.#rows(s);
    const phi = this.scratchSlot(role, rows * this.#sizes.phi);
    this.steps.push(planRandomFeatures({ featureMap, x, xStride4, vectors: this.#vectors, phi, rows, heads, headDim, asQuery, maxWorkgroups }));
    return phi;
  }

  /** Values with a 1 behind them. */
  #values(s: Stretch): Slot {
    const v = this.keysAndValues(s);
    return this.once("values", s, () => {
      const { heads, head4, width4, maxWorkgroups } = this;
      const rows = this.#rows(s);
      const y = this.scratchSlot("values", rows * this.#sizes.share);
      this.steps.push(planAppendOnes({ v, vOffset4: width4, vStride4: 2 * width4, y, rows, heads, head4, maxWorkgroups }));
      return y;
    });
  }

  /** Sums of φ [v, 1]ᵀ, or of φ [g, h]ᵀ, block by block. */
  #blockSums(s: Stretch, phi: Slot, v: Slot): Slot {
    const { width4, features4, state, blockTokens } = this.#sizes;
    const { heads, maxWorkgroups } = this;
    const sums = this.scratchSlot("block_sums", s.rows * Math.ceil(s.tokens / blockTokens) * state);
    this.steps.push(
      planFeatureSums({
        heads,
        head4: width4,
        features4,
        phi,
        v,
        vOffset4: 0,
        vStride4: heads * width4,
        sums,
        batchRows: s.rows,
        tokens: s.tokens,
        blockTokens,
        maxWorkgroups,
      }),
    );
    return sums;
  }

  #sums(s: Stretch, role: string): Slot {
    return this.scratchSlot(role, s.rows * this.#sizes.state);
  }

  #merge(s: Stretch, role: string, partial: Slot): void {
    this.steps.push(
      planMergeMoments({
        partial,
        moments: this.#sums(s, role),
        segments: s.rows,
        firstSegment: 0,
        stride4: this.#sizes.state / 16,
        blocksPerSegment: Math.ceil(s.tokens / this.#sizes.blockTokens),
        accumulate: s.token > 0,
        maxWorkgroups: this.maxWorkgroups,
      }),
    );
  }

  /** Dot products of rows with those of the same block. */
  #scores(role: string, s: Stretch, rows: Slot, others: Slot, inner4: number, later: boolean): Slot {
    const { heads, maxWorkgroups } = this;
    const scores = this.scratchSlot(role, this.#rows(s) * this.#sizes.scores);
    const { blockTokens } = this.#sizes;
    this.steps.push(
      planFeatureScores({
        phiQ: rows,
        phiK: others,
        scores,
        heads,
        features4: inner4,
        batchRows: s.rows,
        tokens: s.tokens,
        blockTokens,
        later,
        maxWorkgroups,
      }),
    );
    return scores;
  }

  #products(s: Stretch, { transposed = false, yOffset4 = 0, columns4, yStride4 = this.heads * columns4, ...a }: Products): void {
    const { width4, features4 } = this.#sizes;
    const { heads, maxWorkgroups } = this;
    const common = { width4, features4, heads, batchRows: s.rows, tokens: s.tokens, maxWorkgroups };
    this.steps.push(planFeatureProducts({ ...a, ...common, transposed, columns4, yOffset4, yStride4 }));
  }

  #rows(s: Stretch): number {
    return s.rows * s.tokens;
  }
}
