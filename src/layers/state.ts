import { checkInteger, FULL, leftOut, rangeError, raw, typeError } from "../checks.ts";
import { WeightsError } from "../errors.ts";
import { planCombineStates } from "../ops/combine_states.ts";
import { STATE_LEVEL_SIZE, STATE_LEVELS } from "../ops/state_totals.ts";
import type { Gpu } from "../runtime/gpu.ts";
import { Program } from "../runtime/program.ts";
import { allOf, checkGpu } from "../runtime/tensor.ts";
import { USAGE } from "../runtime/usage.ts";
import type { GPUBuffer, GPUCommandEncoder } from "../webgpu.ts";
import { type MomentShape, momentLayout } from "./planner.ts";
import { readState, type SavedState, type StateFile, writeState } from "./state_format.ts";
import { ENTRY_COUNTS } from "./state_plan.ts";

/** What decides whether a state fits a layer. */
export type StateConfig = Readonly<Record<string, number | string>> & { readonly dim: number };

/** A kind of state: how it is called, saved and laid out. @internal */
export interface StateForm<C extends StateConfig> extends StateFile {
  readonly layer: "HomLayer" | "PomLayer";
  /** False for sums that cannot be merged, subtracted or scaled. Default true. */
  readonly linear?: boolean;
  /** The chunks of channels that the kernels pad to multiples of 4. */
  layout(config: C): MomentShape;
}

interface StateContents {
  readonly count: number[];
  additions: number;
  /** Tokens that a window has taken in, ever; its ring holds the last of them. */
  taken: number;
  /** Where the next token of each batch row stands, for layers with positions. */
  next: number[] | undefined;
}

/**
 * A layer's memory of a stream: the sum of the moments of the tokens seen, and their number, for each batch row. Its size does not depend on
 * how many they were. Made by `createState` of a layer, advanced by `append` and `step`, read by `query` and `step`.
 *
 * `merge`, `subtract` and `scale` are exact in the sums up to rounding. They hold for the inputs this layer saw; through the depth of a model
 * a merged state is not the state of the concatenated text, whose deeper inputs would have been others.
 */
export abstract class MomentState<C extends StateConfig = StateConfig> {
  readonly gpu: Gpu;
  readonly config: C;
  readonly batch: number;
  /** Tokens that the state remembers; undefined for all. */
  readonly window: number | undefined;
  /** @internal */
  readonly levels: GPUBuffer;
  /** What changes with every call: see shaders/shared/state_levels.wgsl. @internal */
  readonly entry: GPUBuffer;
  /** The last `window + 1` tokens `[window + 1, batch, D]`, where there is a window. @internal */
  readonly history: GPUBuffer | undefined;
  readonly #form: StateForm<C>;
  readonly #contents: StateContents;
  readonly #entryWords: Uint32Array<ArrayBuffer>;
  #status: Promise<Error | undefined>;
  #destroyed = false;

