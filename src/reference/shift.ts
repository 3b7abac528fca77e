import { checkInteger } from "../checks.ts";
import { checkLength } from "./arrays.ts";

/** Sizes of {@link shift}: B, n and D, and what came before. */
export interface ShiftSizes {
  readonly batch: number;
  readonly length: number;
  readonly dim: number;
  /** `[batch, dim]`: the tokens before the first ones. Default: zeros. */
  readonly previous?: ArrayLike<number> | undefined;
}

/** Token shift: x [B, n, D], mix [D] -> y_t = x_t + mix ⊙ (x_(t-1) - x_t), [B, n, D]. */
export function shift(x: ArrayLike<number>, mix: ArrayLike<number>, sizes: ShiftSizes): Float64Array {
  const { dim } = check("shift", x, mix, sizes);
  return Float64Array.from(x, (own, i) => own + mix[i % dim]! * (before(x, i, sizes) - own));
}

/** Gradients of {@link shift}: dy [B, n, D] -> dx [B, n, D], dmix [D]. */
export function shiftBackward(
  x: ArrayLike<number>,
  mix: ArrayLike<number>,
  dy: ArrayLike<number>,
  sizes: Omit<ShiftSizes, "previous">,
): { dx: Float64Array; dmix: Float64Array } {
  const { length, dim } = check("shiftBackward", x, mix, sizes);
  checkLength("shiftBackward", "dy", dy, x.length, "as many as x");
  const dmix = new Float64Array(dim);
  const dx = Float64Array.from(dy, (gradient, i) => {
    const c = i % dim;
    dmix[c] = dmix[c]! + gradient * (before(x, i, sizes) - x[i]!);
    const isLast = Math.floor(i / dim) % length === length - 1;
    return gradient + mix[c]! * ((isLast ? 0 : dy[i + dim]!) - gradient);
  });
  return { dx, dmix };
}

function before(x: ArrayLike<number>, i: number, { length, dim, previous }: ShiftSizes): number {
  const token = Math.floor(i / dim);
  if (token % length > 0) return x[i - dim]!;
  return previous?.[Math.floor(token / length) * dim + (i % dim)] ?? 0;
}

function check(where: string, x: ArrayLike<number>, mix: ArrayLike<number>, sizes: ShiftSizes): ShiftSizes {
  const batch = checkInteger(where, "batch", sizes.batch, 1);
  const length = checkInteger(where, "length", sizes.length, 1);
  const dim = checkInteger(where, "dim", sizes.dim, 1);
  checkLength(where, "x", x, batch * length * dim, "B·n·D");
  checkLength(where, "mix", mix, dim, "D");
  if (sizes.previous) checkLength(where, "previous", sizes.previous, batch * dim, "B·D");
  return sizes;
}
