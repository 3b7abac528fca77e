import source from "../../shaders/add_rows_backward.wgsl?raw";
import { type Slot, type Step, WORKGROUP_SIZE } from "../runtime/kernel.ts";
import { defineKernel, EMPTY, workgroupsFor } from "./op.ts";

export const addRowsBackward = defineKernel({ name: "add_rows_backward", source });

export interface AddRowsBackwardArguments {
  /** `[B·tokens, D]`, as are b, dy and db; needed with a limit. */
  readonly a?: Slot | undefined;
  readonly b: Slot;
  readonly g: Slot;
  /** Elements of g: where it begins, and from one batch row and one token to the next. */
  readonly gAt: number;
  readonly gBatch: number;
  readonly gToken: number;
  /** The gradient of the sum; that of a afterwards. */
  readonly dy: Slot;
  readonly db: Slot;
  /** Rows of `dgStep` numbers, one a token, and where its gradient of g begins. */
  readonly dg: Slot;
  readonly dgAt: number;
  readonly dgStep: number;
  readonly limit?: number | undefined;
  readonly batch: number;
  readonly tokens: number;
  readonly dim: number;
  readonly maxWorkgroups: number;
}

/** Gradients of y = clamp(a + b (1 + g)), of g a row a token; one dispatch. */
export function planAddRowsBackward(a: AddRowsBackwardArguments): Step {
  const { tokens, dim, limit } = a;
  const size = a.batch * tokens * dim;
  const limited = limit === undefined ? 0 : 1;
  return {
    kernel: addRowsBackward,
    variant: {},
    uniforms: {
      dim,
      tokens,
      size,
      g_at: a.gAt,
      g_batch: a.gBatch,
      g_token: a.gToken,
      dg_at: a.dgAt,
      dg_step: a.dgStep,
      limited,
      limit: limit ?? 0,
    },
    slots: { a: a.a ?? EMPTY, b: a.b, g: a.g, dy: a.dy, db: a.db, dg: a.dg },
    workgroups: workgroupsFor(Math.ceil(size / WORKGROUP_SIZE), a.maxWorkgroups),
    bytesRead: (3 + limited) * size * 4,
    bytesWritten: (2 + limited) * size * 4,
  };
}
