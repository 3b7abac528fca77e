import source from "../../shaders/decay_backward.wgsl?raw";
import { type Slot, type Step, WORKGROUP_SIZE } from "../runtime/kernel.ts";
import { defineKernel, workgroupsFor } from "./op.ts";

export const decayBackward = defineKernel({ name: "decay_backward", source });

export interface DecayBackwardArguments {
  /** `[batchRows, slabTokens, 4·rowsStride4]`: gradients of decayed means, then of moments. */
  readonly rows: Slot;
  readonly rowsStride4: number;
  /** `[3, 4·expand4]`, see decayTable. */
  readonly decay: Slot;
  /** `[batchRows, 4·stride4]` */
  readonly running: Slot;
  readonly batchRows: number;
  readonly firstToken: number;
  readonly slabTokens: number;
  readonly stride4: number;
  readonly expand4: number;
  /** Goes on from the slab after this one, of which `running` holds what it passes on. */
  readonly accumulate: boolean;
  readonly maxWorkgroups: number;
}

/** Gradients of a slab's moments from those of their decayed means, in place; one dispatch. */
export function planDecayBackward(a: DecayBackwardArguments): Step {
  const { batchRows, firstToken, slabTokens, stride4, expand4, rowsStride4 } = a;
  const bytes = batchRows * slabTokens * stride4 * 16;
  const memory = batchRows * stride4 * 16;
  return {
    kernel: decayBackward,
    variant: {},
    uniforms: {
      batch_rows: batchRows,
      stride4,
      expand4,
      rows_stride4: rowsStride4,
      slab_tokens: slabTokens,
      first_token: firstToken,
      accumulate: a.accumulate ? 1 : 0,
    },
    slots: { decay: a.decay, running: a.running, rows: a.rows },
    workgroups: workgroupsFor(Math.ceil((batchRows * stride4) / WORKGROUP_SIZE), a.maxWorkgroups),
    bytesRead: bytes + 3 * expand4 * 16 + (a.accumulate ? memory : 0),
    bytesWritten: bytes + memory,
  };
}
