import source from "../../shaders/activate_backward.wgsl?raw";
import { type Slot, type Step, type Variant, WORKGROUP_SIZE } from "../runtime/kernel.ts";
import { ACTIVATION_FUNCTIONS, ACTIVATION_GRADIENTS, defineKernel, variantsOf, workgroupsFor } from "./op.ts";

export const activateBackward = defineKernel({
  name: "activate_backward",
  source,
  uses: [ACTIVATION_FUNCTIONS, ACTIVATION_GRADIENTS],
  variants: variantsOf({ activation: ["gelu", "tanh", "identity", "x_erf", "silu"] }),
});

export interface ActivateBackwardArguments {
  /** Pre-activations; act(u) afterwards. */
  readonly u: Slot;
  /** The gradient of act(u); that of u afterwards. */
  readonly gradients: Slot;
  /** Numbers, in whole rows without gaps. Both slots have room for a multiple of 4; what fills it up is neither kept nor used. */
  readonly elements: number;
  readonly activation: NonNullable<Variant["activation"]>;
  readonly maxWorkgroups: number;
}

/** du = dh ⊙ act'(u) and h = act(u), in place; one dispatch. */
export function planActivateBackward(a: ActivateBackwardArguments): Step {
  const count4 = Math.ceil(a.elements / 4);
  const size = count4 * 16;
  return {
    kernel: activateBackward,
    variant: { activation: a.activation },
    uniforms: { count4 },
    slots: { u: { ...a.u, size }, gradients: { ...a.gradients, size } },
    workgroups: workgroupsFor(Math.ceil(count4 / WORKGROUP_SIZE), a.maxWorkgroups),
    bytesRead: 2 * size,
    bytesWritten: 2 * size,
  };
}
