import source from "../../shaders/attention_rows.wgsl?raw";
import { type Slot, type Step, WORKGROUP_SIZE } from "../runtime/kernel.ts";
import { defineKernel, workgroupsFor } from "./op.ts";

export const attentionRows = defineKernel({ name: "attention_rows", source });

/** Bytes of `rows` for a query. */
export function attentionRowBytes(heads: number): number {
  return heads * 12;
}

export interface AttentionRowsArguments {
  /** What attention gave, and its gradient: `[queries, H·d]`. */
  readonly y: Slot;
  readonly gradients: Slot;
  /** As `attention` leaves it after the last slab of keys, of so many groups of columns. */
  readonly stats: Slot;
  readonly columnGroups: number;
  /** `[queries, H, 3]` */
  readonly rows: Slot;
  readonly heads: number;
  readonly head4: number;
  /** Of all batch rows. */
  readonly queries: number;
  readonly maxWorkgroups: number;
}

/** What the backward pass of softmax attention needs to know of its queries; one dispatch. */
export function planAttentionRows(a: AttentionRowsArguments): Step {
  const { heads, head4, queries } = a;
  return {
    kernel: attentionRows,
    variant: {},
    uniforms: { heads, head4, column_groups: a.columnGroups, queries },
    slots: { y: a.y, gradients: a.gradients, stats: a.stats, rows: a.rows },
    workgroups: workgroupsFor(Math.ceil((queries * heads) / WORKGROUP_SIZE), a.maxWorkgroups),
    bytesRead: a.y.size + a.gradients.size + a.stats.size,
    bytesWritten: a.rows.size,
  };
}
