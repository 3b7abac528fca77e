import type { Activation } from "./activations.ts";

/** Sizes of a HoM layer; momentDim M = order · orderExpand · dim. */
export interface HomShape {
  readonly dim: number;
  readonly order: number;
  readonly orderExpand: number;
  /** "gelu" when absent. */
  readonly activation?: Activation | undefined;
}

/** Parameters under their checkpoint names, row-major; a Linear weight is [out, in]. Biases may be absent. */
export type HomParams = {
  /** [M, D] */
  readonly "ho_proj.weight": ArrayLike<number>;
  /** [M] */
  readonly "ho_proj.bias"?: ArrayLike<number> | undefined;
  /** [M, D] */
  readonly "se_proj.weight": ArrayLike<number>;
  /** [M] */
  readonly "se_proj.bias"?: ArrayLike<number> | undefined;
  /** [D, M] */
  readonly "ag_proj.weight": ArrayLike<number>;
  /** [D] */
  readonly "ag_proj.bias"?: ArrayLike<number> | undefined;
};

/** Tensors of a checkpoint by name; the reader checks presence and length of what it uses. */
export type Weights = Readonly<Record<string, ArrayLike<number> | undefined>>;

/**
 * What each query token may see. A `Uint8Array` in `padding` and `full` is boolean (non-zero means use), anything else is weights.
 * A token of weight 0 is never read, so its content cannot matter.
 */
export type HomMask =
  | "causal"
  | { readonly blockCausal: number }
  | { readonly padding: ArrayLike<number> }
  | { readonly lengths: ArrayLike<number> }
  | { readonly full: ArrayLike<number> }
  | { readonly cuSeqlens: ArrayLike<number> };
