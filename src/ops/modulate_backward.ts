import source from "../../shaders/modulate_backward.wgsl?raw";
import type { Slot, Step } from "../runtime/kernel.ts";
import { defineKernel, WORKGROUP_SUM, workgroupsFor } from "./op.ts";

export const modulateBackward = defineKernel({ name: "modulate_backward", source, uses: [WORKGROUP_SUM] });

export interface ModulateBackwardArguments {
  /** `[B·tokens, D]` */
  readonly x: Slot;
  readonly m: Slot;
  /** `[B·(tokens - first), D]` */
  readonly dy: Slot;
  /** Tokens of each batch row whose output has no gradient. Default 0. */
  readonly first?: number;
  /** `[B·tokens, D]` */
  readonly dx: Slot;
  /** Rows of `dmStep` numbers, one a token. */
  readonly dm: Slot;
  /** Elements of m: where the scales begin, and from one batch row and one token to the next. */
  readonly scaleAt: number;
  readonly mBatch: number;
  readonly mToken: number;
  /** Where the gradients of scales and shifts begin in a row of dm. */
  readonly dmStep: number;
  readonly dmScaleAt: number;
  readonly dmShiftAt: number;
  /** Adds to what dx holds. */
  readonly accumulate: boolean;
  readonly batch: number;
  readonly tokens: number;
  readonly dim: number;
  readonly maxWorkgroups: number;
}

/** Gradients of normalised rows and of their modulations, a row a token; one dispatch. */
export function planModulateBackward(a: ModulateBackwardArguments): Step {
  const rows = a.batch * a.tokens;
  const bytes = rows * a.dim * 4;
  return {
    kernel: modulateBackward,
    variant: {},
    uniforms: {
      dim: a.dim,
      tokens: a.tokens,
      rows,
      first: a.first ?? 0,
      scale_at: a.scaleAt,
      m_batch: a.mBatch,
      m_token: a.mToken,
      dm_step: a.dmStep,
      dm_scale_at: a.dmScaleAt,
      dm_shift_at: a.dmShiftAt,
      accumulate: a.accumulate ? 1 : 0,
    },
    slots: { x: a.x, m: a.m, dy: a.dy, dx: a.dx, dm: a.dm },
    workgroups: workgroupsFor(rows, a.maxWorkgroups),
    bytesRead: (a.accumulate ? 4 : 3) * bytes,
    bytesWritten: 3 * bytes,
  };
}
