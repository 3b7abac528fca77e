import type { MaskSpec } from "../../src/index.ts";
import { chooser } from "./hom.ts";

export const MASK_KINDS = ["none", "padding", "lengths", "full", "causal", "blockCausal", "cuSeqlens"] as const;
export type MaskKind = (typeof MASK_KINDS)[number];

const BLOCKS = [1, 2, 3, 4, 5, 8, 16, 100, 5000] as const;

/** A mask of this kind for a call of these lengths, from a seed; boolean or of weights, with rows that see nothing. */
export function drawMask(call: {
  readonly kind: MaskKind;
  readonly batch: number;
  readonly queries: number;
  readonly tokens: number;
  readonly seed: number;
}): { mask?: MaskSpec; queryMask?: Uint8Array } {
  const { kind, batch, queries, tokens, seed } = call;
  const draw = chooser(seed + 5);
  const booleans = (size: number) => Uint8Array.from({ length: size }, () => (draw.chance(0.6) ? draw.of([1, 255]) : 0));
  const weights = (size: number) => Float32Array.from({ length: size }, () => (draw.chance(0.2) ? 0 : 2 * draw.next()));
  const either = (size: number) => (draw.chance(0.5) ? booleans(size) : weights(size));
  switch (kind) {
    case "none":
      return {};
    case "padding": {
      const padding = either(batch * tokens);
      if (draw.chance(0.3)) padding.fill(0, 0, tokens);
      return { mask: { padding } };
    }
    case "lengths":
      return { mask: { lengths: Uint32Array.from({ length: batch }, () => draw.of([0, tokens, draw.integer(0, tokens), draw.integer(0, tokens)])) } };
    case "full": {
      const full = either((draw.chance(0.4) ? 1 : batch) * queries * tokens);
      if (queries > 1) full.fill(0, tokens, 2 * tokens);
      return { mask: { full } };
    }
    case "causal":
      return { mask: "causal", ...(draw.chance(0.4) && { queryMask: booleans(batch * queries) }) };
    case "blockCausal":
      return { mask: { blockCausal: draw.of(BLOCKS) } };
    case "cuSeqlens": {
      const cuts = Array.from({ length: draw.integer(0, 12) }, () => draw.of([0, tokens, draw.integer(0, tokens), draw.integer(0, tokens)]));
      return { mask: { cuSeqlens: Uint32Array.from([0, ...cuts, tokens]).sort() } };
    }
  }
}
