import source from "../../shaders/weight_gradient.wgsl?raw";
import { type Slot, type Step, type TileName, WORKGROUP_SIZE } from "../runtime/kernel.ts";
import { type BoundRows, bindRows, defineKernel, LOAD_DY, LOAD_X, OUTER, type Rows, variantsOf, workgroupsFor, xUniforms } from "./op.ts";

/** Inputs x outputs of a weight gradient's register tile (shaders/shared/outer_*.wgsl). */
export type OuterTileName = Extract<TileName, "8x4" | "16x8">;

export const weightGradient = defineKernel({
  name: "weight_gradient",
  source,
  uses: [OUTER, LOAD_X, LOAD_DY],
  variants: variantsOf({ x: ["vec4", "scalar"], y: ["vec4", "scalar"], tile: ["8x4", "16x8"] }),
});

export interface WeightGradientArguments {
  /** `[rows, inner]`, f32. */
  readonly x: Rows;
  /** `[rows, outer]`, f32; a column range of longer rows has their stride and its own `byteOffset`. */
  readonly dy: Rows;
  /** Sums of blocks, `[blocks, inner + 1 or inner, outer]`; with one block, columns of the gradient's own matrix. */
  readonly out: Slot;
  /** vec4s from row to row of `out`, before its first column, and from block to block. */
  readonly stride4: number;
  readonly first4: number;
  readonly block4: number;
  /** Rows [firstRow, endRow) of x and dy. */
  readonly firstRow: number;
  readonly endRow: number;
  readonly blockRows: number;
  /** Writes the bias' gradient after the weight's. */
  readonly bias: boolean;
  /** Adds to what `out` holds. */
  readonly accumulate: boolean;
  readonly tile: OuterTileName;
  readonly maxWorkgroups: number;
}

/** vec4s of inputs and of outputs that a tile covers. */
const OUTER_TILES: Readonly<Record<OuterTileName, { readonly rows4: number; readonly cols4: number }>> = {
  "8x4": { rows4: 2, cols4: 1 },
  "16x8": { rows4: 4, cols4: 2 },
};

/** Invocations of one block of rows. */
export function weightGradientInvocations(tile: OuterTileName, inner4: number, outer4: number, bias: boolean): number {
  const { rows4, cols4 } = OUTER_TILES[tile];
  return Math.ceil(inner4 / rows4) * Math.ceil(outer4 / cols4) + (bias ? outer4 : 0);
}

/** Sums of outer products over blocks of rows; one dispatch. */
export function planWeightGradient(a: WeightGradientArguments): Step {
  const [x, dy] = [bindRows(a.x), bindRows(a.dy)];
  const [inner4, outer4] = [Math.ceil(a.x.length / 4), Math.ceil(a.dy.length / 4)];
  const rows = a.endRow - a.firstRow;
  const blocks = Math.ceil(rows / a.blockRows);
  const written = blocks * (a.x.length + (a.bias ? 1 : 0)) * a.dy.length * 4;
  return {
    kernel: weightGradient,
    variant: { x: x.access, y: dy.access, tile: a.tile },
    uniforms: {
      ...xUniforms(a.x, x),
      ...dyUniforms(a.dy, dy),
      first_row: a.firstRow,
      end_row: a.endRow,
      block_rows: a.blockRows,
      blocks,
      has_bias: a.bias ? 1 : 0,
      accumulate: a.accumulate ? 1 : 0,
      out_stride4: a.stride4,
      out_first4: a.first4,
      out_block4: a.block4,
    },
    slots: { x: x.slot, dy: dy.slot, out: a.out },
    workgroups: workgroupsFor(Math.ceil((blocks * weightGradientInvocations(a.tile, inner4, outer4, a.bias)) / WORKGROUP_SIZE), a.maxWorkgroups),
    bytesRead: rows * (a.x.length + a.dy.length) * 4 + (a.accumulate ? written : 0),
    bytesWritten: written,
  };
}

function dyUniforms(rows: Rows, bound: BoundRows): Record<string, number> {
  const unit = bound.access === "scalar" ? 1 : 4;
  return {
    outer: rows.length,
    outer4: Math.ceil(rows.length / 4),
    dy_offset: bound.offset / unit,
    dy_stride: rows.stride / unit,
    dy_span: bound.span,
    dy_pitch: bound.pitch,
  };
}
