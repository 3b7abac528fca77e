import { type AggregateArguments, checkMask } from "./aggregate.ts";
import { addScaled } from "./arrays.ts";
import { decayBackward } from "./decay.ts";
import { fullMaskStride } from "./mask_moments.ts";

/**
 * The transpose of `aggregate`: gradients of the means that the queries read, [B·T, M], -> gradients of the tokens' moments, [B·N, M]. Each token gets
 * the gradient of every query that sees it, times its weight in that query's mean. The arguments have been checked by `aggregate`.
 */
export function aggregateBackward(where: string, width: number, epsilon: number, args: AggregateArguments, gradMeans: Float64Array): Float64Array {
  const { batch, queryLength: queries, contextLength: tokens = queries, queryMask } = args;
  const mask = checkMask(where, args.mask);
  if (args.decay) return decayBackward(gradMeans, args.decay, { batch, length: tokens, momentDim: width });
  const grad = new Float64Array(batch * tokens * width);
  const sum = new Float64Array(width);
  const add = (query: number, weight: number) => addScaled(sum, gradMeans, query * width, weight);
  const give = (token: number, weight: number) => addScaled(grad.subarray(token * width, (token + 1) * width), sum, 0, weight);

  /** Queries and tokens [start, end) that belong together. */
  const segment = (queryStart: number, queryEnd: number, start: number, end: number, extra: number, weights?: ArrayLike<number>) => {
    let total = extra;
    for (let n = start; n < end; n++) total += weights ? weights[n]! : 1;
    if (total === 0) return;
    sum.fill(0);
    for (let t = queryStart; t < queryEnd; t++) add(t, 1 / total);
    for (let n = start; n < end; n++) give(n, weights ? weights[n]! : 1);
  };

  if (mask.kind === "cuSeqlens") {
    for (let s = 0; s + 1 < mask.values.length; s++) {
      const [start, end] = [mask.values[s]!, mask.values[s + 1]!];
      segment(start, end, start, end, 0);
    }
    return grad;
  }
  for (let b = 0; b < batch; b++) {
    const firstQuery = b * queries;
    const firstToken = b * tokens;
    switch (mask.kind) {
      case "none":
        segment(firstQuery, firstQuery + queries, firstToken, firstToken + tokens, 0);
        break;
      case "padding":
        segment(firstQuery, firstQuery + queries, firstToken, firstToken + tokens, epsilon, mask.values);
        break;
      case "lengths":
        segment(firstQuery, firstQuery + queries, firstToken, firstToken + mask.values[b]!, epsilon);
        break;
      case "causal":
        sum.fill(0);
        for (let start = (Math.ceil(tokens / mask.block) - 1) * mask.block; start >= 0; start -= mask.block) {
          const end = Math.min(start + mask.block, tokens);
          for (let t = start; t < end; t++) {
            const weight = queryMask ? queryMask[firstQuery + t]! : 1;
            if (weight !== 0) add(firstQuery + t, weight / ((queryMask ? epsilon : 0) + weight * end));
          }
          for (let n = start; n < end; n++) give(firstToken + n, 1);
        }
        break;
      case "full": {
        const { values } = mask;
        const boolean = values instanceof Uint8Array;
        const start = b * fullMaskStride(where, values, batch, queries, tokens);
        for (let t = 0; t < queries; t++) {
          const weights = Array.from({ length: tokens }, (_, n) => {
            const value = values[start + t * tokens + n]!;
            return boolean && value !== 0 ? 1 : value;
          });
          const total = weights.reduce((a, weight) => a + weight, epsilon);
          sum.fill(0);
          if (total !== 0) add(firstQuery + t, 1 / total);
          for (let n = 0; n < tokens; n++) if (weights[n] !== 0) give(firstToken + n, weights[n]!);
        }
        break;
      }
    }
  }
  return grad;
}
