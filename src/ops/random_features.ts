import source from "../../shaders/random_features.wgsl?raw";
import { type Slot, type Step, WORKGROUP_SIZE } from "../runtime/kernel.ts";
import { defineKernel, EIGHT_ROWS, variantsOf, workgroupsFor } from "./op.ts";
import { FEATURE_MAPS, type FeatureMap, type FeatureVectors, features4Of } from "./types.ts";

export const randomFeatures = defineKernel({
  name: "random_features",
  source,
  uses: [EIGHT_ROWS],
  variants: variantsOf({ featureMap: FEATURE_MAPS }),
});

export interface RandomFeaturesArguments {
  readonly featureMap: FeatureMap;
  readonly x: Slot;
  /** vec4s from one row of x to the next. */
  readonly xStride4: number;
  readonly vectors: FeatureVectors;
  readonly phi: Slot;
  readonly rows: number;
  readonly heads: number;
  readonly headDim: number;
  readonly asQuery: boolean;
  readonly maxWorkgroups: number;
}

/** φ of rows of queries or keys; one dispatch. */
export function planRandomFeatures(a: RandomFeaturesArguments): Step {
  const { w, counts, vectors, levels } = a.vectors;
  const vectors4 = Math.ceil(vectors / 4);
  return {
    kernel: randomFeatures,
    variant: { featureMap: a.featureMap },
    uniforms: {
      rows: a.rows,
      heads: a.heads,
      head4: Math.ceil(a.headDim / 4),
      x_stride4: a.xStride4,
      vectors,
      vectors4,
      features4: features4Of(a.featureMap, vectors),
      levels,
      as_query: a.asQuery ? 1 : 0,
      length_scale: 1 / Math.sqrt(a.headDim),
      scale: 1 / Math.sqrt(vectors),
    },
    slots: { x: a.x, w, counts, phi: a.phi },
    workgroups: workgroupsFor(Math.ceil((Math.ceil(a.rows / 8) * a.heads * Math.ceil(vectors4 / 2)) / WORKGROUP_SIZE), a.maxWorkgroups),
    bytesRead: a.rows * a.heads * Math.ceil(a.headDim / 4) * 16 + w.size,
    bytesWritten: a.phi.size,
  };
}
