import source from "../../shaders/step.wgsl?raw";
import { BYTES, type Slot, type Step, tileFor, tilesOver, type WeightDtype, WORKGROUP_SIZE } from "../runtime/kernel.ts";
import { bindRows, defineKernel, type Rows, variantsOf, workgroupsFor, xUniforms } from "./op.ts";
import type { Activation } from "./types.ts";

export const step = defineKernel({
  name: "step",
  source,
  uses: ["tile", "load_x", "state_levels"],
  variants: variantsOf({
    w: ["f32", "f16", "i8", "i4"],
    x: ["vec4", "scalar", "half"],
    activation: ["gelu", "tanh", "identity", "x_erf"],
    tile: ["1x4", "8x4"],
  }),
});

export interface StepArguments {
  /** The tokens' rows; with a window, the ring of the last tokens. */
  readonly x: Rows;
  readonly w: Slot;
  readonly weightDtype: WeightDtype;
  readonly entry: Slot;
  readonly levels: Slot;
  readonly rows: Slot;
  readonly activation: Activation;
  readonly order: number;
  readonly expand4: number;
  readonly batch: number;
  readonly maxWorkgroups: number;
}

/** State update and gated mean of one token a batch row; one dispatch. */
export function planStep(a: StepArguments): Step {
  const bound = bindRows(a.x);
  const tile = tileFor(a.batch, "8x4", a.expand4);
  return {
    kernel: step,
    variant: { x: bound.access, w: a.weightDtype, activation: a.activation, tile },
    uniforms: { ...xUniforms(a.x, bound), order: a.order, expand4: a.expand4, stride4: a.order * a.expand4, batch: a.batch },
    slots: { x: bound.slot, w: a.w, entry: a.entry, levels: a.levels, rows: a.rows },
    workgroups: workgroupsFor(Math.ceil(tilesOver(tile, a.batch, a.expand4) / WORKGROUP_SIZE), a.maxWorkgroups),
    bytesRead: a.batch * a.x.length * BYTES[a.x.dtype ?? "f32"] + a.w.size + a.levels.size,
    bytesWritten: a.levels.size + a.rows.size,
  };
}
