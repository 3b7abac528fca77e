import source from "../../shaders/prefix_moments.wgsl?raw";
import { type Slot, type Step, type TileName, tileOver, tilesOver, type WeightDtype, WORKGROUP_SIZE } from "../runtime/kernel.ts";
import {
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
  TOKEN_RANGE,
  variantsOf,
  workgroupsFor,
  xUniforms,
} from "./op.ts";
import type { Expansion, MomentActivation, TokenBlocks } from "./types.ts";

export const prefixMoments = defineKernel({
  name: "prefix_moments",
  source,
  uses: [EXPAND, TILE, LOAD_X, TOKEN_RANGE, SEARCH_TABLE],
  variants: variantsOf({
    w: ["f32", "f16", "i8", "i4"],
    x: ["vec4", "scalar", "half"],
    activation: ["gelu", "tanh", "identity", "x_erf"],
    tile: ["8x4", "16x8", "16x8_quads"],
  }),
});

export interface PrefixMomentsArguments extends Expansion {
  readonly x: Rows;
  readonly w: Slot;
  readonly weightDtype: WeightDtype;
  readonly rows: Slot;
  readonly activation: MomentActivation;
  readonly order: number;
  readonly expand4: number;
  readonly blocks: TokenBlocks;
  /** Rows of the slab that belong to one batch row. */
  readonly slabTokens: number;
  readonly running: boolean;
  /** Plain moments of one batch row, with zeros up to the next multiple of 4 rows. */
  readonly filled?: boolean;
  /** Tokens that a row sees beyond its own, counted from its block of `ahead`: 1 for a causal mask. */
  readonly ahead: number;
  readonly tile: TileName;
  readonly maxWorkgroups: number;
}

/** Running sums of moments inside blocks, or plain moments, one row a token; one dispatch. */
export function planPrefixMoments(a: PrefixMomentsArguments): Step {
  const bound = bindRows(a.x);
  const stride4 = a.order * a.expand4;
  const expansion = bindExpansion(a, stride4);
  return {
    kernel: prefixMoments,
    variant: { ...expansion.variant, x: bound.access, w: a.weightDtype, activation: a.activation, tile: tileOver(a.tile, a.expand4) },
    uniforms: {
      ...xUniforms(a.x, bound),
      ...a.blocks.uniforms,
      order: a.order,
      expand4: a.expand4,
      stride4,
      ...expansion.uniforms,
      running: a.running ? 1 : 0,
      ahead: a.ahead,
      slab_tokens: a.slabTokens,
      filled: a.filled ? 1 : 0,
    },
    slots: { x: bound.slot, w: a.w, table: a.blocks.table ?? EMPTY, ...expansion.slots, rows: a.rows },
    workgroups: workgroupsFor(Math.ceil((a.blocks.count * tilesOver(a.tile, 1, a.expand4)) / WORKGROUP_SIZE), a.maxWorkgroups),
    bytesRead: rowBytes(a.x) + expansion.bytesRead + a.w.size,
    bytesWritten: a.rows.size,
  };
}
