import { MAX_INNER_STEPS } from "../layers/planner.ts";
import { planFeatureAttention } from "../ops/feature_attention.ts";
import { planFeatureScores } from "../ops/feature_scores.ts";
import { featureStateStride4, planFeatureSums } from "../ops/feature_sums.ts";
import { planMergeMoments } from "../ops/merge_moments.ts";
import { planRandomFeatures } from "../ops/random_features.ts";
import { planScanMoments } from "../ops/scan_moments.ts";
import { type FeatureMap, type FeatureVectors, features4Of } from "../ops/types.ts";
import type { GpuLimits } from "../runtime/gpu.ts";
import type { Slot } from "../runtime/kernel.ts";
import type { Tuning } from "../runtime/tuning.ts";
import { type AttentionPlanConfig, type BaselineCall, type BaselinePlan, ProjectionPlanner, type Stretch, slabRows } from "./attention_plan.ts";

export interface LinearAttentionPlanConfig extends AttentionPlanConfig {
  readonly featureMap: FeatureMap;
  /** Random vectors of a head, and factors of a feature. */
  readonly vectors: number;
  readonly levels: number;
}

/** Bytes, per token unless said otherwise. */
export interface Sizes {
  readonly q: number;
  readonly kv: number;
  readonly phi: number;
  readonly scores: number;
  /** Sums of a block of tokens. */
  readonly state: number;
  /** Tokens of a block. */
  readonly blockTokens: number;
}

/** Wide features make wide sums: longer blocks for them than the layer's, so that there are fewer. */
const LONGEST_BLOCK = 128;

export function sizesOf(config: LinearAttentionPlanConfig, tuning: Tuning, causal: boolean): Sizes {
  const { dim, heads } = config;
  const head4 = Math.ceil(dim / heads / 4);
  const features4 = features4Of(config.featureMap, config.vectors);
  const wide = Math.min(LONGEST_BLOCK, 2 ** Math.ceil(Math.log2(2 * features4)));
  const blockTokens = causal ? Math.max(tuning.prefixBlockTokens, wide) : Math.max(tuning.blockTokens, LONGEST_BLOCK);
  return {
    q: heads * head4 * 16,
    kv: 2 * heads * head4 * 16,
    phi: heads * features4 * 16,
    scores: causal ? heads * blockTokens * 4 : 0,
    state: featureStateStride4({ heads, head4, features4 }) * 16,
    blockTokens,
  };
}

/** What a batch row takes in a slab, and each of its blocks: with `causal`, and for the sums over all tokens. */
function causalBytes({ q, kv, phi, scores, state, blockTokens }: Sizes) {
  return { fixed: 2 * state, block: 2 * state + blockTokens * (2 * q + kv + 2 * phi + scores) };
}

function sumBytes({ kv, phi, state, blockTokens }: Sizes) {
  return { fixed: state, block: state + blockTokens * (kv + phi) };
}

/** The smallest scratch budget that holds a block of tokens. */
export function minimumLinearAttentionScratch(config: LinearAttentionPlanConfig, tuning: Tuning): number {
  const [causal, sums] = [causalBytes(sizesOf(config, tuning, true)), sumBytes(sizesOf(config, tuning, false))];
  return Math.max(causal.fixed + causal.block, 2 * (sums.fixed + sums.block));
}

/**
 * The dispatches of one call of linear attention: features of keys, their sums by block, added up (or scanned, if causal), read by features of queries. All of it in
 * slabs of tokens, so that scratch does not grow with their number. Pure: nothing here touches a GPU.
 */
export function planLinearAttention(config: LinearAttentionPlanConfig, tuning: Tuning, limits: GpuLimits, call: BaselineCall): BaselinePlan {
  const p = new Planner(config, tuning, limits, call);
  if (call.causal) p.causal();
  else p.full();
  return p;
}

/** Random vectors in the buffers that they are uploaded to. */
export function featureVectors({ dim, heads, vectors, levels }: LinearAttentionPlanConfig): FeatureVectors {
  const rows = 4 * Math.ceil(dim / heads / 4) + 1;
  return {
    w: { buffer: "vectors", offset: 0, size: levels * rows * heads * Math.ceil(vectors / 4) * 16 },
    counts: { buffer: "counts", offset: 0, size: Math.max(16, levels * heads * 4) },
    vectors,
    levels,
  };
}

