import source from "../../shaders/gradient_status.wgsl?raw";
import type { Slot, Step } from "../runtime/kernel.ts";
import { defineKernel, SETTINGS, STATUS, WORKGROUP_SUM } from "./op.ts";
import { STATUS_BYTES } from "./types.ts";

export const gradientStatus = defineKernel({ name: "gradient_status", source, uses: [WORKGROUP_SUM, STATUS, SETTINGS] });

export interface GradientStatusArguments {
  /** What planGradientNorm says. */
  readonly partial: Slot;
  /** What adamwSettings made. */
  readonly settings: Slot;
  /** The fields of STATUS in ops/types.ts; its loss is read, the others are written. */
  readonly status: Slot;
}

/** Norm, clipping and finiteness of all gradients; one dispatch. */
export function planGradientStatus(a: GradientStatusArguments): Step {
  const groups = a.partial.size / 8;
  return {
    kernel: gradientStatus,
    variant: {},
    uniforms: { groups },
    slots: { partial: { ...a.partial, size: Math.max(16, a.partial.size) }, settings: a.settings, status: a.status },
    workgroups: [1, 1, 1],
    bytesRead: a.partial.size,
    bytesWritten: STATUS_BYTES,
  };
}
