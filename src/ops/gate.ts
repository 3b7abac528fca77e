import source from "../../shaders/gate.wgsl?raw";
import { type Slot, type Step, type TileName, tileFor, tilesOver, type Variant, type WeightDtype, WORKGROUP_SIZE } from "../runtime/kernel.ts";
import {
  bindRows,
  defineKernel,
  EMPTY,
  LOAD_X,
  ROW_MOMENTS,
  type Rows,
  rowBytes,
  SEARCH_TABLE,
  TILE,
  variantsOf,
  workgroupsFor,
  xUniforms,
} from "./op.ts";
import { type MomentSource, SOURCE_PREFIX } from "./types.ts";

export const gate = defineKernel({
  name: "gate",
  source,
  uses: [TILE, LOAD_X, ROW_MOMENTS, SEARCH_TABLE],
  variants: variantsOf({
    w: ["f32", "f16", "i8", "i4"],
    x: ["vec4", "scalar", "half"],
    tile: ["1x4", "8x4", "16x8", "16x8_quads"],
    gate: ["sigmoid"],
  }),
});

export interface GateArguments {
  readonly x: Rows;
  readonly w: Slot;
  readonly weightDtype: WeightDtype;
  readonly rows: Slot;
  readonly stride4: number;
  readonly from: MomentSource;
  /** Default: sigmoid. */
  readonly gate?: NonNullable<Variant["gate"]>;
  readonly tile: TileName;
  readonly maxWorkgroups: number;
}

/** Gated moments of a slab of query rows; one dispatch. */
export function planGate(a: GateArguments): Step {
  const bound = bindRows(a.x);
  const tile = tileFor(a.x.count, a.tile, a.stride4);
  const inPlace = a.from.source >= SOURCE_PREFIX;
  return {
    kernel: gate,
    variant: { x: bound.access, w: a.weightDtype, tile, gate: a.gate ?? "sigmoid" },
    uniforms: { ...xUniforms(a.x, bound), ...a.from.uniforms, source: a.from.source, stride4: a.stride4, slab_rows: a.x.count },
    slots: { x: bound.slot, w: a.w, moments: a.from.moments, table: a.from.table ?? EMPTY, rows: a.rows },
    workgroups: workgroupsFor(Math.ceil(tilesOver(tile, a.x.count, a.stride4) / WORKGROUP_SIZE), a.maxWorkgroups),
    bytesRead: rowBytes(a.x) + a.w.size + a.from.moments.size + (inPlace ? a.rows.size : 0),
    bytesWritten: a.rows.size,
  };
}
