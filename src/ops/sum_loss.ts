import source from "../../shaders/sum_loss.wgsl?raw";
import type { Slot, Step } from "../runtime/kernel.ts";
import { defineKernel, STATUS, WORKGROUP_SUM } from "./op.ts";

export const sumLoss = defineKernel({ name: "sum_loss", source, uses: [WORKGROUP_SUM, STATUS] });

export interface SumLossArguments {
  /** `[rows]`, f32 */
  readonly losses: Slot;
  /** The fields of STATUS in ops/types.ts, of which `loss` is written. */
  readonly status: Slot;
  readonly rows: number;
  /** Adds to the loss that is there. */
  readonly accumulate: boolean;
}

/** The sum of losses; one dispatch. */
export function planSumLoss(a: SumLossArguments): Step {
  return {
    kernel: sumLoss,
    variant: {},
    uniforms: { rows: a.rows, accumulate: a.accumulate ? 1 : 0 },
    slots: { losses: a.losses, status: a.status },
    workgroups: [1, 1, 1],
    bytesRead: a.rows * 4,
    bytesWritten: 4,
  };
}
