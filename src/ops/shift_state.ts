import source from "../../shaders/shift_state.wgsl?raw";
import { type Slot, type Step, WORKGROUP_SIZE } from "../runtime/kernel.ts";
import { defineKernel, workgroupsFor } from "./op.ts";

export const shiftState = defineKernel({ name: "shift_state", source });

export interface ShiftStateArguments {
  readonly levels: Slot;
  readonly turns: Slot;
  /** Rows of moments in `levels`. */
  readonly rows: number;
  readonly planes: number;
  readonly expand4: number;
  readonly maxWorkgroups: number;
}

/** A state's sums, turned; one dispatch. */
export function planShiftState(a: ShiftStateArguments): Step {
  const { rows, planes, expand4 } = a;
  return {
    kernel: shiftState,
    variant: {},
    uniforms: { rows, planes, expand4 },
    slots: { turns: a.turns, levels: a.levels },
    workgroups: workgroupsFor(Math.ceil((rows * planes * expand4) / WORKGROUP_SIZE), a.maxWorkgroups),
    bytesRead: a.levels.size + a.turns.size,
    bytesWritten: a.levels.size,
  };
}
