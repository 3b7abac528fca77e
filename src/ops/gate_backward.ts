import source from "../../shaders/gate_backward.wgsl?raw";
import { type Slot, type Step, type TileName, tileFor, tilesOver, type Variant, WORKGROUP_SIZE } from "../runtime/kernel.ts";
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

export const gateBackward = defineKernel({
  name: "gate_backward",
  source,
  uses: [TILE, LOAD_X, ROW_MOMENTS, SEARCH_TABLE],
  variants: variantsOf({ x: ["vec4", "scalar"], tile: ["1x4", "8x4", "16x8", "16x8_quads"], gate: ["sigmoid"] }),
});

export interface GateBackwardArguments {
  readonly x: Rows;
  readonly w: Slot;
  readonly stride4: number;
  readonly from: MomentSource;
  /** Running or weighted sums, where the source has them; gated moments afterwards. */
  readonly rows: Slot;
  /** Write the gated moments and the gradients of the logits. */
  readonly selection: boolean;
  /** `[slab rows, gradientsStride4]` vec4s: in the gradients of the gated moments, at `logitsAt4`. */
  readonly gradients: Slot;
  readonly gradientsStride4: number;
  readonly logitsAt4: number;
  /** Where the gradients of the sums go; undefined leaves them out. */
  readonly sumsAt4?: number | undefined;
  /** Default: sigmoid. */
  readonly gate?: NonNullable<Variant["gate"]>;
  readonly tile: TileName;
  readonly maxWorkgroups: number;
}

/** Gradients through the selection of a slab of query rows; one dispatch. */
export function planGateBackward(a: GateBackwardArguments): Step {
  const bound = bindRows(a.x);
  const tile = tileFor(a.x.count, a.tile, a.stride4);
  const inPlace = a.from.source >= SOURCE_PREFIX;
  const bytes = a.x.count * a.stride4 * 16;
  return {
    kernel: gateBackward,
    variant: { x: bound.access, tile, gate: a.gate ?? "sigmoid" },
    uniforms: {
      ...xUniforms(a.x, bound),
      ...a.from.uniforms,
      source: a.from.source,
      stride4: a.stride4,
      slab_rows: a.x.count,
      gradients_stride4: a.gradientsStride4,
      logits_at4: a.logitsAt4,
      sums_at4: a.sumsAt4 ?? 0,
      has_selection: a.selection ? 1 : 0,
      has_sums: a.sumsAt4 === undefined ? 0 : 1,
    },
    slots: {
      x: bound.slot,
      w: a.w,
      moments: a.selection ? a.from.moments : EMPTY,
      table: a.from.table ?? EMPTY,
      rows: a.rows,
      gradients: a.gradients,
    },
    workgroups: workgroupsFor(Math.ceil(tilesOver(tile, a.x.count, a.stride4) / WORKGROUP_SIZE), a.maxWorkgroups),
    bytesRead: rowBytes(a.x) + a.w.size / 2 + bytes + (a.selection ? a.from.moments.size + (inPlace ? bytes : 0) : 0),
    bytesWritten: (a.selection ? 2 * bytes : 0) + (a.sumsAt4 === undefined ? 0 : bytes),
  };
}
