import source from "../../shaders/moments_backward.wgsl?raw";
import { type Slot, type Step, type TileName, tileFor, tilesOver, WORKGROUP_SIZE } from "../runtime/kernel.ts";
import {
  ACTIVATION_GRADIENTS,
  bindRows,
  defineKernel,
  EMPTY,
  LOAD_X,
  type Rows,
  rowBytes,
  SEARCH_TABLE,
  TILE,
  TOKEN_SOURCE,
  variantsOf,
  workgroupsFor,
  xUniforms,
} from "./op.ts";
import { ACTIVATIONS, type Activation, type GradientSource, SOURCE_PREFIX, SOURCE_ROW } from "./types.ts";

export const momentsBackward = defineKernel({
  name: "moments_backward",
  source,
  uses: [TILE, LOAD_X, ACTIVATION_GRADIENTS, TOKEN_SOURCE, SEARCH_TABLE],
  variants: variantsOf({ x: ["vec4", "scalar"], activation: ACTIVATIONS, tile: ["1x4", "8x4", "16x8", "16x8_quads"] }),
});

export interface MomentsBackwardArguments {
  readonly x: Rows;
  readonly w: Slot;
  readonly activation: Activation;
  readonly order: number;
  readonly expand4: number;
  readonly from: GradientSource;
  /** Gradients of the projection's outputs at column 0 of rows of `rowsStride4` vec4s; gradients of the moments before, where the source has them. */
  readonly rows: Slot;
  readonly rowsStride4: number;
  readonly tile: TileName;
  readonly maxWorkgroups: number;
}

/** Gradients through the moments of a slab of tokens; one dispatch. */
export function planMomentsBackward(a: MomentsBackwardArguments): Step {
  const bound = bindRows(a.x);
  const tile = tileFor(a.x.count, a.tile, a.expand4);
  const stride4 = a.order * a.expand4;
  const bytes = a.x.count * stride4 * 16;
  const { from } = a;
  return {
    kernel: momentsBackward,
    variant: { x: bound.access, activation: a.activation, tile },
    uniforms: {
      ...xUniforms(a.x, bound),
      ...from.uniforms,
      order: a.order,
      expand4: a.expand4,
      stride4,
      w_stride4: 2 * stride4,
      slab_rows: a.x.count,
      rows_stride4: a.rowsStride4,
      source: from.source,
      table_offset: from.tableOffset ?? 0,
    },
    slots: {
      x: bound.slot,
      w: a.w,
      sums: from.sums,
      table: from.table ?? EMPTY,
      rows: a.rows,
    },
    workgroups: workgroupsFor(Math.ceil(tilesOver(tile, a.x.count, a.expand4) / WORKGROUP_SIZE), a.maxWorkgroups),
    bytesRead: rowBytes(a.x) + a.w.size / 2 + from.sums.size + (from.source === SOURCE_PREFIX || from.source === SOURCE_ROW ? bytes : 0),
    bytesWritten: bytes,
  };
}
