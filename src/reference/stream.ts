import { checkInteger, rangeError, raw } from "../checks.ts";
import { addScaled, checkLength, loadRow, momentDim, rowCount } from "./arrays.ts";
import { normalise } from "./merge_moments.ts";
import { addTokens, type Expander, momentExpander } from "./moments.ts";
import { type SelectRow, selectRow } from "./select.ts";
import type { HomParams, HomShape } from "./types.ts";

/**
 * A layer's memory of a stream: sum [B, M] of the moments of every token seen, count [B] of those tokens (tokens, not calls).
 * h = sum / count, and 0 before the first token.
 */
export class HomStream {
  readonly batch: number;
  readonly sum: Float64Array;
  readonly count: Float64Array;
  readonly #shape: HomShape;
  readonly #params: HomParams;
  readonly #expand: Expander;
  readonly #select: SelectRow;
  readonly #row: Float64Array;
  readonly #moment: Float64Array;

  constructor(shape: HomShape, params: HomParams, options: { batch?: number | undefined } = {}) {
    const where = "HomStream";
    const width = momentDim(where, shape);
    this.batch = checkInteger(where, "batch", options.batch ?? 1, 1);
    this.sum = new Float64Array(this.batch * width);
    this.count = new Float64Array(this.batch);
    this.#shape = shape;
    this.#params = params;
    this.#expand = momentExpander(where, params, shape);
    this.#select = selectRow(where, params, shape);
    this.#row = new Float64Array(shape.dim);
    this.#moment = new Float64Array(width);
  }

  /** sum += Σ m(context), count += tokens; context [B, n, D]. With `lengths` [B], row b adds its first lengths[b] tokens only. */
  append(context: ArrayLike<number>, options: { lengths?: ArrayLike<number> | undefined } = {}): void {
    const where = "HomStream.append";
    const tokens = this.#tokens(where, "context", context);
    const { lengths } = options;
    if (lengths) {
      checkLength(where, "lengths", lengths, this.batch, "B");
      for (let b = 0; b < this.batch; b++) checkInteger(where, `lengths[${b}]`, lengths[b], 0, tokens);
    }
    for (let b = 0; b < this.batch; b++) this.#add(context, b, b * tokens, b * tokens + (lengths ? lengths[b]! : tokens));
  }

  /** y [B, T, D] of query tokens [B, T, D] against what was seen; the state is unchanged. */
  query(query: ArrayLike<number>): Float64Array {
    const queries = this.#tokens("HomStream.query", "query", query);
    const out = new Float64Array(query.length);
    for (let b = 0; b < this.batch; b++) {
      const h = this.#mean(b);
      for (let t = 0; t < queries; t++) this.#read(query, b * queries + t, h, out);
    }
    return out;
  }

  /** Append and query the same tokens [B, n, D], causally inside the chunk: token t reads everything seen up to and with itself. */
  step(tokens: ArrayLike<number>): Float64Array {
    const count = this.#tokens("HomStream.step", "tokens", tokens);
    const out = new Float64Array(tokens.length);
    for (let b = 0; b < this.batch; b++) {
      for (let t = b * count; t < (b + 1) * count; t++) {
        this.#add(tokens, b, t, t + 1);
        this.#read(tokens, t, this.#mean(b), out);
      }
    }
    return out;
  }

  /** Sees what `other` saw as well. */
  merge(other: HomStream): void {
    this.#checkSame("HomStream.merge", other);
    addScaled(this.sum, other.sum, 0, 1);
    addScaled(this.count, other.count, 0, 1);
  }

  /** Un-sees the tokens of `other`. */
  subtract(other: HomStream): void {
    const where = "HomStream.subtract";
    this.#checkSame(where, other);
    for (let b = 0; b < this.batch; b++) {
      const count = other.count[b]!;
      if (count > this.count[b]!) throw rangeError(where, `other.count[${b}]`, `be at most the ${this.count[b]} tokens seen`, count);
    }
    addScaled(this.sum, other.sum, 0, -1);
    addScaled(this.count, other.count, 0, -1);
  }

  /** Forgets: sum and count are multiplied by gamma. The mean stays; tokens that follow weigh 1/gamma more. */
  scale(gamma: number): void {
    if (!Number.isFinite(gamma) || gamma < 0) throw rangeError("HomStream.scale", "gamma", "be a finite number >= 0", gamma);
    for (let j = 0; j < this.sum.length; j++) this.sum[j] = this.sum[j]! * gamma;
    for (let b = 0; b < this.batch; b++) this.count[b] = this.count[b]! * gamma;
  }

  /** An independent copy. */
  clone(): HomStream {
    const copy = new HomStream(this.#shape, this.#params, { batch: this.batch });
    copy.merge(this);
    return copy;
  }

  /** Forgets everything. */
  reset(): void {
    this.sum.fill(0);
    this.count.fill(0);
  }

  #tokens(where: string, argument: string, values: ArrayLike<number>): number {
    return rowCount(where, argument, values, this.batch * this.#shape.dim);
  }

  #add(context: ArrayLike<number>, b: number, start: number, end: number): void {
    const width = this.#moment.length;
    const sum = this.sum.subarray(b * width, (b + 1) * width);
    this.count[b] = this.count[b]! + addTokens(context, this.#expand, start, end, undefined, sum, this.#row, this.#moment);
  }

  #mean(b: number): Float64Array {
    const width = this.#moment.length;
    const h = this.sum.slice(b * width, (b + 1) * width);
    normalise(h, this.count[b]!, 0);
    return h;
  }

  #read(query: ArrayLike<number>, index: number, h: Float64Array, out: Float64Array): void {
    const { dim } = this.#shape;
    loadRow(query, index, this.#row);
    this.#select(this.#row, h, 0, out.subarray(index * dim, (index + 1) * dim));
  }

  #checkSame(where: string, other: HomStream): void {
    if (other.batch !== this.batch || other.sum.length !== this.sum.length) {
      const size = (s: HomStream) => `[${s.batch}, ${s.sum.length / s.batch}]`;
      throw rangeError(where, "other", `have sums of shape ${size(this)}`, raw(size(other)));
    }
  }
}
