/** What a moment layer is compared with: softmax attention, linear attention with random features, and what each costs. */
export type { FeatureMap } from "../ops/types.ts";
export { AttentionLayer } from "./attention.ts";
export type { AttentionConfig, BaselineParams, LinearAttentionConfig } from "./config.ts";
export { type DrawOptions, drawFeatures } from "./draw.ts";
export {
  type AttentionCost,
  type CostShape,
  flops,
  type HomCost,
  type LayerCost,
  type LayerFamily,
  type LinearAttentionCost,
  type Match,
  type MatchOptions,
  matchFlops,
  matchParameters,
  type PomCost,
  parameterCount,
} from "./flops.ts";
export { LinearAttentionLayer } from "./linear_attention.ts";
export type { BaselineForwardOptions, BaselinePlanOptions, BaselinePlanReport, BaselineTrainingOptions } from "./self_attention.ts";
