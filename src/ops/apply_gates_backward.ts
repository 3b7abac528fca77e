import source from "../../shaders/apply_gates_backward.wgsl?raw";
import { type Slot, type Step, WORKGROUP_SIZE } from "../runtime/kernel.ts";
import { bindGates, defineKernel, EMPTY, GATE_OF, ROW_MOMENTS, SEARCH_TABLE, workgroupsFor } from "./op.ts";
import { type GateLayout, type GateTurns, type MomentSource, SOURCE_PREFIX } from "./types.ts";

export const applyGatesBackward = defineKernel({ name: "apply_gates_backward", source, uses: [GATE_OF, ROW_MOMENTS, SEARCH_TABLE] });

export interface ApplyGatesBackwardArguments {
  readonly gates: Slot;
  readonly layout: GateLayout;
  readonly turned?: GateTurns | undefined;
  readonly from: MomentSource;
  /** Sums, where the source has them; gated moments afterwards. */
  readonly rows: Slot;
  readonly slabRows: number;
  readonly stride4: number;
  readonly expand4: number;
  /** Write the gated moments and the gradients of the gates. */
  readonly selection: boolean;
  /** `[slab rows, gradientsStride4]` vec4s: in the gradients of the gated moments, at `gatesAt4`. */
  readonly gradients: Slot;
  readonly gradientsStride4: number;
  readonly gatesAt4: number;
  /** Where the gradients of the sums go; undefined leaves them out. */
  readonly sumsAt4?: number | undefined;
  readonly maxWorkgroups: number;
}

/** Gradients through the product of gates and moments of a slab of query rows; one dispatch. */
export function planApplyGatesBackward(a: ApplyGatesBackwardArguments): Step {
  const bound = bindGates(a.layout, a.turned);
  const bytes = a.slabRows * a.stride4 * 16;
  const inPlace = a.from.source >= SOURCE_PREFIX;
  return {
    kernel: applyGatesBackward,
    variant: {},
    uniforms: {
      ...a.from.uniforms,
      source: a.from.source,
      stride4: a.stride4,
      expand4: a.expand4,
      slab_rows: a.slabRows,
      ...bound.uniforms,
      gradients_stride4: a.gradientsStride4,
      gates_at4: a.gatesAt4,
      sums_at4: a.sumsAt4 ?? 0,
      has_selection: a.selection ? 1 : 0,
      has_sums: a.sumsAt4 === undefined ? 0 : 1,
    },
    slots: {
      gates: a.gates,
      ...bound.slots,
      moments: a.selection ? a.from.moments : EMPTY,
      table: a.from.table ?? EMPTY,
      rows: a.rows,
      gradients: a.gradients,
    },
    workgroups: workgroupsFor(Math.ceil((a.slabRows * a.stride4) / WORKGROUP_SIZE), a.maxWorkgroups),
    bytesRead: a.gates.size + bytes + bound.bytesRead + (a.selection ? a.from.moments.size + (inPlace ? bytes : 0) : 0),
    bytesWritten: (a.selection ? 2 * bytes : 0) + (a.sumsAt4 === undefined ? 0 : bytes),
  };
}
