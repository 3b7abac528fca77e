/** A number for a batch row, a token and a channel; an operand that is the same for all batch rows or tokens ignores them. */
export type RowValue = (b: number, t: number, c: number) => number;

/** y = clamp(act(a + b (1 + g)), ±limit): [B, tokens, D] */
export function addRows(
  operands: { readonly a: RowValue; readonly b?: RowValue; readonly g?: RowValue },
  sizes: { readonly batch: number; readonly tokens: number; readonly dim: number },
  options: { readonly act?: (x: number) => number; readonly limit?: number } = {},
): Float64Array {
  const { a, b, g } = operands;
  const { act = (x) => x, limit = Number.POSITIVE_INFINITY } = options;
  const { batch, tokens, dim } = sizes;
  return Float64Array.from({ length: batch * tokens * dim }, (_, i) => {
    const at = [Math.floor(i / (tokens * dim)), Math.floor(i / dim) % tokens, i % dim] as const;
    const sum = act(a(...at) + (b ? b(...at) * (1 + (g ? g(...at) : 0)) : 0));
    return Math.min(limit, Math.max(-limit, sum));
  });
}