/** How many batch rows, and tokens of each, there is room for at a time: `fixed` bytes a batch row, `block` a block, rows of `widest` at most. */
export function featureSlabs(
  p: ProjectionPlanner,
  { state, blockTokens }: Pick<Sizes, "state" | "blockTokens">,
  { budget, fixed, block, widest }: { readonly budget: number; readonly fixed: number; readonly block: number; readonly widest: number },
): { rowsAtOnce: number; tokens: number } {
  const { batch, length } = p.call;
  const blocks = Math.ceil(length / blockTokens);
  const most = Math.min(Math.floor(p.maxBinding / state), Math.floor(p.rowsBound(widest) / blockTokens), MAX_INNER_STEPS);
  const room = Math.max(1, Math.min(most, Math.floor(slabRows(widest) / blockTokens)));
  if (blocks <= Math.min(room, Math.floor((budget - fixed) / block))) {
    // Running sums of each batch row are bound together.
    const rows = Math.min(batch, Math.floor(room / blocks), Math.floor(budget / (fixed + blocks * block)), Math.floor(p.maxBinding / fixed));
    return { rowsAtOnce: Math.max(1, rows), tokens: length };
  }
  const fitting = Math.min(room, Math.floor((budget - fixed) / block));
  return { rowsAtOnce: 1, tokens: Math.max(1, fitting) * blockTokens };
}

class Planner extends ProjectionPlanner {
  readonly #config: LinearAttentionPlanConfig;
  readonly #sizes: Sizes;
  readonly #features4: number;
  readonly #vectors: FeatureVectors;

  constructor(config: LinearAttentionPlanConfig, tuning: Tuning, limits: GpuLimits, call: BaselineCall) {
    super(config, tuning, limits, call);
    const { featureMap, vectors } = config;
    this.#config = config;
    this.#sizes = sizesOf(config, tuning, call.causal);
    this.#features4 = features4Of(featureMap, vectors);
    this.#vectors = featureVectors(config);
  }

