import source from "../../shaders/step.wgsl?raw";
import {
  BYTES,
  type Slot,
  type Split,
  type Step,
  tileForSplit,
  tilesOver,
  type Variant,
  type WeightDtype,
  WORKGROUP_SIZE,
} from "../runtime/kernel.ts";
import {
  bindExpansion,
  bindRows,
  DECAY,
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
  uses: [EXPAND, TILE, LOAD_X, STATE_LEVELS_FILE, DECAY],
  variants: variantsOf({
    w: ["f32", "f16", "i8", "i4"],
    x: ["vec4", "scalar", "half"],
    activation: ["gelu", "tanh", "identity", "x_erf"],
    gate: ["sigmoid"],
    tile: ["1x4", "8x4"],
    split: [undefined, 4, 16, 64],
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
  /** The factors of decayed means, at the head of a table of `decayTable`; `levels` is then what decay_moments.wgsl leaves. */
  readonly decay?: Slot | undefined;
  /** Lanes that share a tile. Default 1. */
  readonly lanes?: 1 | Split;
  readonly maxWorkgroups: number;
}

/** State update and gated mean of one token a batch row; one dispatch. */
export function planStep(a: StepArguments): Step {
  const bound = bindRows(a.x);
  const stride4 = a.order * a.expand4;
  const expansion = bindExpansion(a, stride4);
  const { lanes = 1 } = a;
  const tiles = tileForSplit(a.batch, "8x4", a.expand4, lanes);
  return {
    kernel: step,
    variant: { ...expansion.variant, x: bound.access, w: a.weightDtype, activation: a.activation, gate: a.gate, ...tiles },
    uniforms: {
      ...xUniforms(a.x, bound),
      ...expansion.uniforms,
      order: a.order,
      expand4: a.expand4,
      stride4,
      batch: a.batch,
      decayed: a.decay ? 1 : 0,
    },
    slots: { x: bound.slot, w: a.w, entry: a.entry, ...expansion.slots, ...(a.decay && { constants: a.decay }), levels: a.levels, rows: a.rows },
    workgroups: workgroupsFor(Math.ceil((tilesOver(tiles.tile, a.batch, a.expand4) * lanes) / WORKGROUP_SIZE), a.maxWorkgroups),
    bytesRead: a.batch * a.x.length * BYTES[a.x.dtype ?? "f32"] + a.w.size + expansion.bytesRead + (a.decay?.size ?? 0) + a.levels.size,
    bytesWritten: a.levels.size + a.rows.size,
  };
}
