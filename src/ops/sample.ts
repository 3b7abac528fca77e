import source from "../../shaders/sample.wgsl?raw";
import type { Slot, Step } from "../runtime/kernel.ts";
import { defineKernel } from "./op.ts";

export const sample = defineKernel({ name: "sample", source });

export interface SampleArguments {
  readonly logits: Slot;
  readonly entry: Slot;
  readonly ids: Slot;
  readonly batch: number;
  readonly vocabulary: number;
  /** 0 takes the largest logit. */
  readonly temperature: number;
  /** At least `vocabulary` for no limit. */
  readonly topK: number;
  readonly seed: number;
}

/** The next token of each batch row; one dispatch. */
export function planSample(a: SampleArguments): Step {
  return {
    kernel: sample,
    variant: {},
    uniforms: { vocabulary: a.vocabulary, top_k: Math.min(a.topK, a.vocabulary), seed: a.seed, temperature: a.temperature },
    slots: { logits: a.logits, entry: a.entry, ids: a.ids },
    workgroups: [a.batch, 1, 1],
    bytesRead: a.batch * a.vocabulary * 4,
    bytesWritten: a.batch * 4,
  };
}
