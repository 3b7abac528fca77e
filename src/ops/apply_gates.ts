import source from "../../shaders/apply_gates.wgsl?raw";
import { type Slot, type Step, WORKGROUP_SIZE } from "../runtime/kernel.ts";
import { bindGates, defineKernel, EMPTY, GATE_OF, ROW_MOMENTS, SEARCH_TABLE, workgroupsFor } from "./op.ts";
import { type GateLayout, type GateTurns, type MomentSource, SOURCE_PREFIX } from "./types.ts";

export const applyGates = defineKernel({ name: "apply_gates", source, uses: [GATE_OF, ROW_MOMENTS, SEARCH_TABLE] });

export interface ApplyGatesArguments {
  readonly gates: Slot;
  readonly layout: GateLayout;
  readonly from: MomentSource;
  readonly rows: Slot;
  readonly slabRows: number;
  readonly stride4: number;
  readonly expand4: number;
  readonly turned?: GateTurns | undefined;
  readonly maxWorkgroups: number;
}

/** Gated moments of a slab of query rows, by gates that are there; one dispatch. */
export function planApplyGates(a: ApplyGatesArguments): Step {
  const bound = bindGates(a.layout, a.turned);
  return {
    kernel: applyGates,
    variant: {},
    uniforms: {
      ...a.from.uniforms,
      source: a.from.source,
      stride4: a.stride4,
      expand4: a.expand4,
      slab_rows: a.slabRows,
      ...bound.uniforms,
    },
    slots: {
      gates: a.gates,
      ...bound.slots,
      moments: a.from.moments,
      table: a.from.table ?? EMPTY,
      rows: a.rows,
    },
    workgroups: workgroupsFor(Math.ceil((a.slabRows * a.stride4) / WORKGROUP_SIZE), a.maxWorkgroups),
    bytesRead: a.gates.size + a.from.moments.size + (a.from.source >= SOURCE_PREFIX ? a.rows.size : 0) + bound.bytesRead,
    bytesWritten: a.rows.size,
  };
}
