import source from "../../shaders/unpack_linear.wgsl?raw";
import { type Slot, type Step, WORKGROUP_SIZE } from "../runtime/kernel.ts";
import { defineKernel, workgroupsFor } from "./op.ts";

export const unpackLinear = defineKernel({ name: "unpack_linear", source });

/** Channels as in src/layers/params.ts: `count` stretches of `width`, each filled up to a multiple of 4. */
interface Channels {
  readonly count: number;
  readonly width: number;
}

export interface UnpackLinearArguments {
  /** `[inner + 1, stride]`, padding included. */
  readonly packed: Slot;
  readonly stride: number;
  readonly firstColumn: number;
  readonly inner: Channels;
  readonly outer: Channels;
  /** The channels that are wanted: the first, and how many. Default: all. */
  readonly inputs?: readonly [number, number] | undefined;
  readonly outputs?: readonly [number, number] | undefined;
  /** `[outputs, inputs]`, from number `weightFirst` on, default 0. */
  readonly weight: Slot;
  readonly weightFirst?: number | undefined;
  /** `[outer]`, of all channels; at least 4 bytes where there is none. */
  readonly bias: Slot;
  readonly hasBias: boolean;
  readonly maxWorkgroups: number;
}

const padded = (width: number): number => Math.ceil(width / 4) * 4;

/** One layer of packed weights, or of their gradients, in a checkpoint's layout; one dispatch. */
export function planUnpackLinear(a: UnpackLinearArguments): Step {
  const { inner, outer } = a;
  const { inputs: [firstInner, rows] = [0, inner.count * inner.width], outputs: [firstOuter, columns] = [0, outer.count * outer.width] } = a;
  const numbers = columns * (rows + (a.hasBias ? 1 : 0));
  return {
    kernel: unpackLinear,
    variant: {},
    uniforms: {
      outer: columns,
      first_outer: firstOuter,
      outer_width: outer.width,
      outer_padded: padded(outer.width),
      first_column: a.firstColumn,
      inner: rows,
      first_inner: firstInner,
      inner_width: inner.width,
      inner_padded: padded(inner.width),
      bias_row: inner.count * padded(inner.width),
      stride: a.stride,
      has_bias: a.hasBias ? 1 : 0,
      weight_first: a.weightFirst ?? 0,
    },
    slots: { packed: a.packed, weight: a.weight, bias: a.bias },
    workgroups: workgroupsFor(Math.ceil(numbers / WORKGROUP_SIZE), a.maxWorkgroups),
    bytesRead: numbers * 4,
    bytesWritten: numbers * 4,
  };
}
