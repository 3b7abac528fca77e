import source from "../../shaders/shift.wgsl?raw";
import { type Slot, type Step, WORKGROUP_SIZE } from "../runtime/kernel.ts";
import { defineKernel, EMPTY, workgroupsFor } from "./op.ts";

export const shift = defineKernel({ name: "shift", source });

export interface ShiftArguments {
  /** `[batch·length, dim]`, as is `y`. */
  readonly x: Slot;
  /** `[dim]` */
  readonly mix: Slot;
  readonly y: Slot;
  /** `[batch, dim]`: the tokens before the first ones. Default: zeros. */
  readonly previous?: Slot | undefined;
  /** `[batch, dim]`: where the last tokens are kept, not `previous` itself. */
  readonly last?: Slot | undefined;
  readonly batch: number;
  readonly length: number;
  readonly dim: number;
  readonly maxWorkgroups: number;
}

/** y_t = x_t + mix ⊙ (x_(t-1) - x_t); one dispatch. */
export function planShift(a: ShiftArguments): Step {
  const tokens = a.batch * a.length;
  const ends = a.batch * a.dim * 4;
  return {
    kernel: shift,
    variant: {},
    uniforms: { tokens, row_tokens: a.length, dim: a.dim, has_previous: a.previous ? 1 : 0, keeps_last: a.last ? 1 : 0 },
    slots: { x: a.x, mix_with: a.mix, previous: a.previous ?? EMPTY, y: a.y, last: a.last ?? { ...EMPTY, buffer: "unused" } },
    workgroups: workgroupsFor(Math.ceil((tokens * a.dim) / WORKGROUP_SIZE), a.maxWorkgroups),
    bytesRead: 2 * tokens * a.dim * 4 + a.dim * 4 + (a.previous ? ends : 0),
    bytesWritten: tokens * a.dim * 4 + (a.last ? ends : 0),
  };
}
