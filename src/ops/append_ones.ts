import source from "../../shaders/append_ones.wgsl?raw";
import { type Slot, type Step, WORKGROUP_SIZE } from "../runtime/kernel.ts";
import { defineKernel, workgroupsFor } from "./op.ts";

export const appendOnes = defineKernel({ name: "append_ones", source });

export interface AppendOnesArguments {
  readonly v: Slot;
  /** vec4s to the first row's values, and from one row to the next. */
  readonly vOffset4: number;
  readonly vStride4: number;
  /** `[rows, H, head4 + 1]` */
  readonly y: Slot;
  readonly rows: number;
  readonly heads: number;
  readonly head4: number;
  readonly maxWorkgroups: number;
}

/** Copies values, with a one behind each head's; one dispatch. */
export function planAppendOnes(a: AppendOnesArguments): Step {
  const { rows, heads, head4 } = a;
  return {
    kernel: appendOnes,
    variant: {},
    uniforms: { rows, heads, head4, v_offset4: a.vOffset4, v_stride4: a.vStride4 },
    slots: { v: a.v, y: a.y },
    workgroups: workgroupsFor(Math.ceil((rows * heads * (head4 + 1)) / WORKGROUP_SIZE), a.maxWorkgroups),
    bytesRead: rows * heads * head4 * 16,
    bytesWritten: a.y.size,
  };
}
