import source from "../../shaders/merge_moments.wgsl?raw";
import { GROUP, type Slot, type Step, WORKGROUP_SIZE } from "../runtime/kernel.ts";
import { defineKernel, EMPTY, variantsOf, workgroupsFor } from "./op.ts";

export const mergeMoments = defineKernel({ name: "merge_moments", source, variants: variantsOf({ lanes: [1, 16] }) });

export interface MergeMomentsArguments {
  readonly partial: Slot;
  readonly moments: Slot;
  readonly segments: number;
  readonly firstSegment: number;
  readonly stride4: number;
  readonly blocksPerSegment: number;
  /** Segments of different numbers of blocks: where the table of first blocks starts, and the first block of this dispatch. */
  readonly ragged?: { readonly table: Slot; readonly offset: number; readonly firstBlock: number } | undefined;
  readonly accumulate: boolean;
  /** Undefined leaves sums. */
  readonly divisor?: number | { readonly slot: Slot } | undefined;
  readonly maxWorkgroups: number;
}

/** Adds block sums up to sums or means of segments; one dispatch. */
export function planMergeMoments(a: MergeMomentsArguments): Step {
  const { divisor } = a;
  const blocks = a.ragged ? a.blocksPerSegment / a.segments : a.blocksPerSegment;
  const lanes = blocks > 4 * GROUP ? 16 : 1;
  return {
    kernel: mergeMoments,
    variant: { lanes },
    uniforms: {
      segments: a.segments,
      stride4: a.stride4,
      blocks_per_segment: a.blocksPerSegment,
      ragged: a.ragged ? 1 : 0,
      ragged_offset: a.ragged?.offset ?? 0,
      first_block: a.ragged?.firstBlock ?? 0,
      accumulate: a.accumulate ? 1 : 0,
      divide: divisor === undefined ? 0 : 1,
      has_divisors: typeof divisor === "object" ? 1 : 0,
      first_segment: a.firstSegment,
      divisor: typeof divisor === "number" ? divisor : 1,
    },
    slots: {
      partial: a.partial,
      table: a.ragged?.table ?? EMPTY,
      divisors: typeof divisor === "object" ? divisor.slot : EMPTY,
      moments: a.moments,
    },
    workgroups: workgroupsFor(a.segments * Math.ceil((a.stride4 * lanes) / WORKGROUP_SIZE), a.maxWorkgroups),
    bytesRead: a.partial.size + (a.accumulate ? a.moments.size : 0),
    bytesWritten: a.moments.size,
  };
}
