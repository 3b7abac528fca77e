import source from "../../shaders/patchify.wgsl?raw";
import { type Slot, type Step, WORKGROUP_SIZE } from "../runtime/kernel.ts";
import { bindRows, defineKernel, workgroupsFor } from "./op.ts";
import { type ImageShape, patchSteps } from "./types.ts";

export const patchify = defineKernel({ name: "patchify", source });

export interface PatchifyArguments extends ImageShape {
  /** Where the image begins, in bytes. */
  readonly image: { readonly buffer: string; readonly byteOffset: number };
  readonly rows: Slot;
  /** Channels are next to each other in a row. Default: the pixels of a channel. */
  readonly channelsLast?: boolean;
  readonly maxWorkgroups: number;
}

/** Rows of patches of a batch of images; one dispatch. */
export function planPatchify(a: PatchifyArguments): Step {
  const { batch, channels, height, width, patch } = a;
  const [down, columns] = [Math.floor(height / patch), Math.floor(width / patch)];
  const length = batch * channels * height * width;
  const image = bindRows({ ...a.image, length, stride: length, first: 0, count: 1 });
  const size = batch * down * columns * channels * patch * patch;
  return {
    kernel: patchify,
    variant: {},
    uniforms: {
      image_offset: image.offset,
      channels,
      height,
      width,
      side: patch,
      columns,
      patches: down * columns,
      ...patchSteps(a, a.channelsLast ?? false),
      size,
    },
    slots: { image: image.slot, rows: a.rows },
    workgroups: workgroupsFor(Math.ceil(size / WORKGROUP_SIZE), a.maxWorkgroups),
    bytesRead: size * 4,
    bytesWritten: size * 4,
  };
}
