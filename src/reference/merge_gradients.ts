import { checkInteger } from "../checks.ts";
import { checkLength } from "./arrays.ts";

/** Sums of blocks [blocks, size] added up -> [size]; with `initial` [size], added to it. */
export function mergeGradients(
  partial: ArrayLike<number>,
  sizes: { readonly blocks: number; readonly size: number; readonly initial?: ArrayLike<number> | undefined },
): Float64Array {
  const where = "mergeGradients";
  const blocks = checkInteger(where, "blocks", sizes.blocks, 0);
  const size = checkInteger(where, "size", sizes.size, 1);
  checkLength(where, "partial", partial, blocks * size, "blocks·size");
  const out = sizes.initial ? Float64Array.from(checkLength(where, "initial", sizes.initial, size, "size")) : new Float64Array(size);
  for (let i = 0; i < blocks * size; i++) out[i % size] = out[i % size]! + partial[i]!;
  return out;
}
