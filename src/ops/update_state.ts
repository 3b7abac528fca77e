import source from "../../shaders/update_state.wgsl?raw";
import { type Slot, type Step, WORKGROUP_SIZE } from "../runtime/kernel.ts";
import { defineKernel, EMPTY, STATE_LEVELS_FILE, workgroupsFor } from "./op.ts";

export const updateState = defineKernel({ name: "update_state", source, uses: [STATE_LEVELS_FILE] });

export interface UpdateStateArguments {
  readonly partial: Slot;
  readonly entry: Slot;
  readonly levels: Slot;
  readonly segments: number;
  readonly firstSegment: number;
  readonly batch: number;
  readonly stride4: number;
  readonly blocksPerSegment: number;
  readonly ragged?: { readonly table: Slot; readonly offset: number; readonly firstBlock: number } | undefined;
  readonly maxWorkgroups: number;
}

/** Adds block sums to a state; one dispatch. */
export function planUpdateState(a: UpdateStateArguments): Step {
  return {
    kernel: updateState,
    variant: {},
    uniforms: {
      segments: a.segments,
      stride4: a.stride4,
      blocks_per_segment: a.blocksPerSegment,
      ragged: a.ragged ? 1 : 0,
      ragged_offset: a.ragged?.offset ?? 0,
      first_block: a.ragged?.firstBlock ?? 0,
      first_segment: a.firstSegment,
      batch: a.batch,
    },
    slots: { partial: a.partial, table: a.ragged?.table ?? EMPTY, entry: a.entry, levels: a.levels },
    workgroups: workgroupsFor(Math.ceil((a.segments * a.stride4) / WORKGROUP_SIZE), a.maxWorkgroups),
    bytesRead: a.partial.size + a.levels.size,
    bytesWritten: a.levels.size,
  };
}
