import source from "../../shaders/combine_states.wgsl?raw";
import { type Slot, type Step, WORKGROUP_SIZE } from "../runtime/kernel.ts";
import { defineKernel, EMPTY, workgroupsFor } from "./op.ts";

export const combineStates = defineKernel({ name: "combine_states", source });

export interface CombineStatesArguments {
  readonly levels: Slot;
  readonly other?: Slot | undefined;
  readonly keep: number;
  readonly add: number;
  readonly maxWorkgroups: number;
}

/** levels <- keep · levels + add · other; one dispatch. */
export function planCombineStates(a: CombineStatesArguments): Step {
  const size4 = a.levels.size / 16;
  return {
    kernel: combineStates,
    variant: {},
    uniforms: { size4, has_other: a.other ? 1 : 0, keep: a.keep, add: a.add },
    slots: { other: a.other ?? EMPTY, levels: a.levels },
    workgroups: workgroupsFor(Math.ceil(size4 / WORKGROUP_SIZE), a.maxWorkgroups),
    bytesRead: a.levels.size + (a.other?.size ?? 0),
    bytesWritten: a.levels.size,
  };
}
