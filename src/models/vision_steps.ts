import { planAddRows } from "../ops/add_rows.ts";
import { planPatchify } from "../ops/patchify.ts";
import type { Slot, Step } from "../runtime/kernel.ts";

/** Sizes of a batch of images and of their tokens. */
export interface VisionCall {
  readonly batch: number;
  readonly height: number;
  readonly width: number;
  /** Patches of an image; its tokens are one more. */
  readonly n: number;
  readonly channels: number;
  readonly patch: number;
  readonly dim: number;
}

const slot = (buffer: string, numbers: number): Slot => ({ buffer, offset: 0, size: numbers * 4 });

/** Buffer image, which begins at `byteOffset`, to patches `[B·n, C·p·p]`. */
export function planPatches({ batch, height, width, n, channels, patch }: VisionCall, byteOffset: number, maxWorkgroups: number): Step {
  const rows = slot("patches", batch * n * channels * patch * patch);
  return planPatchify({ image: { buffer: "image", byteOffset }, rows, batch, channels, height, width, patch, maxWorkgroups });
}

/** Buffers positions `[n, D]` and embedded `[B·n, D]`, added up, to the tokens x `[B, 1 + n, D]` behind the first. */
export function planPositions(call: VisionCall, maxWorkgroups: number): Step {
  const { batch, n, dim } = call;
  const a = { slot: slot("positions", n * dim), batch: 0, token: dim };
  const b = { slot: slot("embedded", batch * n * dim), batch: n * dim, token: dim };
  return planAddRows({ a, b, y: tokensOf(call, 1), batch, tokens: n, dim, maxWorkgroups });
}

/** Buffer cls_token `[D]` to the first of the tokens x. */
export function planCls(call: VisionCall, maxWorkgroups: number): Step {
  const { batch, dim } = call;
  const a = { slot: slot("cls_token", dim), batch: 0, token: 0 };
  return planAddRows({ a, y: tokensOf(call, 0), batch, tokens: 1, dim, maxWorkgroups });
}

/** The tokens x of all images, from token `first` on. */
export function tokensOf({ batch, n, dim }: VisionCall, first: number) {
  return { slot: slot("x", batch * (n + 1) * dim), at: first * dim, batch: (n + 1) * dim, token: dim };
}
