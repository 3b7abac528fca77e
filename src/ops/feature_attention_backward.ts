import source from "../../shaders/feature_attention_backward.wgsl?raw";
import { type Slot, type Step, WORKGROUP_SIZE } from "../runtime/kernel.ts";
import { defineKernel, workgroupsFor } from "./op.ts";

export const featureAttentionBackward = defineKernel({ name: "feature_attention_backward", source });

export interface FeatureAttentionBackwardArguments {
  /** `[rows, H, head4]` */
  readonly dy: Slot;
  /** `[rows, H]`, two numbers each. */
  readonly stats: Slot;
  /** `[rows, H, head4 + 1]`: sums of weighted values and of weights in, what gives the gradients of the weights out. */
  readonly shares: Slot;
  /** Like dy: what attention gave. */
  readonly y: Slot;
  /** Stats are read, shares are only written, and y is neither. */
  readonly isSecond: boolean;
  readonly rows: number;
  readonly heads: number;
  readonly head4: number;
  readonly maxWorkgroups: number;
}

/** Through the quotient of linear attention; one dispatch. */
export function planFeatureAttentionBackward(a: FeatureAttentionBackwardArguments): Step {
  const { rows, heads, head4, isSecond } = a;
  return {
    kernel: featureAttentionBackward,
    variant: {},
    uniforms: { rows, heads, head4, is_second: isSecond ? 1 : 0 },
    slots: { dy: a.dy, stats: a.stats, shares: a.shares, y: a.y },
    workgroups: workgroupsFor(Math.ceil((rows * heads) / WORKGROUP_SIZE), a.maxWorkgroups),
    bytesRead: a.dy.size + (isSecond ? a.stats.size : a.shares.size),
    bytesWritten: a.shares.size + (isSecond ? 0 : a.y.size + a.stats.size),
  };
}
