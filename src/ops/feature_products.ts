import source from "../../shaders/feature_products.wgsl?raw";
import { type Slot, type Step, WORKGROUP_SIZE } from "../runtime/kernel.ts";
import { defineKernel, EIGHT_ROWS, EMPTY, workgroupsFor } from "./op.ts";

export const featureProducts = defineKernel({ name: "feature_products", source, uses: [EIGHT_ROWS] });

export interface FeatureProductsArguments {
  readonly x: Slot;
  /** Of `planFeatureSums` with these features and heads of this width. */
  readonly sums: Slot;
  readonly features4: number;
  readonly width4: number;
  /** Rows of x are as wide as the sums, and y as the features. */
  readonly transposed: boolean;
  /** What the tokens see of their own block, `later` of them if `planFeatureScores` had it; without, sums are of all tokens. */
  readonly local?:
    | { readonly scores: Slot; readonly later: boolean; readonly u: Slot; readonly uWidth4: number; readonly blockTokens: number }
    | undefined;
  readonly y: Slot;
  /** vec4s that y has of a head, to its first, and from one row to the next. */
  readonly columns4: number;
  readonly yOffset4: number;
  readonly yStride4: number;
  readonly heads: number;
  readonly batchRows: number;
  readonly tokens: number;
  readonly maxWorkgroups: number;
}

/** Products with sums over tokens, and of scores with rows of the same block; one dispatch. */
export function planFeatureProducts(a: FeatureProductsArguments): Step {
  const { heads, columns4, batchRows, tokens, local } = a;
  const invocations = batchRows * Math.ceil(tokens / 8) * heads * Math.ceil(columns4 / 2);
  return {
    kernel: featureProducts,
    variant: {},
    uniforms: {
      heads,
      inner4: a.transposed ? a.width4 : a.features4,
      columns4,
      features4: a.features4,
      width4: a.width4,
      is_transposed: a.transposed ? 1 : 0,
      batch_rows: batchRows,
      tokens,
      blocks: local ? Math.ceil(tokens / local.blockTokens) : 1,
      block_tokens: local?.blockTokens ?? tokens,
      local: local ? (local.later ? 2 : 1) : 0,
      u_width4: local?.uWidth4 ?? 0,
      y_offset4: a.yOffset4,
      y_stride4: a.yStride4,
    },
    slots: { x: a.x, sums: a.sums, scores: local?.scores ?? EMPTY, u: local?.u ?? EMPTY, y: a.y },
    workgroups: workgroupsFor(Math.ceil(invocations / WORKGROUP_SIZE), a.maxWorkgroups),
    bytesRead: a.x.size + a.sums.size + (local ? local.scores.size + local.u.size : 0),
    bytesWritten: batchRows * tokens * heads * columns4 * 16,
  };
}
