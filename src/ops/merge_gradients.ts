import source from "../../shaders/merge_gradients.wgsl?raw";
import { type Slot, type Step, WORKGROUP_SIZE } from "../runtime/kernel.ts";
import { defineKernel, workgroupsFor } from "./op.ts";

export const mergeGradients = defineKernel({ name: "merge_gradients", source });

export interface MergeGradientsArguments {
  /** `[blocks, rows, 4·outer4]` */
  readonly partial: Slot;
  /** `[rows, 4·stride4]`, of which columns from 4·first4 on are written. */
  readonly gradient: Slot;
  readonly blocks: number;
  readonly rows: number;
  readonly outer4: number;
  readonly stride4: number;
  readonly first4: number;
  /** Adds to the gradient what is there. */
  readonly accumulate: boolean;
  readonly maxWorkgroups: number;
}

/** Adds block sums up to a gradient; one dispatch. */
export function planMergeGradients(a: MergeGradientsArguments): Step {
  const { rows, outer4, blocks, stride4, first4 } = a;
  const count4 = rows * outer4;
  return {
    kernel: mergeGradients,
    variant: {},
    uniforms: { rows, outer4, blocks, stride4, first4, accumulate: a.accumulate ? 1 : 0 },
    slots: { partial: a.partial, gradient: a.gradient },
    workgroups: workgroupsFor(Math.ceil(count4 / WORKGROUP_SIZE), a.maxWorkgroups),
    bytesRead: (blocks + (a.accumulate ? 1 : 0)) * count4 * 16,
    bytesWritten: count4 * 16,
  };
}
