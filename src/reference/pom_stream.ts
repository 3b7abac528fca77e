import { checkInteger, rangeError, raw } from "../checks.ts";
import { addScaled, checkLength, loadRow, rowCount } from "./arrays.ts";
import { normalise } from "./merge_moments.ts";
import { addTokens, type TokenExpander } from "./moments.ts";
import { type PomShape, type PositionOf, polynomialExpander, pomMomentDim, pomSelect, positionsOf, rotation } from "./pom.ts";
import type { Weights } from "./types.ts";

/** How a {@link PomStream} counts, and how many it holds. */
export interface PomStreamOptions {
  readonly batch?: number | undefined;
  /**
   * What `count` counts. "tokens": h is the mean of everything seen. "calls": each append adds the mean of its tokens and 1 to the count, so that h is the mean
   * of the chunks' means, as the original's state keeps it.
   */
  readonly counting?: "tokens" | "calls" | undefined;
}

/** Options of {@link PomStream.append}. */
export interface PomAppendOptions {
  readonly lengths?: ArrayLike<number> | undefined;
  /** [n] or [B, n], of pairs for a 2-D rotation. Absent: from where the last append or step ended */
  readonly positions?: ArrayLike<number> | undefined;
}

/** A PoM layer's memory of a stream: sum [B, M], count [B], and where each row's next token stands. */
export class PomStream {
  readonly batch: number;
  readonly counting: "tokens" | "calls";
  readonly sum: Float64Array;
  readonly count: Float64Array;
  readonly next: Float64Array;
  readonly #shape: PomShape;
  readonly #params: Weights;
  readonly #width: number;
  readonly #expand: TokenExpander;
  readonly #select: ReturnType<typeof pomSelect>;
  /** Of the call that runs. */
  #position: PositionOf | undefined;