  /** @param next where the first token of each batch row stands, for layers with positions @internal */
  constructor(gpu: Gpu, form: StateForm<C>, config: C, batch: number, window: number | undefined, next?: number) {
    this.gpu = gpu;
    this.#form = form;
    this.config = Object.freeze({ ...config });
    this.batch = batch;
    this.window = window;
    const { stride4 } = momentLayout(form.layout(config));
    const { result, status } = gpu.guard(`${form.layer}.createState`, () => {
      const usage = USAGE.STORAGE | USAGE.COPY_SRC | USAGE.COPY_DST;
      return {
        levels: gpu.createBuffer("hom.state.levels", STATE_LEVELS * batch * stride4 * 16, usage),
        entry: gpu.createBuffer("hom.state.entry", Math.max(16, (ENTRY_COUNTS + batch) * 4), usage),
        history: window === undefined ? undefined : gpu.createBuffer("hom.state.history", Math.max(16, (window + 1) * batch * config.dim * 4), usage),
      };
    });
    this.levels = result.levels;
    this.entry = result.entry;
    this.history = result.history;
    this.#status = status;
    this.#contents = {
      count: new Array<number>(batch).fill(0),
      additions: 0,
      taken: 0,
      next: next === undefined ? undefined : new Array<number>(batch).fill(next),
    };
    this.#entryWords = new Uint32Array(Math.max(4, ENTRY_COUNTS + batch));
  }

  /** Tokens seen, one number a batch row: exact up to 2^53; fractions after `scale`. */
  get count(): readonly number[] {
    return [...this.#contents.count];
  }

  /** Where the next token of each batch row stands; undefined for layers without default positions. @internal */
  get nextPositions(): readonly number[] | undefined {
    return this.#contents.next;
  }

  /** @internal */
  protected moveNext(by: number): void {
    this.#contents.next = this.#contents.next?.map((position) => position + by);
  }

  /** Each append counts as one, and adds the mean of its tokens. @internal */
  get perCall(): boolean {
    return this.config["counting"] === "calls";
  }

  /** GPU memory of the state. */
  get bytes(): number {
    return this.levels.size + this.entry.size + (this.history?.size ?? 0);
  }

  /** @internal */
  get status(): Promise<Error | undefined> {
    return this.#status;
  }

  /** Adds the tokens of `other`: as if this state had seen both, in any order. @throws TypeError, RangeError when the states do not fit */
  merge(other: this): void {
    this.#combine(`${this.#form.name}.merge`, other, 1);
    const { next } = this.#contents;
    next?.forEach((position, b) => {
      next[b] = Math.max(position, other.#contents.next?.[b] ?? 0);
    });
  }

  /**
   * Un-sees the tokens of `other`, which must have been seen: rollback of a rejected draft.
   * @throws RangeError when `other` has seen more tokens
   */
  subtract(other: this): void {
    this.#combine(`${this.#form.name}.subtract`, other, -1);
  }

  /** Forgets: sums and counts become `gamma` times what they were, so that later tokens weigh more. @param gamma a finite number >= 0 */
  scale(gamma: number): void {
    const where = `${this.#form.name}.scale`;
    if (!FULL) throw leftOut(where);
    this.checkUsable(where);
    this.#checkNoWindow(where);
    if (typeof gamma !== "number") throw typeError(where, "gamma", "be a number", gamma);
    if (!(gamma >= 0 && gamma < Infinity)) throw rangeError(where, "gamma", "be a finite number >= 0", gamma);
    this.#run(where, undefined, gamma, 0);
    this.#contents.count.forEach((n, b, count) => {
      count[b] = n * gamma;
    });
  }

  /** An independent copy. */
  clone(): this {
    const where = `${this.#form.name}.clone`;
    this.checkUsable(where);
    const copy = this.empty();
    const { status } = this.gpu.guard(where, () => {
      const encoder = this.gpu.device.createCommandEncoder({ label: "hom.state.clone" });
      encoder.copyBufferToBuffer(this.levels, 0, copy.levels, 0, this.levels.size);
      if (this.history && copy.history) encoder.copyBufferToBuffer(this.history, 0, copy.history, 0, this.history.size);
      this.gpu.device.queue.submit([encoder.finish()]);
    });
    copy.#adopt(this.#contents, allOf([this.#status, copy.#status, status]));
    return copy;
  }

  /** Forgets everything. */
  reset(): void {
    const where = `${this.#form.name}.reset`;
    this.checkUsable(where);
    const { status } = this.gpu.guard(where, () => {
      const encoder = this.gpu.device.createCommandEncoder({ label: "hom.state.reset" });
      encoder.clearBuffer(this.levels);
      this.gpu.device.queue.submit([encoder.finish()]);
    });
    const next = this.#contents.next?.map(() => 0);
    this.#adopt({ count: new Array<number>(this.batch).fill(0), additions: 0, taken: 0, next }, status);
  }

  /** The state as bytes (src/layers/state_format.ts documents them); `load` reads them on any device. */
  async save(): Promise<Uint8Array<ArrayBuffer>> {
    const where = `${this.#form.name}.save`;
    if (!FULL) throw leftOut(where);
    this.checkUsable(where);
    const { config, batch, window } = this;
    // What the queue holds now is what is saved, whatever is appended while it is read.
    const { count, additions, taken, next } = structuredClone(this.#contents);
    const reads = [this.levels, this.history].map((buffer) => buffer && this.gpu.readBytes(where, buffer, 0, buffer.size));
    const [levels = new ArrayBuffer(), history = new ArrayBuffer()] = await Promise.all(reads);
    const failure = await this.#status;
    if (failure) throw failure;
    const held = Math.min(taken, window ?? 0);
    const tokens = new Float32Array(held * batch * config.dim);
    const ring = new Float32Array(history);
    const tokenSize = batch * config.dim;
    for (let i = 0; i < held; i++) {
      const slot = (taken - held + i) % ((window ?? 0) + 1);
      tokens.set(ring.subarray(slot * tokenSize, slot * tokenSize + tokenSize), i * tokenSize);
    }
    const sums = unpadRows(new Float32Array(levels), STATE_LEVELS * batch, this.#form.layout(config));
    const header = { ...config, batch, count, additions, levels: STATE_LEVELS, window: window ?? null, held, ...(next && { next }) };
    return writeState(this.#form.magic, { header, sums, tokens });
  }

  /** Takes over what was saved. @internal */
  restore(where: string, { header, sums, tokens }: SavedState): void {
    if (!FULL) throw leftOut(where);
    const { count, additions, held, next } = header;
    const { status } = this.gpu.guard(where, () => {
      this.gpu.device.queue.writeBuffer(this.levels, 0, padRows(sums, STATE_LEVELS * this.batch, this.#form.layout(this.config)));
      if (this.history && held > 0) this.gpu.device.queue.writeBuffer(this.history, 0, tokens);
    });
    this.#adopt({ count: [...count], additions, taken: held, next: next ? [...next] : undefined }, allOf([this.#status, status]));
  }

  /** Frees the state's memory. */
  destroy(): void {
    if (this.#destroyed) return;
    this.#destroyed = true;
    this.levels.destroy();
    this.entry.destroy();
    this.history?.destroy();
  }

  [Symbol.dispose](): void {
    this.destroy();
  }

  /** @internal */
  checkUsable(where: string): void {
    if (this.#destroyed) throw typeError(where, "state", "be alive", raw("a destroyed state"));
    this.gpu.checkUsable(where);
  }

  /** Whether this state belongs to a layer like this one. @internal */
  checkFits(where: string, gpu: Gpu, config: Readonly<Record<string, unknown>>): void {
    this.checkUsable(where);
    if (this.gpu.device !== gpu.device) throw typeError(where, "state", "be on the layer's device", raw("a state of another device"));
    for (const key of Object.keys(this.#form.keys)) {
      if (this.config[key] !== config[key]) throw rangeError(where, `the state's ${key}`, `be the layer's ${config[key]}`, this.config[key]);
    }
  }

  /**
   * Takes note of an addition of tokens and writes the entry that its kernels will read; the queue keeps writes and submits in order.
   * @param next where each batch row's next token stands then, for layers with positions
   * @param divisors which counts the kernels divide by: those after the addition, or those before it
   * @internal
   */
  advance(tokens: readonly number[], divisors: "after" | "before", next?: readonly number[]): void {
    const { count } = this.#contents;
    const before = [...count];
    if (next) this.#contents.next = [...next];
    tokens.forEach((n, b) => {
      count[b] = (count[b] ?? 0) + n;
    });
    this.#writeEntry(this.#countAddition(), [0, 0, 0], divisors === "after" ? count.map(asDivisor) : before);
  }

  /**
   * The same for one token a batch row of a windowed state: says which slot of the ring it takes.
   * @internal
   */
  advanceWindow(): { slot: number } {
    if (!FULL) throw leftOut("advanceWindow");
    const { window = 0, batch } = this;
    const contents = this.#contents;
    const ring = window + 1;
    const slot = contents.taken % ring;
    const leaves = contents.taken >= window;
    contents.taken++;
    contents.count.fill(Math.min(contents.taken, window));
    const leaving = (contents.taken - 1 - window + ring) % ring;
    this.#writeEntry(this.#countAddition(), [slot * batch, leaves ? leaving * batch : 0, leaves ? 1 : 0], contents.count);
    return { slot };
  }

  /** Copies a token a batch row `[batch, D]` into a slot of the ring. @internal */
  recordTake(encoder: GPUCommandEncoder, slot: number, x: { readonly buffer: GPUBuffer; readonly byteOffset: number }): void {
    const size = this.batch * this.config.dim * 4;
    if (this.history) encoder.copyBufferToBuffer(x.buffer, x.byteOffset, this.history, slot * size, size);
  }

  /** Writes the entry for a call that adds nothing. @internal */
  writeCounts(): void {
    this.#writeEntry(0, [0, 0, 0], this.#contents.count.map(asDivisor));
  }

  /** @internal */
  follow(status: Promise<Error | undefined>): void {
    this.#status = allOf([this.#status, status]);
  }

  /** @returns how many partial sums, from the first up, are full with this addition */
  #countAddition(): number {
    let n = ++this.#contents.additions;
    let full = 0;
    for (; full < STATE_LEVELS - 1 && n % STATE_LEVEL_SIZE === 0; n /= STATE_LEVEL_SIZE) full++;
    return full;
  }

  #writeEntry(full: number, window: readonly [number, number, number], counts: readonly number[]): void {
    const words = this.#entryWords;
    words.set([full, ...window]);
    new Float32Array(words.buffer).set(counts, ENTRY_COUNTS);
    this.gpu.device.queue.writeBuffer(this.entry, 0, words);
  }

  #adopt(contents: StateContents, status: Promise<Error | undefined>): void {
    const { count, additions, taken, next } = contents;
    Object.assign(this.#contents, { count: [...count], additions, taken, next: next && [...next] });
    this.#status = status;
  }

  #combine(where: string, other: this, sign: 1 | -1): void {
    if (!FULL) throw leftOut(where);
    if (!(other instanceof MomentState) || other.#form !== this.#form) throw typeError(where, "other", `be a ${this.#form.name}`, other);
    this.checkUsable(where);
    other.checkFits(where, this.gpu, this.config);
    this.#checkNoWindow(where);
    other.#checkNoWindow(where);
    if (other === this) throw typeError(where, "other", "be another state", raw("the state itself"), "use clone(), scale() or reset()");
    if (other.batch !== this.batch) throw rangeError(where, "other", `have batch ${this.batch}`, raw(`batch ${other.batch}`));
    const counts = other.#contents.count;
    if (sign < 0) {
      const b = counts.findIndex((n, i) => n > (this.#contents.count[i] ?? 0));
      if (b !== -1) {
        throw rangeError(
          where,
          "other",
          `have seen at most the ${this.#contents.count[b]} tokens of this state in batch row ${b}`,
          raw(`${counts[b]}`),
        );
      }
    }
    this.#run(where, other, 1, sign);
    this.follow(other.status);
    counts.forEach((n, b) => {
      this.#contents.count[b] = (this.#contents.count[b] ?? 0) + sign * n;
    });
  }

  #checkNoWindow(where: string): void {
    if (this.#form.linear === false)
      throw typeError(where, "the state", "hold plain sums", raw("decayed moments"), "reset() and clone() work with any");
    if (this.window !== undefined) {
      throw typeError(
        where,
        "the state",
        "have no window",
        raw(`a window of ${this.window} tokens`),
        "a window forgets single tokens, which a combined sum no longer has",
      );
    }
  }

  /** An empty state like this one. */
  protected abstract empty(): this;

  #run(where: string, other: MomentState<C> | undefined, keep: number, add: number): void {
    const { gpu } = this;
    const slot = (buffer: string) => ({ buffer, offset: 0, size: this.levels.size });
    const maxWorkgroups = gpu.limits.maxComputeWorkgroupsPerDimension;
    const step = planCombineStates({ levels: slot("levels"), other: other && slot("other"), keep, add, maxWorkgroups });
    const { result, status } = gpu.guard(where, () => {
      const program = new Program(gpu, [step], new Map());
      gpu.submit("state", (pass) => program.record(pass, { levels: this.levels, other: other?.levels }));
      return program;
    });
    result.destroy();
    this.follow(status);
  }
}

/** A row that has seen nothing has a sum of 0, and 0 / 1 is the mean it should have. */
const asDivisor = (count: number): number => count || 1;

/** @internal */
export function checkWindow(where: string, window: number | undefined): number | undefined {
  return window === undefined ? undefined : checkInteger(where, "window", window, 1, 2 ** 24);
}

/** Rows as the kernels keep them, each chunk padded to a multiple of 4 channels. */
function padRows(values: Float32Array, rows: number, shape: MomentShape): Float32Array<ArrayBuffer> {
  const { width, padded, stretches } = widths(rows, shape);
  const result = new Float32Array(stretches * padded);
  for (let i = 0; i < stretches; i++) result.set(values.subarray(i * width, (i + 1) * width), i * padded);
  return result;
}

function unpadRows(values: Float32Array, rows: number, shape: MomentShape): Float32Array<ArrayBuffer> {
  const { width, padded, stretches } = widths(rows, shape);
  const result = new Float32Array(stretches * width);
  for (let i = 0; i < stretches; i++) result.set(values.subarray(i * padded, i * padded + width), i * width);
  return result;
}

function widths(rows: number, { dim, order, orderExpand }: MomentShape) {
  const width = orderExpand * dim;
  return { width, padded: Math.ceil(width / 4) * 4, stretches: rows * order };
}

/**
 * Reads saved bytes of a kind of state.
 * @throws WeightsError for bytes that are truncated, corrupted, foreign or of another version or shape
 * @internal
 */
export function readSaved<C extends StateConfig>(
  where: string,
  gpu: Gpu,
  bytes: Uint8Array | ArrayBuffer,
  form: StateForm<C>,
  wanted: Readonly<Record<string, unknown>> | undefined,
): { readonly saved: SavedState; readonly config: C; readonly batch: number; readonly window: number | undefined } {
  checkGpu(where, gpu);
  if (!(bytes instanceof Uint8Array) && !(bytes instanceof ArrayBuffer)) throw typeError(where, "bytes", "be a Uint8Array or an ArrayBuffer", bytes);
  const saved = readState(where, form, bytes instanceof Uint8Array ? bytes : new Uint8Array(bytes));
  const { header } = saved;
  const { batch, window } = header;
  if (header.levels !== STATE_LEVELS) throw new WeightsError(`${where}: the state must have ${STATE_LEVELS} partial sums, got ${header.levels}`);
  const config = Object.fromEntries(Object.keys(form.keys).map((key) => [key, header[key]])) as unknown as C;
  for (const key of wanted ? Object.keys(form.keys) : []) {
    if (wanted?.[key] !== config[key]) throw new WeightsError(`${where}: ${key} must be the layer's ${wanted?.[key]}, got ${config[key]}`);
  }
  gpu.checkUsable(where);
  return { saved, config, batch, window: window ?? undefined };
}
