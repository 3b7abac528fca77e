import source from "../../shaders/step.wgsl?raw";
import { BYTES, type Slot, type Step, tileFor, tilesOver, type Variant, type WeightDtype, WORKGROUP_SIZE } from "../runtime/kernel.ts";
import {
  bindExpansion,
  bindRows,
  defineKernel,
  EXPAND,
  LOAD_X,
  type Rows,
  STATE_LEVELS_FILE,
  TILE,
  variantsOf,
  workgroupsFor,
  xUniforms,
} from "./op.ts";
import type { Expansion, MomentActivation } from "./types.ts";

export const step = defineKernel({
  name: "step",
  source,
  uses: [EXPAND, TILE, LOAD_X, STATE_LEVELS_FILE],
  variants: variantsOf({
    w: ["f32", "f16", "i8", "i4"],
    x: ["vec4", "scalar", "half"],
    activation: ["gelu", "tanh", "identity", "x_erf"],
    gate: ["sigmoid"],
    tile: ["1x4", "8x4"],
  }),
});

export interface StepArguments extends Expansion {
  /** The tokens' rows; with a window, the ring of the last tokens. */
  readonly x: Rows;
  readonly w: Slot;
  readonly weightDtype: WeightDtype;
  readonly entry: Slot;
  readonly levels: Slot;
  readonly rows: Slot;
  readonly activation: MomentActivation;
  /** "none" leaves the mean as it is. */
  readonly gate: NonNullable<Variant["gate"]>;
  readonly order: number;
  readonly expand4: number;
  readonly batch: number;
  readonly maxWorkgroups: number;
}

/** State update and gated mean of one token a batch row; one dispatch. */
export function planStep(a: StepArguments): Step {
  const bound = bindRows(a.x);
  const stride4 = a.order * a.expand4;
  const expansion = bindExpansion(a, stride4);
  const tile = tileFor(a.batch, "8x4", a.expand4);
  return {
    kernel: step,
    variant: { ...expansion.variant, x: bound.access, w: a.weightDtype, activation: a.activation, gate: a.gate, tile },
    uniforms: { ...xUniforms(a.x, bound), ...expansion.uniforms, order: a.order, expand4: a.expand4, stride4, batch: a.batch },
    slots: { x: bound.slot, w: a.w, entry: a.entry, ...expansion.slots, levels: a.levels, rows: a.rows },
    workgroups: workgroupsFor(Math.ceil(tilesOver(tile, a.batch, a.expand4) / WORKGROUP_SIZE), a.maxWorkgroups),
    bytesRead: a.batch * a.x.length * BYTES[a.x.dtype ?? "f32"] + a.w.size + expansion.bytesRead + a.levels.size,
    bytesWritten: a.levels.size + a.rows.size,
  };
}
