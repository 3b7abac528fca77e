import source from "../../shaders/scan_segments.wgsl?raw";
import { type Slot, type Step, WORKGROUP_SIZE } from "../runtime/kernel.ts";
import { defineKernel, workgroupsFor } from "./op.ts";

export const scanSegments = defineKernel({ name: "scan_segments", source });

export interface ScanSegmentsArguments {
  readonly moments: Slot;
  readonly running: Slot;
  readonly batchRows: number;
  readonly stride4: number;
  readonly segments: number;
  readonly firstSegment: number;
  readonly segmentLength: number;
  readonly rowTokens: number;
  readonly accumulate: boolean;
  readonly maxWorkgroups: number;
}

/** Sums of segments -> block-causal means, in place; one dispatch. */
export function planScanSegments(a: ScanSegmentsArguments): Step {
  return {
    kernel: scanSegments,
    variant: {},
    uniforms: {
      batch_rows: a.batchRows,
      stride4: a.stride4,
      segments: a.segments,
      first_segment: a.firstSegment,
      segment_length: a.segmentLength,
      row_tokens: a.rowTokens,
      accumulate: a.accumulate ? 1 : 0,
    },
    slots: { moments: a.moments, running: a.running },
    workgroups: workgroupsFor(Math.ceil((a.batchRows * a.stride4) / WORKGROUP_SIZE), a.maxWorkgroups),
    bytesRead: a.moments.size + (a.accumulate ? a.running.size : 0),
    bytesWritten: a.moments.size + a.running.size,
  };
}
