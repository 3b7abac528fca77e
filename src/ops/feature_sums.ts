import source from "../../shaders/feature_sums.wgsl?raw";
import { type Slot, type Step, WORKGROUP_SIZE } from "../runtime/kernel.ts";
import { defineKernel, EIGHT_ROWS, workgroupsFor } from "./op.ts";

export const featureSums = defineKernel({ name: "feature_sums", source, uses: [EIGHT_ROWS] });

/** vec4s of a head's channels and features. */
export interface FeatureSizes {
  readonly heads: number;
  readonly head4: number;
  readonly features4: number;
}

export interface FeatureSumsArguments extends FeatureSizes {
  readonly phi: Slot;
  readonly v: Slot;
  /** vec4s to the values of the first token, and from one token to the next. */
  readonly vOffset4: number;
  readonly vStride4: number;
  readonly sums: Slot;
  readonly batchRows: number;
  /** Of a batch row in this slab. */
  readonly tokens: number;
  readonly blockTokens: number;
  readonly maxWorkgroups: number;
}

/** vec4s of the sums of one block, or of all tokens. */
export function featureStateStride4({ heads, head4, features4 }: FeatureSizes): number {
  return 4 * features4 * heads * head4 + heads * features4;
}

/** Sums of features and of their products with values, block by block; one dispatch. */
export function planFeatureSums(a: FeatureSumsArguments): Step {
  const { heads, head4, features4 } = a;
  const blocks = Math.ceil(a.tokens / a.blockTokens);
  const invocations = a.batchRows * blocks * heads * Math.ceil(features4 / 2) * Math.ceil(head4 / 2);
  return {
    kernel: featureSums,
    variant: {},
    uniforms: {
      heads,
      head4,
      features4,
      batch_rows: a.batchRows,
      tokens: a.tokens,
      blocks,
      block_tokens: a.blockTokens,
      v_offset4: a.vOffset4,
      v_stride4: a.vStride4,
    },
    slots: { phi: a.phi, v: a.v, sums: a.sums },
    workgroups: workgroupsFor(Math.ceil(invocations / WORKGROUP_SIZE), a.maxWorkgroups),
    bytesRead: a.phi.size + a.batchRows * a.tokens * heads * head4 * 16,
    bytesWritten: a.sums.size,
  };
}
