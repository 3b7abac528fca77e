import source from "../../shaders/linear.wgsl?raw";
import {
  type Slot,
  type Split,
  type Step,
  type TileName,
  tileForSplit,
  tilesOver,
  type Variant,
  type WeightDtype,
  WORKGROUP_SIZE,
} from "../runtime/kernel.ts";
import {
  bindRows,
  bindY,
  defineKernel,
  EMPTY,
  LOAD_X,
  type Rows,
  rowBytes,
  SPLITS,
  STORE_Y,
  TILE,
  variantsOf,
  workgroupsFor,
  xUniforms,
} from "./op.ts";

const SPLIT_TILES = ["1x4", "8x4"] as const;
const WEIGHTS = ["f32", "f16", "i8", "i4"] as const;

export const linear = defineKernel({
  name: "linear",
  source,
  uses: [TILE, LOAD_X, STORE_Y],
  variants: variantsOf(
    {
      w: WEIGHTS,
      x: ["vec4", "scalar", "half"],
      y: ["vec4", "scalar", "half"],
      activation: ["identity", "gelu", "silu"],
      tile: ["1x4", "8x4", "16x8", "16x8_quads"],
    },
    // What is decoded: a layer's output, and f32 rows in the models.
    { w: WEIGHTS, x: ["vec4"], y: ["half"], activation: ["identity"], tile: SPLIT_TILES, split: SPLITS },
    { w: WEIGHTS, x: ["vec4", "scalar"], y: ["vec4", "scalar"], activation: ["identity", "gelu", "silu"], tile: SPLIT_TILES, split: SPLITS },
  ),
});

export interface LinearArguments {
  readonly x: Rows;
  readonly w: Slot;
  readonly weightDtype: WeightDtype;
  readonly y: Rows;
  readonly residual?: Rows | undefined;
  /** Add to what y holds; there is no residual then. */
  readonly accumulate?: boolean | undefined;
  readonly activation?: Extract<Variant["activation"], "identity" | "gelu" | "silu" | "hard_sigmoid">;
  readonly tile: TileName;
  /** Lanes that share a tile, which is then 8x4 at most. Default 1. */
  readonly lanes?: 1 | Split;
  readonly maxWorkgroups: number;
}

/** y = residual + act(x Wᵀ + b); one dispatch. */
export function planLinear(a: LinearArguments): Step {
  const bound = bindRows(a.x);
  const stride4 = Math.ceil(a.y.length / 4);
  const { lanes = 1 } = a;
  const tiles = tileForSplit(a.x.count, a.tile, stride4, lanes);
  const y = bindY(a.y, a.residual, EMPTY, a.accumulate);
  return {
    kernel: linear,
    variant: { x: bound.access, w: a.weightDtype, y: y.access, activation: a.activation ?? "identity", ...tiles },
    uniforms: { ...xUniforms(a.x, bound), ...y.uniforms, outer: a.y.length, stride4, slab_rows: a.x.count },
    slots: { x: bound.slot, w: a.w, ...y.slots },
    workgroups: workgroupsFor(Math.ceil((tilesOver(tiles.tile, a.x.count, stride4) * lanes) / WORKGROUP_SIZE), a.maxWorkgroups),
    bytesRead: rowBytes(a.x) + a.w.size + y.bytesRead,
    bytesWritten: y.bytesWritten,
  };
}
