import source from "../../shaders/polynomial_backward.wgsl?raw";
import { type Slot, type Step, type TileName, tileFor, tilesOver, WORKGROUP_SIZE } from "../runtime/kernel.ts";
import {
  ACTIVATION_GRADIENTS,
  bindExpansion,
  bindRows,
  defineKernel,
  EMPTY,
  EXPAND,
  LOAD_X,
  type Rows,
  rowBytes,
  SEARCH_TABLE,
  TILE,
  TOKEN_SOURCE,
  variantsOf,
  weightBytes,
  workgroupsFor,
  xUniforms,
} from "./op.ts";
import { type Expansion, type GradientSource, SOURCE_PREFIX, SOURCE_ROW } from "./types.ts";

export const polynomialBackward = defineKernel({
  name: "polynomial_backward",
  source,
  uses: [EXPAND, TILE, LOAD_X, ACTIVATION_GRADIENTS, TOKEN_SOURCE, SEARCH_TABLE],
  variants: variantsOf({
    x: ["vec4", "scalar"],
    activation: ["leaky_clamp"],
    tile: ["1x4", "8x4", "16x8", "16x8_quads"],
  }),
});

export interface PolynomialBackwardArguments extends Expansion {
  readonly x: Rows;
  readonly w: Slot;
  readonly order: number;
  readonly expand4: number;
  readonly degree: number;
  readonly from: GradientSource;
  /** Gradients of the projection's outputs at column 0 of rows of `rowsStride4` vec4s; gradients of the moments before, where the source has them. */
  readonly rows: Slot;
  readonly rowsStride4: number;
  /** Rows [firstRow, endRow) of x, of which an invocation takes `blockRows`. */
  readonly firstRow: number;
  readonly endRow: number;
  readonly blockRows: number;
  /** Gradients of the coefficients, `[blocks, degree, order · expand4]` vec4s. */
  readonly gradients: Slot;
  readonly accumulate: boolean;
  readonly tile: TileName;
  readonly maxWorkgroups: number;
}

/** Gradients through the polynomials of a slab of tokens; one dispatch. */
export function planPolynomialBackward(a: PolynomialBackwardArguments): Step {
  const bound = bindRows(a.x);
  const tile = tileFor(a.x.count, a.tile, a.expand4);
  const stride4 = a.order * a.expand4;
  const rows = a.endRow - a.firstRow;
  const bytes = rows * stride4 * 16;
  const blocks = Math.ceil(rows / a.blockRows);
  const expansion = bindExpansion(a, stride4);
  const together = a.order / (a.positions ? 2 : 1);
  const { from } = a;
  return {
    kernel: polynomialBackward,
    variant: { ...expansion.variant, x: bound.access, activation: "leaky_clamp", tile },
    uniforms: {
      ...xUniforms(a.x, bound),
      ...from.uniforms,
      ...expansion.uniforms,
      order: a.order,
      expand4: a.expand4,
      stride4,
      first_row: a.firstRow,
      end_row: a.endRow,
      blocks,
      block_rows: a.blockRows,
      rows_stride4: a.rowsStride4,
      source: from.source,
      table_offset: from.tableOffset ?? 0,
      accumulate: a.accumulate ? 1 : 0,
    },
    slots: { x: bound.slot, w: a.w, sums: from.sums, table: from.table ?? EMPTY, ...expansion.slots, rows: a.rows, gradients: a.gradients },
    workgroups: workgroupsFor(Math.ceil((blocks * together * tilesOver(tile, 1, a.expand4)) / WORKGROUP_SIZE), a.maxWorkgroups),
    bytesRead:
      rowBytes(a.x) +
      weightBytes("f32", a.x.part ?? a.x.length, stride4) +
      expansion.bytesRead +
      from.sums.size +
      (from.source === SOURCE_PREFIX || from.source === SOURCE_ROW ? bytes : 0),
    bytesWritten: bytes + blocks * a.degree * stride4 * 16,
  };
}
