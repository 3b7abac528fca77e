import source from "../../shaders/select.wgsl?raw";
import { SELECT_TILE_ROWS, type Slot, type Step, type Variant, WORKGROUP_SIZE } from "../runtime/kernel.ts";
import {
  bindRows,
  bindY,
  defineKernel,
  EMPTY,
  LOAD_X,
  ROW_MOMENTS,
  type Rows,
  rowBytes,
  SEARCH_TABLE,
  STORE_Y,
  TILE,
  variantsOf,
  workgroupsFor,
  xUniforms,
} from "./op.ts";
import type { MomentSource } from "./types.ts";

export const select = defineKernel({
  name: "select",
  source,
  uses: [TILE, LOAD_X, STORE_Y, ROW_MOMENTS, SEARCH_TABLE],
  variants: variantsOf({ x: ["vec4", "scalar", "half"], y: ["vec4", "scalar", "half"], lanes: [16, 32, 64], gate: ["sigmoid"] }),
});

/** Outputs that one workgroup can hold: 4 a lane. */
export const SELECT_MAX_DIM = 4 * 64;

export interface SelectArguments {
  readonly x: Rows;
  readonly w: Slot;
  readonly wOut: Slot;
  readonly y: Rows;
  readonly residual?: Rows | undefined;
  /** Running or weighted sums of the slab, where the source reads them. */
  readonly rows?: Slot | undefined;
  readonly stride4: number;
  readonly from: MomentSource;
  /** Default: sigmoid. */
  readonly gate?: NonNullable<Variant["gate"]>;
  readonly maxWorkgroups: number;
}

/** Selection, gate and output projection of a slab of query rows; one dispatch. */
export function planSelect(a: SelectArguments): Step {
  const bound = bindRows(a.x);
  const outer4 = Math.ceil(a.y.length / 4);
  const lanes: Variant["lanes"] = outer4 <= 16 ? 16 : outer4 <= 32 ? 32 : 64;
  const y = bindY(a.y, a.residual, EMPTY);
  const rowsOfGroup = (WORKGROUP_SIZE / lanes) * SELECT_TILE_ROWS;
  return {
    kernel: select,
    variant: { x: bound.access, y: y.access, lanes, gate: a.gate ?? "sigmoid" },
    uniforms: {
      ...xUniforms(a.x, bound),
      ...y.uniforms,
      ...a.from.uniforms,
      source: a.from.source,
      outer: a.y.length,
      outer4,
      stride4: a.stride4,
      slab_rows: a.x.count,
    },
    slots: { x: bound.slot, w: a.w, w_out: a.wOut, moments: a.from.moments, rows: a.rows ?? EMPTY, table: a.from.table ?? EMPTY, ...y.slots },
    workgroups: workgroupsFor(Math.ceil(a.x.count / rowsOfGroup), a.maxWorkgroups),
    bytesRead: rowBytes(a.x) + a.w.size + a.wOut.size + a.from.moments.size + (a.rows?.size ?? 0) + y.bytesRead,
    bytesWritten: y.bytesWritten,
  };
}
