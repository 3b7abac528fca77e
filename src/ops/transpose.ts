import source from "../../shaders/transpose.wgsl?raw";
import type { Slot, Step } from "../runtime/kernel.ts";
import { defineKernel, workgroupsFor } from "./op.ts";

export const transpose = defineKernel({ name: "transpose", source });

export interface TransposeArguments {
  /** `[inner + 1, outer]` */
  readonly w: Slot;
  /** `[count + 1, inner]`: `(count + 1) · inner · 4` bytes. */
  readonly transposed: Slot;
  /** Lengths and columns in numbers, padding included: multiples of 4. */
  readonly inner: number;
  readonly outer: number;
  readonly first: number;
  readonly count: number;
  /** Multiplies all. Default 1. */
  readonly scale?: number | undefined;
  readonly maxWorkgroups: number;
}

/** 4 x 4 numbers an invocation, 8 x 8 of them a workgroup. */
const TILE = 32;

/** Columns [first, first + count) of packed weights, times a factor, as packed weights of the transposed layer, whose bias is 0; one dispatch. */
export function planTranspose(a: TransposeArguments): Step {
  return {
    kernel: transpose,
    variant: {},
    uniforms: { inner4: a.inner / 4, stride4: a.outer / 4, first4: a.first / 4, count4: a.count / 4, scale: a.scale ?? 1 },
    slots: { w: a.w, transposed: a.transposed },
    workgroups: workgroupsFor(Math.ceil(a.inner / TILE) * Math.ceil(a.count / TILE), a.maxWorkgroups),
    bytesRead: a.inner * a.count * 4,
    bytesWritten: (a.count + 1) * a.inner * 4,
  };
}
