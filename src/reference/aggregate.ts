import { checkInteger, checkObject, rangeError, typeError } from "../checks.ts";
import { checkLength, loadRow } from "./arrays.ts";
import { fullMaskStride, maskMoments } from "./mask_moments.ts";
import { normalise } from "./merge_moments.ts";
import { addTokens, type TokenExpander } from "./moments.ts";
import type { HomMask } from "./types.ts";

/** What is summed: moments of width `momentDim`, of tokens of width `dim`. */
export interface Aggregated {
  readonly dim: number;
  readonly momentDim: number;
  readonly expand: TokenExpander;
  /** What is added to the sum of a padding, length or full mask before dividing by it. Where the sum is then 0, so is the mean. */
  readonly epsilon: number;
}

/** Query, context, lengths and mask of a call. */
export interface AggregateArguments {
  /** [B, T, D] */
  readonly query: ArrayLike<number>;
  /** [B, N, D]; absent: the query tokens themselves */
  readonly context?: ArrayLike<number> | undefined;
  readonly mask?: HomMask | undefined;
  /** [B, T], with a causal mask only: row t of the mask is multiplied by its number, as in training on padded batches (0: sees nothing). */
  readonly queryMask?: ArrayLike<number> | undefined;
  /** [E], factors in (0, 1] of a causal mask whose tokens fade, see `decayMoments`; the same for each of the M / E orders. */
  readonly decay?: ArrayLike<number> | undefined;
  readonly batch: number;
  readonly queryLength: number;
  /** N; absent: T */
  readonly contextLength?: number | undefined;
}

export const ARGUMENT_KEYS: readonly string[] = ["query", "context", "mask", "queryMask", "decay", "batch", "queryLength", "contextLength"];
const MASK_KEYS = ["blockCausal", "padding", "lengths", "full", "cuSeqlens"];

/** Query rows start … end-1 of [B·T] read the moments h[base … base+M]; h is reused after the call. */
export type Emit = (start: number, end: number, h: Float64Array, base: number) => void;

/**
 * The (masked) means of the moments, one call of `emit` for each stretch of query rows that read the same one.
 * Time O(N + T) for every mask but `full`, which takes O(N·M) memory and O(T·N·M) time; the others keep one moment row.
 */
export function aggregate(where: string, { dim, momentDim: width, expand, epsilon }: Aggregated, args: AggregateArguments, emit: Emit): void {
  const batch = checkInteger(where, "batch", args.batch, 1);
  const queries = checkInteger(where, "queryLength", args.queryLength, 0);
  const tokens = checkInteger(where, "contextLength", args.contextLength ?? queries, 0);
  checkLength(where, "query", args.query, batch * queries * dim, "B·T·D");
  const context = checkLength(where, "context", args.context ?? args.query, batch * tokens * dim, "B·N·D");
  const mask = checkMask(where, args.mask);
  const { queryMask } = args;
  if (queryMask) {
    if (mask.kind !== "causal") throw rangeError(where, "queryMask", 'come with mask "causal"', args.mask);
    checkLength(where, "queryMask", queryMask, batch * queries, "B·T");
  }
  const { decay } = args;
  if (decay && (mask.kind !== "causal" || mask.block !== 1 || queryMask))
    throw rangeError(where, "decay", 'come with mask "causal" alone', args.mask);
  const row = new Float64Array(dim);
  const m = new Float64Array(width);
  const sum = new Float64Array(width);
  const h = new Float64Array(width);
  /** sum += tokens start … end-1 of [B·N]; returns their weight */
  const add = (start: number, end: number, weights?: ArrayLike<number>) => addTokens(context, expand, start, end, weights, sum, row, m);
  const mean = (count: number, extra: number) => {
    h.set(sum);
    normalise(h, count, extra);
  };

  if (mask.kind === "cuSeqlens") {
    if (batch !== 1) throw rangeError(where, "batch", "be 1 with mask.cuSeqlens", batch, "pack the sequences as [1, total, D]");
    checkSquare(where, "mask.cuSeqlens", queries, tokens);
    checkCuSeqlens(where, mask.values, tokens);
    for (let s = 0; s + 1 < mask.values.length; s++) {
      const start = mask.values[s]!;
      const end = mask.values[s + 1]!;
      sum.fill(0);
      mean(add(start, end), 0);
      emit(start, end, h, 0);
    }
    return;
  }

  if (mask.kind === "padding") checkLength(where, "mask.padding", mask.values, batch * tokens, "B·N");
  if (mask.kind === "lengths") {
    checkLength(where, "mask.lengths", mask.values, batch, "B");
    for (let b = 0; b < batch; b++) checkInteger(where, `mask.lengths[${b}]`, mask.values[b], 0, tokens);
  }
  if (mask.kind === "causal") checkSquare(where, mask.block === 1 ? "causal masks" : "mask.blockCausal", queries, tokens);
  const maskStride = mask.kind === "full" ? fullMaskStride(where, mask.values, batch, queries, tokens) : 0;

  for (let b = 0; b < batch; b++) {
    const firstQuery = b * queries;
    const firstToken = b * tokens;
    sum.fill(0);
    switch (mask.kind) {
      case "none":
        mean(add(firstToken, firstToken + tokens), 0);
        emit(firstQuery, firstQuery + queries, h, 0);
        break;
      case "padding":
        mean(add(firstToken, firstToken + tokens, mask.values), epsilon);
        emit(firstQuery, firstQuery + queries, h, 0);
        break;
      case "lengths":
        mean(add(firstToken, firstToken + mask.values[b]!), epsilon);
        emit(firstQuery, firstQuery + queries, h, 0);
        break;
      case "causal":
        if (decay) {
          const count = new Float64Array(width);
          for (let t = 0; t < tokens; t++) {
            for (let j = 0; j < width; j++) {
              sum[j]! *= decay[j % decay.length]!;
              count[j] = count[j]! * decay[j % decay.length]! + 1;
            }
            add(firstToken + t, firstToken + t + 1);
            for (let j = 0; j < width; j++) h[j] = sum[j]! / count[j]!;
            emit(firstQuery + t, firstQuery + t + 1, h, 0);
          }
          break;
        }
        for (let start = 0; start < tokens; start += mask.block) {
          const end = Math.min(start + mask.block, tokens);
          add(firstToken + start, firstToken + end);
          if (!queryMask) {
            mean(end, 0);
            emit(firstQuery + start, firstQuery + end, h, 0);
            continue;
          }
          for (let t = start; t < end; t++) {
            const weight = queryMask[firstQuery + t]!;
            for (let j = 0; j < width; j++) h[j] = weight === 0 ? 0 : (weight * sum[j]!) / (epsilon + weight * end);
            emit(firstQuery + t, firstQuery + t + 1, h, 0);
          }
        }
        break;
      case "full": {
        const all = new Float64Array(tokens * width);
        for (let n = 0; n < tokens; n++) {
          loadRow(context, firstToken + n, row);
          expand(row, all.subarray(n * width, (n + 1) * width), firstToken + n);
        }
        const start = b * maskStride;
        for (let t = 0; t < queries; t++) {
          const from = start + t * tokens;
          const one = slice(mask.values, from, from + tokens);
          const { sums, weights } = maskMoments(all, one, { batch: 1, queryLength: 1, contextLength: tokens, momentDim: width });
          normalise(sums, weights[0]!, epsilon);
          emit(firstQuery + t, firstQuery + t + 1, sums, 0);
        }
        break;
      }
    }
  }
}

