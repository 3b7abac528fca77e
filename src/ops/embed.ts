import source from "../../shaders/embed.wgsl?raw";
import { type Slot, type Step, WORKGROUP_SIZE } from "../runtime/kernel.ts";
import { defineKernel, workgroupsFor } from "./op.ts";

export const embed = defineKernel({ name: "embed", source });

export interface EmbedArguments {
  readonly ids: Slot;
  readonly positionRows: Slot;
  readonly table: Slot;
  readonly positions: Slot;
  readonly y: Slot;
  readonly tokens: number;
  readonly dim: number;
  readonly maxWorkgroups: number;
}

/** Token embeddings plus position embeddings; one dispatch. */
export function planEmbed(a: EmbedArguments): Step {
  return {
    kernel: embed,
    variant: {},
    uniforms: { tokens: a.tokens, dim: a.dim },
    slots: { ids: a.ids, position_rows: a.positionRows, table: a.table, positions: a.positions, y: a.y },
    workgroups: workgroupsFor(Math.ceil((a.tokens * a.dim) / WORKGROUP_SIZE), a.maxWorkgroups),
    bytesRead: a.tokens * 8 + 2 * a.tokens * a.dim * 4,
    bytesWritten: a.tokens * a.dim * 4,
  };
}
