import type { Expand, Slot, Variant } from "../runtime/kernel.ts";

/** `gelu` is the exact erf form; `x_erf` is x·erf(x). */
export type Activation = "gelu" | "tanh" | "identity" | "x_erf";
/** Those of any layer; PoM's clamps a leaky ReLU. */
export type MomentActivation = Activation | "leaky_clamp";

export const ACTIVATIONS: readonly Activation[] = ["gelu", "tanh", "identity", "x_erf"];

/** What kernels with an expansion read beside x and w; see shaders/shared/polynomial.wgsl. */
export interface Expansion {
  readonly expand?: Expand;
  /** vec4s from one row of w to the next. Default: twice a row of moments, ho_proj and se_proj side by side. */
  readonly wStride4?: number;
  readonly constants?: Slot;
  readonly degree?: number;
  /** Columns of a group in vec4s, where the projection is grouped; x is then read in parts. */
  readonly group4?: number;
  /** Where the table of rotations begins in `constants`, in vec4s. */
  readonly rotations?: number;
  /** Positions of the bound rows of x: their slot, and the element of the first. */
  readonly positions?: { readonly slot: Slot; readonly first: number } | undefined;
}

/** A batch of images, and the side of a patch. */
export interface ImageShape {
  readonly batch: number;
  readonly channels: number;
  readonly height: number;
  readonly width: number;
  readonly patch: number;
}

/** Numbers of a patch's row from one channel and one pixel to the next. */
export function patchSteps({ channels, patch }: ImageShape, channelsLast: boolean) {
  return channelsLast ? { channel_step: 1, pixel_step: channels } : { channel_step: patch * patch, pixel_step: 1 };
}

/** The blocks of tokens that a dispatch walks (shaders/shared/token_range.wgsl). */
export interface TokenBlocks {
  readonly count: number;
  readonly uniforms: {
    readonly blocks: number;
    readonly block_tokens: number;
    readonly blocks_per_segment: number;
    readonly first_block: number;
    readonly first_segment: number;
    readonly segments_per_row: number;
    readonly segment_length: number;
    readonly row_tokens: number;
    readonly token_base: number;
    readonly range_mode: number;
    readonly packed_segments: number;
  };
  /** Lengths, or cu_seqlens and the first block of each segment. */
  readonly table?: Slot | undefined;
}

export const RANGE_REGULAR = 0;
export const RANGE_LENGTHS = 1;
export const RANGE_PACKED = 2;

/** Where a query row finds its moments (shaders/shared/row_moments.wgsl). */
export interface MomentSource {
  readonly source: 0 | 1 | 2 | 3 | 4;
  readonly moments: Slot;
  readonly table?: Slot | undefined;
  readonly uniforms: {
    readonly first_batch_row: number;
    readonly first_query: number;
    readonly query_length: number;
    readonly slab_queries: number;
    readonly slab_blocks: number;
    readonly block_tokens: number;
    readonly first_segment: number;
    readonly segments_per_row: number;
    readonly segment_length: number;
    readonly packed_segments: number;
    readonly table_offset: number;
    readonly prefix_table: number;
  };
}

export const SOURCE_SEGMENT = 0;
export const SOURCE_PACKED = 1;
export const SOURCE_PREFIX = 2;
export const SOURCE_ROW = 3;
export const SOURCE_MEAN = 4;

/** Words of the status of a training step (shaders/shared/status.wgsl): f32, but `finite` and `halted`, which are 0 or 1. */
export const STATUS = { norm: 0, scale: 1, finite: 2, halted: 3, loss: 4 } as const;
export const STATUS_BYTES = 32;

/** Which gate a channel takes; see shaders/apply_gates.wgsl. */
export interface GateLayout {
  /** f32s from one row of gates to the next. */
  readonly stride: number;
  /** Gates, and channels of a gate, in a chunk of channels. */
  readonly chunkGates: number;
  readonly headWidth: number;
  /** Column of the table of rotations from one gate to the next. */
  readonly columnStep: number;
}

/** Where gates are turned: the table of rotations, where it begins in vec4s, positions of all queries, and how many each has. */
export interface GateTurns {
  readonly constants: Slot;
  readonly rotations: number;
  readonly positions: Slot;
  readonly planes: number;
}

/** Where the tokens of a slab find the gradients of their moments. */
export interface GradientSource {
  readonly source: MomentSource["source"];
  /** Gradients of the sums of segments, or of everything after each block. */
  readonly sums: Slot;
  /** Lengths, cu_seqlens, or padding weights in f32. */
  readonly table?: Slot | undefined;
  /** The padding weight of the slab's first token. Default 0. */
  readonly tableOffset?: number | undefined;
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

/** What the random features of linear attention estimate; see {@link LinearAttentionConfig}. */
export type FeatureMap = NonNullable<Variant["featureMap"]>;

export const FEATURE_MAPS: readonly FeatureMap[] = ["favor", "rfa", "maclaurin_exp", "maclaurin_gaussian"];

/** Random vectors as random_features.wgsl reads them. */
export interface FeatureVectors {
  readonly w: Slot;
  readonly counts: Slot;
  /** Per head. */
  readonly vectors: number;
  readonly levels: number;
}

/** vec4s of a row of features of one head. */
export function features4Of(featureMap: FeatureMap, vectors: number): number {
  return Math.ceil(vectors / 4) * (featureMap === "rfa" ? 2 : 1);
}
