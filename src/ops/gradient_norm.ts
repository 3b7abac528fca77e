import source from "../../shaders/gradient_norm.wgsl?raw";
import { BIND_ALIGNMENT, type Slot, type Step, WORKGROUP_SIZE } from "../runtime/kernel.ts";
import { defineKernel, WORKGROUP_SUM, workgroupsFor } from "./op.ts";

export const gradientNorm = defineKernel({ name: "gradient_norm", source, uses: [WORKGROUP_SUM] });

export interface GradientNormArguments {
  /** All gradients, whole vec4s; as many dispatches as bindings ask for. */
  readonly gradients: Slot;
  /** Scratch buffer of the sums. */
  readonly partial: string;
  readonly maxBinding: number;
  readonly maxWorkgroups: number;
}

/** vec4s that an invocation adds at least, and workgroups of a dispatch at most: the sums that are left have to be added by a single workgroup. */
const MIN_STEPS = 16;
const MAX_GROUPS = 1024;

/**
 * Sums of squares, of stretches of all gradients.
 * @returns the dispatches, and where the sums are: 8 bytes each
 */
export function planGradientNorm(a: GradientNormArguments): { steps: Step[]; partial: Slot } {
  const slice = a.maxBinding - (a.maxBinding % BIND_ALIGNMENT);
  const stretches: { offset: number; size: number; steps: number; groups: number }[] = [];
  for (let done = 0; done < a.gradients.size; done += slice) {
    const size = Math.min(slice, a.gradients.size - done);
    const groups4 = size / 16 / WORKGROUP_SIZE;
    const steps = Math.max(MIN_STEPS, Math.ceil(groups4 / MAX_GROUPS));
    stretches.push({ offset: a.gradients.offset + done, size, steps, groups: Math.ceil(groups4 / steps) });
  }
  const partial: Slot = { buffer: a.partial, offset: 0, size: Math.max(16, stretches.reduce((sum, { groups }) => sum + groups, 0) * 8) };
  let first = 0;
  const steps = stretches.map(({ offset, size, steps, groups }): Step => {
    const step: Step = {
      kernel: gradientNorm,
      variant: {},
      uniforms: { count4: size / 16, steps, groups, first_group: first },
      slots: { gradients: { buffer: a.gradients.buffer, offset, size }, partial },
      workgroups: workgroupsFor(groups, a.maxWorkgroups),
      bytesRead: size,
      bytesWritten: groups * 8,
    };
    first += groups;
    return step;
  });
  return { steps, partial: { ...partial, size: first * 8 } };
}
