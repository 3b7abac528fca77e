import source from "../../shaders/cross_entropy.wgsl?raw";
import { type Slot, type Step, WORKGROUP_SIZE } from "../runtime/kernel.ts";
import { defineKernel, variantsOf, workgroupsFor } from "./op.ts";

export const crossEntropy = defineKernel({ name: "cross_entropy", source, variants: variantsOf({ lanes: [16, 64] }) });

export interface CrossEntropyArguments {
  /** `[rows, stride]`, f32, of which the first `vocabulary` columns count. With `gradient` its gradient takes its place, 0 in the other columns. */
  readonly logits: Slot;
  /** `[rows]`, u32; a row whose target is `vocabulary` or more is left out: {@link NO_TARGET}. */
  readonly targets: Slot;
  /** One f32: the weight of a row's loss. */
  readonly weight: Slot;
  /** `[rows]`, f32 */
  readonly losses: Slot;
  readonly rows: number;
  readonly vocabulary: number;
  /** A multiple of 4. */
  readonly stride: number;
  /** Without, the logits stay. */
  readonly gradient: boolean;
  readonly maxWorkgroups: number;
}

/** The target of padding. */
export const NO_TARGET = 0xffffffff;

/** Up to here a quarter of a workgroup walks a row in 16 steps. */
const SHORT_ROW = 1024;

/** Weighted losses of rows of logits and, in place, their gradient; one dispatch. */
export function planCrossEntropy(a: CrossEntropyArguments): Step {
  const lanes = a.vocabulary <= SHORT_ROW ? 16 : 64;
  const numbers = a.rows * a.vocabulary;
  return {
    kernel: crossEntropy,
    variant: { lanes },
    uniforms: { rows: a.rows, vocabulary: a.vocabulary, stride4: a.stride / 4, gradient: a.gradient ? 1 : 0 },
    slots: { targets: a.targets, weight: a.weight, logits: a.logits, losses: a.losses },
    workgroups: workgroupsFor(Math.ceil(a.rows / (WORKGROUP_SIZE / lanes)), a.maxWorkgroups),
    bytesRead: (a.gradient ? 2 : 1) * numbers * 4 + a.rows * 4,
    bytesWritten: (a.gradient ? numbers : 0) * 4 + a.rows * 4,
  };
}
