import type { RowValue } from "./add_rows.ts";

/**
 * Backward of a gated sum, y = clamp(a + b (1 + g), ±limit), for a gradient of y: those of a, b and g, [B, tokens, D] each. Rows that share a g have its gradient as many times;
 * the clamp lets through what it does not change.
 */
export function addRowsBackward(
  operands: { readonly a: RowValue; readonly b: RowValue; readonly g: RowValue; readonly dy: RowValue },
  sizes: { readonly batch: number; readonly tokens: number; readonly dim: number },
  limit = Number.POSITIVE_INFINITY,
): { da: Float64Array; db: Float64Array; dg: Float64Array } {
  const { a, b, g, dy } = operands;
  const { batch, tokens, dim } = sizes;
  const size = batch * tokens * dim;
  const [da, db, dg] = [new Float64Array(size), new Float64Array(size), new Float64Array(size)];
  for (let i = 0; i < size; i++) {
    const at = [Math.floor(i / (tokens * dim)), Math.floor(i / dim) % tokens, i % dim] as const;
    const factor = 1 + g(...at);
    if (Math.abs(a(...at) + b(...at) * factor) > limit) continue;
    da[i] = dy(...at);
    db[i] = da[i]! * factor;
    dg[i] = da[i]! * b(...at);
  }
  return { da, db, dg };
}
