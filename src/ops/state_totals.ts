import source from "../../shaders/state_totals.wgsl?raw";
import { type Slot, type Step, WORKGROUP_SIZE } from "../runtime/kernel.ts";
import { defineKernel, workgroupsFor } from "./op.ts";

export const stateTotals = defineKernel({ name: "state_totals", source });

/** Partial sums that a state keeps (shaders/shared/state_levels.wgsl), and additions that fill one. */
export const STATE_LEVELS = 4;
export const STATE_LEVEL_SIZE = 64;

export interface StateTotalsArguments {
  readonly levels: Slot;
  readonly entry: Slot;
  readonly moments: Slot;
  readonly batch: number;
  readonly stride4: number;
  readonly divide: boolean;
  readonly maxWorkgroups: number;
}

/** The sum or the mean that a state stands for; one dispatch. */
export function planStateTotals(a: StateTotalsArguments): Step {
  return {
    kernel: stateTotals,
    variant: {},
    uniforms: { batch: a.batch, stride4: a.stride4, divide: a.divide ? 1 : 0 },
    slots: { levels: a.levels, entry: a.entry, moments: a.moments },
    workgroups: workgroupsFor(Math.ceil((a.batch * a.stride4) / WORKGROUP_SIZE), a.maxWorkgroups),
    bytesRead: a.levels.size,
    bytesWritten: a.moments.size,
  };
}
