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
  variantsOf,
  workgroupsFor,
  xUniforms,
} from "./op.ts";
import { ACTIVATIONS, type Activation, type MomentSource, SOURCE_PREFIX, SOURCE_ROW } from "./types.ts";

export const momentsBackward = defineKernel({
  name: "moments_backward",
  source,
  uses: [TILE, LOAD_X, ACTIVATION_GRADIENTS, SEARCH_TABLE],
  variants: variantsOf({ x: ["vec4", "scalar"], activation: ACTIVATIONS, tile: ["1x4", "8x4", "16x8", "16x8_quads"] }),
});

/** Where the tokens of a slab find the gradients of their moments. */
export interface GradientSource {
  readonly source: MomentSource["source"];
  /** Gradients of the sums of segments, or of everything after each block. */
  readonly sums: Slot;
  /** Lengths or cu_seqlens. */
  readonly table?: Slot | undefined;
  /** Padding weights; `first` is the element of the slab's first token. */
  readonly weights?: { readonly slot: Slot; readonly first: number } | undefined;
  readonly uniforms: {
    readonly first_batch_row: number;
    readonly first_token: number;
    readonly slab_tokens: number;
    readonly slab_blocks: number;
    readonly block_tokens: number;
    readonly first_segment: number;
    readonly segments_per_row: number;
    readonly segment_length: number;
    readonly packed_segments: number;
    /** 0: none, 1: padding, 2: lengths. */
    readonly weighting: number;
  };
}

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
      weights_offset: from.weights?.first ?? 0,
    },
    slots: {
      x: bound.slot,
      w: a.w,
      sums: from.sums,
      table: from.table ?? EMPTY,
      weights: from.weights?.slot ?? EMPTY,
      rows: a.rows,
    },
    workgroups: workgroupsFor(Math.ceil(tilesOver(tile, a.x.count, a.expand4) / WORKGROUP_SIZE), a.maxWorkgroups),
    bytesRead: rowBytes(a.x) + a.w.size / 2 + from.sums.size + (from.source === SOURCE_PREFIX || from.source === SOURCE_ROW ? bytes : 0),
    bytesWritten: bytes,
  };
}
