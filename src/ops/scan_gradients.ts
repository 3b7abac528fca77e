import source from "../../shaders/scan_gradients.wgsl?raw";
import { type Slot, type Step, WORKGROUP_SIZE } from "../runtime/kernel.ts";
import { defineKernel, workgroupsFor } from "./op.ts";

export const scanGradients = defineKernel({ name: "scan_gradients", source });

export interface ScanGradientsArguments {
  /** Totals of blocks in, what comes after each block out; or, with `segments`, totals of segments in, gradients of their tokens' moments out. */
  readonly totals: Slot;
  readonly running: Slot;
  readonly batchRows: number;
  readonly stride4: number;
  readonly blocks: number;
  readonly firstBlock: number;
  /** The totals are of block-causal segments, whose queries divide by all tokens up to the end of theirs. */
  readonly segments?: { readonly length: number; readonly rowTokens: number } | undefined;
  readonly accumulate: boolean;
  readonly maxWorkgroups: number;
}

/** Sums of everything after each block; one dispatch. */
export function planScanGradients(a: ScanGradientsArguments): Step {
  return {
    kernel: scanGradients,
    variant: {},
    uniforms: {
      batch_rows: a.batchRows,
      stride4: a.stride4,
      blocks: a.blocks,
      first_block: a.firstBlock,
      segments: a.segments ? 1 : 0,
      segment_length: a.segments?.length ?? 1,
      row_tokens: a.segments?.rowTokens ?? 1,
      accumulate: a.accumulate ? 1 : 0,
    },
    slots: { totals: a.totals, running: a.running },
    workgroups: workgroupsFor(Math.ceil((a.batchRows * a.stride4) / WORKGROUP_SIZE), a.maxWorkgroups),
    bytesRead: a.totals.size + (a.accumulate ? a.running.size : 0),
    bytesWritten: a.totals.size + a.running.size,
  };
}
