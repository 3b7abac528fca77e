import source from "../../shaders/feature_attention.wgsl?raw";
import { type Slot, type Step, WORKGROUP_SIZE } from "../runtime/kernel.ts";
import { defineKernel, EIGHT_ROWS, EMPTY, workgroupsFor } from "./op.ts";

export const featureAttention = defineKernel({ name: "feature_attention", source, uses: [EIGHT_ROWS] });

export interface FeatureAttentionArguments {
  readonly phi: Slot;
  readonly sums: Slot;
  /** What the queries see of their own block of tokens; without it, sums are of all tokens. */
  readonly local?:
    | { readonly scores: Slot; readonly v: Slot; readonly vOffset4: number; readonly vStride4: number; readonly blockTokens: number }
    | undefined;
  readonly y: Slot;
  readonly heads: number;
  readonly head4: number;
  readonly features4: number;
  readonly batchRows: number;
  readonly queries: number;
  readonly maxWorkgroups: number;
}

/** Weighted means of the values, from sums and scores; one dispatch. */
export function planFeatureAttention(a: FeatureAttentionArguments): Step {
  const { heads, head4, features4, batchRows, queries, local } = a;
  const invocations = batchRows * Math.ceil(queries / 8) * heads * Math.ceil(head4 / 2);
  return {
    kernel: featureAttention,
    variant: {},
    uniforms: {
      heads,
      head4,
      features4,
      batch_rows: batchRows,
      queries,
      blocks: local ? Math.ceil(queries / local.blockTokens) : 1,
      block_tokens: local?.blockTokens ?? queries,
      causal: local ? 1 : 0,
      v_offset4: local?.vOffset4 ?? 0,
      v_stride4: local?.vStride4 ?? 0,
    },
    slots: { phi: a.phi, sums: a.sums, scores: local?.scores ?? EMPTY, v: local?.v ?? EMPTY, y: a.y },
    workgroups: workgroupsFor(Math.ceil(invocations / WORKGROUP_SIZE), a.maxWorkgroups),
    bytesRead: a.phi.size + a.sums.size + (local ? local.scores.size + batchRows * queries * heads * head4 * 16 : 0),
    bytesWritten: a.y.size,
  };
}