export type CheckedMask =
  | { kind: "none" }
  | { kind: "causal"; block: number }
  | { kind: "padding" | "lengths" | "full" | "cuSeqlens"; values: ArrayLike<number> };

/** A mask in one form, boolean ones as weights; `full` stays as it was given. */
export function checkMask(where: string, mask: HomMask | undefined): CheckedMask {
  if (mask === undefined) return { kind: "none" };
  if (mask === "causal") return { kind: "causal", block: 1 };
  if (typeof mask === "string") throw typeError(where, "mask", 'be "causal" or an object', mask);
  const keys = Object.keys(checkObject(where, "mask", mask, MASK_KEYS));
  if (keys.length !== 1) throw typeError(where, "mask", `have one of the keys ${MASK_KEYS.join(", ")}`, keys);
  if ("blockCausal" in mask) return { kind: "causal", block: checkInteger(where, "mask.blockCausal", mask.blockCausal, 1) };
  if ("padding" in mask) return { kind: "padding", values: weightsOf(mask.padding) };
  if ("lengths" in mask) return { kind: "lengths", values: mask.lengths };
  if ("full" in mask) return { kind: "full", values: mask.full };
  return { kind: "cuSeqlens", values: mask.cuSeqlens };
}

/** A boolean mask as weights. */
function weightsOf(mask: ArrayLike<number>): ArrayLike<number> {
  return mask instanceof Uint8Array ? mask.map((value) => (value === 0 ? 0 : 1)) : mask;
}

function slice(values: ArrayLike<number>, start: number, end: number): ArrayLike<number> {
  // a Uint8Array must stay one: its numbers mean true and false
  if (values instanceof Uint8Array || values instanceof Float32Array || values instanceof Float64Array) return values.subarray(start, end);
  return Array.from({ length: end - start }, (_, i) => values[start + i]!);
}

function checkSquare(where: string, what: string, queries: number, tokens: number): void {
  if (queries !== tokens) throw rangeError(where, "contextLength", `equal queryLength = ${queries} for ${what}`, tokens);
}

function checkCuSeqlens(where: string, values: ArrayLike<number>, total: number): void {
  if (typeof values?.length !== "number" || values.length < 2) throw rangeError(where, "mask.cuSeqlens", "hold at least [0, total]", values);
  if (values[0] !== 0) throw rangeError(where, "mask.cuSeqlens[0]", "be 0", values[0]);
  const last = values.length - 1;
  if (values[last] !== total) throw rangeError(where, `mask.cuSeqlens[${last}]`, `be the number of tokens, ${total}`, values[last]);
  for (let s = 1; s <= last; s++) checkInteger(where, `mask.cuSeqlens[${s}]`, values[s], values[s - 1]!, total, "starts must not decrease");
}
