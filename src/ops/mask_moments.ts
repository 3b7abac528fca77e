import source from "../../shaders/mask_moments.wgsl?raw";
import { type Slot, type Step, type TileName, tileFor, tilesOver, WORKGROUP_SIZE } from "../runtime/kernel.ts";
import { bindRows, defineKernel, LOAD_X, type Rows, rowBytes, TILE, variantsOf, workgroupsFor, xUniforms } from "./op.ts";

export const maskMoments = defineKernel({
  name: "mask_moments",
  source,
  uses: [TILE, LOAD_X],
  variants: variantsOf({ x: ["vec4", "scalar"], tile: ["1x4", "8x4", "16x8", "16x8_quads"] }),
});

export interface MaskMomentsArguments {
  /** The mask's rows, cut to the tokens of the slab. */
  readonly mask: Rows;
  /** Plain moments of the slab's tokens. */
  readonly tokens: Slot;
  readonly rows: Slot;
  readonly stride4: number;
  readonly accumulate: boolean;
  readonly tile: TileName;
  readonly maxWorkgroups: number;
}

/** Masked sums of a slab of tokens for every query row; one dispatch. */
export function planMaskMoments(a: MaskMomentsArguments): Step {
  const bound = bindRows(a.mask);
  const tile = tileFor(a.mask.count, a.tile, a.stride4);
  return {
    kernel: maskMoments,
    variant: { x: bound.access, tile },
    uniforms: { ...xUniforms(a.mask, bound), stride4: a.stride4, query_rows: a.mask.count, accumulate: a.accumulate ? 1 : 0 },
    slots: { x: bound.slot, w: a.tokens, rows: a.rows },
    workgroups: workgroupsFor(Math.ceil(tilesOver(tile, a.mask.count, a.stride4) / WORKGROUP_SIZE), a.maxWorkgroups),
    bytesRead: rowBytes(a.mask) + a.tokens.size + (a.accumulate ? a.rows.size : 0),
    bytesWritten: a.rows.size,
  };
}
