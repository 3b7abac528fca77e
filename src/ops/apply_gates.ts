import source from "../../shaders/apply_gates.wgsl?raw";
import { type Slot, type Step, WORKGROUP_SIZE } from "../runtime/kernel.ts";
import { defineKernel, EMPTY, ROW_MOMENTS, SEARCH_TABLE, workgroupsFor } from "./op.ts";
import { type MomentSource, SOURCE_PREFIX } from "./types.ts";

export const applyGates = defineKernel({ name: "apply_gates", source, uses: [ROW_MOMENTS, SEARCH_TABLE] });

/** Which gate a channel takes; see the kernel's header. */
export interface GateLayout {
  /** f32s from one row of gates to the next. */
  readonly stride: number;
  /** Gates, and channels of a gate, in a chunk of channels. */
  readonly chunkGates: number;
  readonly headWidth: number;
  /** Column of the table of rotations from one gate to the next. */
  readonly columnStep: number;
}

export interface ApplyGatesArguments {
  readonly gates: Slot;
  readonly layout: GateLayout;
  readonly from: MomentSource;
  readonly rows: Slot;
  readonly slabRows: number;
  readonly stride4: number;
  readonly expand4: number;
  /** Where gates are turned: the table of rotations, where it begins in vec4s, positions of all queries, and how many each has. */
  readonly turned?: { readonly constants: Slot; readonly rotations: number; readonly positions: Slot; readonly planes: number } | undefined;
  readonly maxWorkgroups: number;
}

/** Gated moments of a slab of query rows, by gates that are there; one dispatch. */
export function planApplyGates(a: ApplyGatesArguments): Step {
  const { turned, layout } = a;
  return {
    kernel: applyGates,
    variant: {},
    uniforms: {
      ...a.from.uniforms,
      source: a.from.source,
      stride4: a.stride4,
      expand4: a.expand4,
      slab_rows: a.slabRows,
      gates_stride: layout.stride,
      chunk_gates: layout.chunkGates,
      head_width: layout.headWidth,
      column_step: layout.columnStep,
      planes: turned?.planes ?? 0,
      rotations: turned?.rotations ?? 0,
    },
    slots: {
      gates: a.gates,
      constants: turned?.constants ?? EMPTY,
      positions: turned?.positions ?? EMPTY,
      moments: a.from.moments,
      table: a.from.table ?? EMPTY,
      rows: a.rows,
    },
    workgroups: workgroupsFor(Math.ceil((a.slabRows * a.stride4) / WORKGROUP_SIZE), a.maxWorkgroups),
    bytesRead: a.gates.size + a.from.moments.size + (a.from.source >= SOURCE_PREFIX ? a.rows.size : 0) + (turned ? turned.constants.size : 0),
    bytesWritten: a.rows.size,
  };
}
