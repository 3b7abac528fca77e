import source from "../../shaders/random_features_backward.wgsl?raw";
import { type Slot, type Step, WORKGROUP_SIZE } from "../runtime/kernel.ts";
import { defineKernel, EIGHT_ROWS, variantsOf, workgroupsFor } from "./op.ts";
import { FEATURE_MAPS, type FeatureMap, type FeatureVectors, features4Of } from "./types.ts";

export const randomFeaturesBackward = defineKernel({
  name: "random_features_backward",
  source,
  uses: [EIGHT_ROWS],
  variants: variantsOf({ featureMap: FEATURE_MAPS }),
});

export interface RandomFeaturesBackwardArguments {
  readonly featureMap: FeatureMap;
  readonly x: Slot;
  /** vec4s from one row of x to the next. */
  readonly xStride4: number;
  readonly vectors: FeatureVectors;
  readonly phi: Slot;
  readonly dphi: Slot;
  /** `factorBytes` for each of the rows of this dispatch. */
  readonly factors: Slot;
  /** All rows of x, and those of this dispatch. */
  readonly rows: number;
  readonly firstRow: number;
  readonly rowsAtOnce: number;
  readonly heads: number;
  readonly headDim: number;
  readonly asQuery: boolean;
  readonly maxWorkgroups: number;
}

/** Bytes of the gradients of all factors of a row. */
export function factorBytes({ vectors, levels }: Pick<FeatureVectors, "vectors" | "levels">, heads: number): number {
  return heads * (levels + 1) * Math.ceil(vectors / 4) * 16;
}

/** Whether the features have a part that depends on |x|, beside their products with the vectors. */
export function hasLength(featureMap: FeatureMap, asQuery: boolean): boolean {
  return featureMap === "rfa" || (!asQuery && featureMap !== "maclaurin_exp");
}

/** From gradients of φ to those of products with the random vectors; one dispatch. */
export function planRandomFeaturesBackward(a: RandomFeaturesBackwardArguments): Step {
  const { w, counts, vectors, levels } = a.vectors;
  const vectors4 = Math.ceil(vectors / 4);
  return {
    kernel: randomFeaturesBackward,
    variant: { featureMap: a.featureMap },
    uniforms: {
      rows: a.rows,
      first_row: a.firstRow,
      n_rows: a.rowsAtOnce,
      heads: a.heads,
      head4: Math.ceil(a.headDim / 4),
      x_stride4: a.xStride4,
      vectors4,
      features4: features4Of(a.featureMap, vectors),
      levels,
      has_length: hasLength(a.featureMap, a.asQuery) ? 1 : 0,
      length_scale: 1 / Math.sqrt(a.headDim),
    },
    slots: { x: a.x, w, counts, phi: a.phi, dphi: a.dphi, factors: a.factors },
    workgroups: workgroupsFor(Math.ceil((Math.ceil(a.rowsAtOnce / 8) * a.heads * vectors4) / WORKGROUP_SIZE), a.maxWorkgroups),
    bytesRead: a.rowsAtOnce * a.heads * (Math.ceil(a.headDim / 4) + 2 * features4Of(a.featureMap, vectors)) * 16 + w.size,
    bytesWritten: a.factors.size,
  };
}
