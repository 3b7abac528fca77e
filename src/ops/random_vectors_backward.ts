import source from "../../shaders/random_vectors_backward.wgsl?raw";
import { type Slot, type Step, WORKGROUP_SIZE } from "../runtime/kernel.ts";
import { defineKernel, EIGHT_ROWS, workgroupsFor } from "./op.ts";
import type { FeatureVectors } from "./types.ts";

export const randomVectorsBackward = defineKernel({ name: "random_vectors_backward", source, uses: [EIGHT_ROWS] });

export interface RandomVectorsBackwardArguments {
  /** Of `planRandomFeaturesBackward`. */
  readonly factors: Slot;
  readonly vectors: FeatureVectors;
  readonly x: Slot;
  readonly xStride4: number;
  readonly hasLength: boolean;
  readonly dx: Slot;
  readonly dxStride4: number;
  readonly firstRow: number;
  readonly rowsAtOnce: number;
  readonly heads: number;
  readonly headDim: number;
  readonly maxWorkgroups: number;
}

/** From gradients of products with random vectors to those of what they were multiplied with; one dispatch. */
export function planRandomVectorsBackward(a: RandomVectorsBackwardArguments): Step {
  const { w, counts, vectors, levels } = a.vectors;
  const { heads, rowsAtOnce } = a;
  const head4 = Math.ceil(a.headDim / 4);
  return {
    kernel: randomVectorsBackward,
    variant: {},
    uniforms: {
      first_row: a.firstRow,
      n_rows: rowsAtOnce,
      heads,
      head4,
      x_stride4: a.xStride4,
      dx_stride4: a.dxStride4,
      vectors4: Math.ceil(vectors / 4),
      levels,
      has_length: a.hasLength ? 1 : 0,
    },
    slots: { factors: a.factors, w, counts, x: a.x, dx: a.dx },
    workgroups: workgroupsFor(Math.ceil((Math.ceil(rowsAtOnce / 8) * heads * head4) / WORKGROUP_SIZE), a.maxWorkgroups),
    bytesRead: a.factors.size + w.size + (a.hasLength ? rowsAtOnce * heads * head4 * 16 : 0),
    bytesWritten: rowsAtOnce * heads * head4 * 16,
  };
}
