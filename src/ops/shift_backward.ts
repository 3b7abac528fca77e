import source from "../../shaders/shift_backward.wgsl?raw";
import { type Slot, type Step, WORKGROUP_SIZE } from "../runtime/kernel.ts";
import { defineKernel, workgroupsFor } from "./op.ts";

export const shiftBackward = defineKernel({ name: "shift_backward", source });

/** Tokens that one invocation walks. */
const BLOCK_TOKENS = 64;

export interface ShiftBackwardArguments {
  /** `[batch·length, dim]`, as are `dy` and `dx`. */
  readonly x: Slot;
  /** `[dim]` */
  readonly mix: Slot;
  readonly dy: Slot;
  /** What is there is added to. */
  readonly dx: Slot;
  /** `[shiftBlocks(batch, length), dim padded to 4]` */
  readonly partial: Slot;
  readonly batch: number;
  readonly length: number;
  readonly dim: number;
  readonly maxWorkgroups: number;
}

/** Blocks whose sums `partial` holds. */
export function shiftBlocks(batch: number, length: number): number {
  return batch * Math.ceil(length / BLOCK_TOKENS);
}

/** The gradient of a token shift's input, and block sums of that of its shares; one dispatch. */
export function planShiftBackward(a: ShiftBackwardArguments): Step {
  const { batch, length, dim } = a;
  const padded = Math.ceil(dim / 4) * 4;
  const blocks = shiftBlocks(batch, length);
  return {
    kernel: shiftBackward,
    variant: {},
    uniforms: { row_tokens: length, dim, padded, blocks, row_blocks: blocks / batch, block_tokens: BLOCK_TOKENS },
    slots: { x: a.x, mix_with: a.mix, dy: a.dy, dx: a.dx, partial: a.partial },
    workgroups: workgroupsFor(Math.ceil((blocks * padded) / WORKGROUP_SIZE), a.maxWorkgroups),
    bytesRead: 5 * batch * length * dim * 4,
    bytesWritten: (batch * length * dim + blocks * padded) * 4,
  };
}
