import source from "../../shaders/unpatchify.wgsl?raw";
import { type Slot, type Step, WORKGROUP_SIZE } from "../runtime/kernel.ts";
import { bindRows, defineKernel, workgroupsFor } from "./op.ts";
import { type ImageShape, patchSteps } from "./types.ts";

export const unpatchify = defineKernel({ name: "unpatchify", source });

export interface UnpatchifyArguments extends ImageShape {
  readonly rows: Slot;
  /** Channels are next to each other in a row. Default: they are. */
  readonly channelsLast?: boolean;
  /** Where the image begins, in bytes. */
  readonly image: { readonly buffer: string; readonly byteOffset: number };
  readonly maxWorkgroups: number;
}

/** Images of rows of patches, 0 where a border does not fill a patch; one dispatch. */
export function planUnpatchify(a: UnpatchifyArguments): Step {
  const { batch, channels, height, width, patch } = a;
  const [down, columns] = [Math.floor(height / patch), Math.floor(width / patch)];
  const size = batch * channels * height * width;
  const image = bindRows({ ...a.image, length: size, stride: size, first: 0, count: 1 });
  return {
    kernel: unpatchify,
    variant: {},
    uniforms: {
      image_offset: image.offset,
      channels,
      height,
      width,
      side: patch,
      columns,
      patches: down * columns,
      ...patchSteps(a, a.channelsLast ?? true),
      size,
    },
    slots: { rows: a.rows, image: image.slot },
    workgroups: workgroupsFor(Math.ceil(size / WORKGROUP_SIZE), a.maxWorkgroups),
    bytesRead: size * 4,
    bytesWritten: size * 4,
  };
}
