import source from "../../shaders/moments.wgsl?raw";
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
  weightBytes,
  workgroupsFor,
  xUniforms,
} from "./op.ts";
import type { Expansion, MomentActivation, TokenBlocks } from "./types.ts";

export const moments = defineKernel({
  name: "moments",
  source,
  uses: [EXPAND, TILE, LOAD_X, TOKEN_RANGE, SEARCH_TABLE],
  variants: variantsOf({
    w: ["f32", "f16", "i8", "i4"],
    x: ["vec4", "scalar", "half"],
    activation: ["gelu", "tanh", "identity", "x_erf"],
    tile: ["8x4", "16x8", "16x8_quads"],
  }),
});

export interface MomentsArguments extends Expansion {
  readonly x: Rows;
  readonly w: Slot;
  readonly weightDtype: WeightDtype;
  readonly partial: Slot;
  readonly activation: MomentActivation;
  readonly order: number;
  readonly expand4: number;
  readonly blocks: TokenBlocks;
  /** Padding weights of the bound tokens; `first` is the element of the first bound token. */
  readonly weights?: { readonly slot: Slot; readonly first: number } | undefined;
  readonly tile: TileName;
  readonly maxWorkgroups: number;
}

/** Sums of moments over blocks of tokens; one dispatch. */
export function planMoments(a: MomentsArguments): Step {
  const bound = bindRows(a.x);
  const stride4 = a.order * a.expand4;
  const expansion = bindExpansion(a, stride4);
  return {
    kernel: moments,
    variant: { ...expansion.variant, x: bound.access, w: a.weightDtype, activation: a.activation, tile: tileOver(a.tile, a.expand4) },
    uniforms: {
      ...xUniforms(a.x, bound),
      ...a.blocks.uniforms,
      order: a.order,
      expand4: a.expand4,
      stride4,
      ...expansion.uniforms,
      has_weights: a.weights ? 1 : 0,
      weights_offset: a.weights?.first ?? 0,
    },
    slots: { x: bound.slot, w: a.w, weights: a.weights?.slot ?? EMPTY, table: a.blocks.table ?? EMPTY, ...expansion.slots, partial: a.partial },
    workgroups: workgroupsFor(Math.ceil((a.blocks.count * tilesOver(a.tile, 1, a.expand4)) / WORKGROUP_SIZE), a.maxWorkgroups),
    bytesRead: rowBytes(a.x) + expansion.bytesRead + weightBytes(a.weightDtype, a.x.part ?? a.x.length, stride4) + (a.weights ? a.x.count * 4 : 0),
    bytesWritten: a.blocks.count * stride4 * 16,
  };
}