  full(): void {
    const { batch, length } = this.call;
    const { q, kv, phi, state, blockTokens } = this.#sizes;
    const { fixed, block } = sumBytes(this.#sizes);
    // One half of the budget for the keys' side, the other for the queries'.
    const half = this.#config.scratchBudget / 2;
    const { rowsAtOnce, tokens } = featureSlabs(this, this.#sizes, { budget: half, fixed, block, widest: Math.max(kv, phi) });
    const perQuery = 2 * q + phi;
    const queryRows = Math.min(Math.floor(half / perQuery), this.rowsBound(Math.max(q, phi)), slabRows(perQuery));
    for (let row = 0; row < batch; row += rowsAtOnce) {
      const rows = Math.min(rowsAtOnce, batch - row);
      const sums = this.scratchSlot("sums", rows * state);
      for (let token = 0; token < length; token += tokens) {
        const stretch = { row, rows, token, tokens: Math.min(tokens, length - token) };
        const blocks = Math.ceil(stretch.tokens / blockTokens);
        const { slot } = this.#sums(stretch, blocks);
        this.steps.push(
          planMergeMoments({
            partial: slot,
            moments: sums,
            segments: rows,
            firstSegment: 0,
            stride4: state / 16,
            blocksPerSegment: blocks,
            accumulate: token > 0,
            maxWorkgroups: this.maxWorkgroups,
          }),
        );
      }
      const queries = queryRows >= rows * length ? length : Math.max(1, Math.floor(queryRows / rows));
      for (let token = 0; token < length; token += queries) {
        const stretch = { row, rows, token, tokens: Math.min(queries, length - token) };
        const features = this.#queryFeatures(stretch);
        this.#read(stretch, features, sums, undefined);
      }
    }
  }

  causal(): void {
    const { batch, length } = this.call;
    const { kv, phi, scores, state, blockTokens } = this.#sizes;
    const { fixed, block } = causalBytes(this.#sizes);
    const { rowsAtOnce, tokens } = featureSlabs(this, this.#sizes, {
      budget: this.#config.scratchBudget,
      fixed,
      block,
      widest: Math.max(kv, phi, scores),
    });
    for (let row = 0; row < batch; row += rowsAtOnce) {
      const rows = Math.min(rowsAtOnce, batch - row);
      const running = this.scratchSlot("running", rows * 2 * state);
      for (let token = 0; token < length; token += tokens) {
        const stretch = { row, rows, token, tokens: Math.min(tokens, length - token) };
        const blocks = Math.ceil(stretch.tokens / blockTokens);
        const sums = this.#sums(stretch, blocks);
        const carry = this.scratchSlot("carry", rows * blocks * state);
        // Each block's sum is a row of its own.
        this.steps.push(
          planScanMoments({
            rows: sums.slot,
            running,
            firstBatchRow: 0,
            carry,
            batchRows: rows,
            stride4: state / 16,
            blocks,
            blockTokens: 1,
            slabTokens: blocks,
            firstBlock: token / blockTokens,
            accumulate: token > 0,
            maxWorkgroups: this.maxWorkgroups,
          }),
        );
        const queryFeatures = this.#queryFeatures(stretch);
        const local = this.scratchSlot("scores", rows * stretch.tokens * scores);
        this.steps.push(
          planFeatureScores({
            phiQ: queryFeatures,
            phiK: sums.phi,
            scores: local,
            heads: this.heads,
            features4: this.#features4,
            batchRows: rows,
            tokens: stretch.tokens,
            blockTokens,
            maxWorkgroups: this.maxWorkgroups,
          }),
        );
        this.#read(stretch, queryFeatures, carry, { scores: local, v: sums.v });
      }
    }
  }

  /** Sums of the tokens' blocks; also the features and values that they are of. */
  #sums(stretch: Stretch, blocks: number): { slot: Slot; phi: Slot; v: Slot } {
    const { rows, tokens } = stretch;
    const { phi, state, blockTokens } = this.#sizes;
    const keysValues = this.keysAndValues(stretch);
    const features = this.#features(stretch, keysValues, 2 * this.width4, "key_features", phi, false);
    const slot = this.scratchSlot("block_sums", rows * blocks * state);
    this.steps.push(
      planFeatureSums({
        heads: this.heads,
        head4: this.head4,
        features4: this.#features4,
        phi: features,
        v: keysValues,
        vOffset4: this.width4,
        vStride4: 2 * this.width4,
        sums: slot,
        batchRows: rows,
        tokens,
        blockTokens,
        maxWorkgroups: this.maxWorkgroups,
      }),
    );
    return { slot, phi: features, v: keysValues };
  }

  #queryFeatures(stretch: Stretch): Slot {
    return this.#features(stretch, this.queries(stretch), this.width4, "query_features", this.#sizes.phi, true);
  }

  #features({ rows, tokens }: Stretch, x: Slot, xStride4: number, role: string, bytes: number, asQuery: boolean): Slot {
    const phi = this.scratchSlot(role, rows * tokens * bytes);
    const { featureMap } = this.#config;
    const { heads, headDim, maxWorkgroups } = this;
    this.steps.push(
      planRandomFeatures({ featureMap, x, xStride4, vectors: this.#vectors, phi, rows: rows * tokens, heads, headDim, asQuery, maxWorkgroups }),
    );
    return phi;
  }

  #read(stretch: Stretch, phi: Slot, sums: Slot, local: { readonly scores: Slot; readonly v: Slot } | undefined): void {
    const { rows, tokens } = stretch;
    const mixed = this.scratchSlot("mixed", rows * tokens * this.#sizes.q);
    this.steps.push(
      planFeatureAttention({
        phi,
        sums,
        local: local && { ...local, vStride4: 2 * this.width4, vOffset4: this.width4, blockTokens: this.#sizes.blockTokens },
        y: mixed,
        heads: this.heads,
        head4: this.head4,
        features4: this.#features4,
        batchRows: rows,
        queries: tokens,
        maxWorkgroups: this.maxWorkgroups,
      }),
    );
    this.output(stretch, mixed);
  }
}