  constructor(shape: PomShape, params: Weights, options: PomStreamOptions = {}) {
    const where = "PomStream";
    this.#width = pomMomentDim(where, shape);
    this.batch = checkInteger(where, "batch", options.batch ?? 1, 1);
    this.counting = options.counting ?? "tokens";
    this.sum = new Float64Array(this.batch * this.#width);
    this.count = new Float64Array(this.batch);
    this.next = new Float64Array(this.batch);
    this.#shape = shape;
    this.#params = params;
    const position = shape.rotary && ((token: number, axis: number) => this.#position!(token, axis));
    this.#expand = polynomialExpander(where, params, shape, position);
    this.#select = pomSelect(where, params, shape, position);
  }

  /** Adds context tokens [B, n, D]. */
  append(context: ArrayLike<number>, options: PomAppendOptions = {}): void {
    const where = "PomStream.append";
    const length = this.#tokens(where, "context", context);
    const { lengths } = options;
    if (lengths) {
      checkLength(where, "lengths", lengths, this.batch, "B");
      for (let b = 0; b < this.batch; b++) checkInteger(where, `lengths[${b}]`, lengths[b], 0, length);
    }
    this.#position = this.#positions(where, options.positions, length);
    for (let b = 0; b < this.batch; b++) this.#add(context, b, b * length, b * length + (lengths ? lengths[b]! : length));
  }

  /** y [B, T, D] of query tokens [B, T, D]; positions absent: 0, 1, … */
  query(query: ArrayLike<number>, options: { readonly positions?: ArrayLike<number> | undefined } = {}): Float64Array {
    const where = "PomStream.query";
    const queries = this.#tokens(where, "query", query);
    this.#position = positionsOf(where, "positions", this.#shape, options.positions, this.batch, queries);
    const out = new Float64Array(query.length);
    for (let t = 0; t < this.batch * queries; t++) this.#read(query, Math.floor(t / queries), t, out);
    return out;
  }

  /** Append and query of the same tokens [B, n, D], causal inside the chunk. */
  step(tokens: ArrayLike<number>, options: { readonly positions?: ArrayLike<number> | undefined } = {}): Float64Array {
    const where = "PomStream.step";
    const length = this.#tokens(where, "tokens", tokens);
    this.#position = this.#positions(where, options.positions, length);
    const out = new Float64Array(tokens.length);
    for (let b = 0; b < this.batch; b++) {
      for (let t = b * length; t < (b + 1) * length; t++) {
        this.#add(tokens, b, t, t + 1);
        this.#read(tokens, b, t, out);
      }
    }
    return out;
  }

  /** Adds what the other has seen. */
  merge(other: PomStream): void {
    this.#combine("PomStream.merge", other, 1);
    for (let b = 0; b < this.batch; b++) this.next[b] = Math.max(this.next[b]!, other.next[b]!);
  }

  /** Un-sees what the other has seen. */
  subtract(other: PomStream): void {
    this.#combine("PomStream.subtract", other, -1);
  }

  /** Sums and counts times gamma. */
  scale(gamma: number): void {
    for (let j = 0; j < this.sum.length; j++) this.sum[j] = this.sum[j]! * gamma;
    for (let b = 0; b < this.batch; b++) this.count[b] = this.count[b]! * gamma;
  }

  /** As if every token seen had stood `delta` positions (rows and columns) further on. */
  shift(delta: readonly number[]): void {
    // computed, not from a table: a shift may go back, and beyond the table's end
    const rotate = rotation("PomStream.shift", {}, this.#shape, "moments");
    if (!rotate) throw rangeError("PomStream.shift", "the layer", "have a rotation", raw("none"));
    for (let b = 0; b < this.batch; b++) {
      rotate(this.sum.subarray(b * this.#width, (b + 1) * this.#width), 0, (_, axis) => delta[axis] ?? 0);
      this.next[b] = this.next[b]! + (delta[0] ?? 0);
    }
  }

  /** An independent copy. */
  clone(): PomStream {
    const copy = new PomStream(this.#shape, this.#params, { batch: this.batch, counting: this.counting });
    copy.sum.set(this.sum);
    copy.count.set(this.count);
    copy.next.set(this.next);
    return copy;
  }

  /** h [B, M] */
  mean(): Float64Array {
    const h = this.sum.slice();
    for (let b = 0; b < this.batch; b++) normalise(h.subarray(b * this.#width, (b + 1) * this.#width), this.count[b]!, 0);
    return h;
  }

  #tokens(where: string, argument: string, values: ArrayLike<number>): number {
    return rowCount(where, argument, values, this.batch * this.#shape.dim);
  }

  #positions(where: string, given: ArrayLike<number> | undefined, length: number): PositionOf | undefined {
    if (given || this.#shape.rotary !== "1d") return positionsOf(where, "positions", this.#shape, given, this.batch, length);
    const start = this.next.slice();
    return (token) => start[Math.floor(token / length)]! + (token % length);
  }

  #add(context: ArrayLike<number>, b: number, start: number, end: number): void {
    if (end === start) return;
    const chunk = new Float64Array(this.#width);
    const tokens = addTokens(context, this.#expand, start, end, undefined, chunk, new Float64Array(this.#shape.dim), new Float64Array(this.#width));
    const perCall = this.counting === "calls";
    for (let j = 0; j < this.#width; j++) {
      const at = b * this.#width + j;
      this.sum[at] = this.sum[at]! + chunk[j]! / (perCall ? tokens : 1);
    }
    this.count[b] = this.count[b]! + (perCall ? 1 : tokens);
    if (this.#position) this.next[b] = this.#position(end - 1, 0) + 1;
  }

  #read(query: ArrayLike<number>, b: number, t: number, out: Float64Array): void {
    const { dim } = this.#shape;
    const row = new Float64Array(dim);
    loadRow(query, t, row);
    this.#select(t)(row, this.mean(), b * this.#width, out.subarray(t * dim, (t + 1) * dim));
  }

  #combine(where: string, other: PomStream, sign: 1 | -1): void {
    if (other.batch !== this.batch || other.sum.length !== this.sum.length) throw rangeError(where, "other", "be of the same size", raw("another"));
    addScaled(this.sum, other.sum, 0, sign);
    addScaled(this.count, other.count, 0, sign);
  }
}
