import source from "../../shaders/scan_moments.wgsl?raw";
import { type Slot, type Step, WORKGROUP_SIZE } from "../runtime/kernel.ts";
import { defineKernel, EMPTY, workgroupsFor } from "./op.ts";

export const scanMoments = defineKernel({ name: "scan_moments", source });

export interface ScanMomentsArguments {
  readonly rows: Slot;
  readonly running: Slot;
  /** Sums of all batch rows before this call. */
  readonly initial?: Slot | undefined;
  readonly firstBatchRow: number;
  readonly carry: Slot;
  readonly batchRows: number;
  readonly stride4: number;
  readonly blocks: number;
  readonly blockTokens: number;
  readonly slabTokens: number;
  readonly firstBlock: number;
  readonly accumulate: boolean;
  readonly maxWorkgroups: number;
}

/** The sum before each block of a causal slab; one dispatch. */
export function planScanMoments(a: ScanMomentsArguments): Step {
  return {
    kernel: scanMoments,
    variant: {},
    uniforms: {
      batch_rows: a.batchRows,
      stride4: a.stride4,
      blocks: a.blocks,
      block_tokens: a.blockTokens,
      slab_tokens: a.slabTokens,
      first_block: a.firstBlock,
      accumulate: a.accumulate ? 1 : 0,
      has_initial: a.initial ? 1 : 0,
      first_batch_row: a.firstBatchRow,
    },
    slots: { rows: a.rows, initial: a.initial ?? EMPTY, running: a.running, carry: a.carry },
    workgroups: workgroupsFor(Math.ceil((a.batchRows * a.stride4) / WORKGROUP_SIZE), a.maxWorkgroups),
    bytesRead: a.carry.size + (a.accumulate ? a.running.size : 0),
    bytesWritten: a.carry.size + a.running.size,
  };
}
