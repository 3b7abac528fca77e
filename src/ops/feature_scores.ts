import source from "../../shaders/feature_scores.wgsl?raw";
import { type Slot, type Step, WORKGROUP_SIZE } from "../runtime/kernel.ts";
import { defineKernel, EIGHT_ROWS, workgroupsFor } from "./op.ts";

export const featureScores = defineKernel({ name: "feature_scores", source, uses: [EIGHT_ROWS] });

export interface FeatureScoresArguments {
  readonly phiQ: Slot;
  readonly phiK: Slot;
  readonly scores: Slot;
  readonly heads: number;
  readonly features4: number;
  readonly batchRows: number;
  /** Of a batch row in this slab. */
  readonly tokens: number;
  /** A multiple of 8. */
  readonly blockTokens: number;
  /** Of a token with those from itself to the end of its block. Default: from the block's first to itself. */
  readonly later?: boolean;
  readonly maxWorkgroups: number;
}

/** Causal scores within blocks of tokens; one dispatch. */
export function planFeatureScores(a: FeatureScoresArguments): Step {
  const invocations = a.batchRows * Math.ceil(a.tokens / 8) * a.heads * (a.blockTokens / 4);
  return {
    kernel: featureScores,
    variant: {},
    uniforms: {
      heads: a.heads,
      features4: a.features4,
      batch_rows: a.batchRows,
      tokens: a.tokens,
      block_tokens: a.blockTokens,
      later: a.later ? 1 : 0,
    },
    slots: { phi_q: a.phiQ, phi_k: a.phiK, scores: a.scores },
    workgroups: workgroupsFor(Math.ceil(invocations / WORKGROUP_SIZE), a.maxWorkgroups),
    bytesRead: a.phiQ.size + a.phiK.size,
    bytesWritten: a.scores.size,
  };
}
