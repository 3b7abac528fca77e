import source from "../../shaders/modulate.wgsl?raw";
import type { Slot, Step } from "../runtime/kernel.ts";
import { defineKernel, WORKGROUP_SUM, workgroupsFor } from "./op.ts";

export const modulate = defineKernel({ name: "modulate", source, uses: [WORKGROUP_SUM] });

export interface ModulateArguments {
  readonly x: Slot;
  readonly y: Slot;
  readonly m: Slot;
  /** Elements of m: where the scales and the shifts begin, and from one batch row and one token to the next. */
  readonly scaleAt: number;
  readonly shiftAt: number;
  readonly mBatch: number;
  readonly mToken: number;
  readonly batch: number;
  readonly tokens: number;
  readonly dim: number;
  readonly maxWorkgroups: number;
}

/** Normalised rows, scaled and shifted; one dispatch. */
export function planModulate(a: ModulateArguments): Step {
  const rows = a.batch * a.tokens;
  const bytes = rows * a.dim * 4;
  return {
    kernel: modulate,
    variant: {},
    uniforms: { dim: a.dim, tokens: a.tokens, rows, scale_at: a.scaleAt, shift_at: a.shiftAt, m_batch: a.mBatch, m_token: a.mToken },
    slots: { x: a.x, m: a.m, y: a.y },
    workgroups: workgroupsFor(rows, a.maxWorkgroups),
    bytesRead: 3 * bytes,
    bytesWritten: bytes,
  };
}
