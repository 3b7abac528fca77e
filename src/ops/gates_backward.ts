import source from "../../shaders/gates_backward.wgsl?raw";
import { type Slot, type Step, WORKGROUP_SIZE } from "../runtime/kernel.ts";
import { bindGates, defineKernel, GATE_OF, workgroupsFor } from "./op.ts";
import type { GateLayout, GateTurns, MomentSource } from "./types.ts";

export const gatesBackward = defineKernel({ name: "gates_backward", source, uses: [GATE_OF] });

export interface GatesBackwardArguments {
  /** Gates in; gradients of their logits out. */
  readonly gates: Slot;
  readonly layout: GateLayout;
  readonly turned?: GateTurns | undefined;
  /** Chunks of channels, and their width in vec4s. */
  readonly chunks: number;
  readonly expand4: number;
  readonly slabRows: number;
  /** Where the slab lies among the queries. */
  readonly from: Pick<MomentSource, "uniforms">;
  /** Gradients of the gates of channels, at `gatesAt4` of rows of `gradientsStride4` vec4s. */
  readonly gradients: Slot;
  readonly gradientsStride4: number;
  readonly gatesAt4: number;
  readonly maxWorkgroups: number;
}

/** Gradients of the logits of a slab's gates; one dispatch. */
export function planGatesBackward(a: GatesBackwardArguments): Step {
  const { first_batch_row, first_query, query_length, slab_queries } = a.from.uniforms;
  const { layout } = a;
  const bound = bindGates(layout, a.turned);
  return {
    kernel: gatesBackward,
    variant: {},
    uniforms: {
      expand4: a.expand4,
      slab_rows: a.slabRows,
      chunks: a.chunks,
      ...bound.uniforms,
      first_batch_row,
      first_query,
      query_length,
      slab_queries,
      gradients_stride: 4 * a.gradientsStride4,
      gates_at: 4 * a.gatesAt4,
    },
    slots: { ...bound.slots, gradients: a.gradients, gates: a.gates },
    workgroups: workgroupsFor(Math.ceil((a.slabRows * layout.stride) / WORKGROUP_SIZE), a.maxWorkgroups),
    bytesRead: a.slabRows * a.chunks * a.expand4 * 16 * (a.turned ? 2 : 1) + a.gates.size + bound.bytesRead,
    bytesWritten: a.gates.size,
  };
}
