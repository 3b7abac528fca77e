import { checkInteger, checkObject, checkOneOf, rangeError, raw, typeError } from "../checks.ts";
import { planEmbed } from "../ops/embed.ts";
import { planShift } from "../ops/shift.ts";
import type { Gpu } from "../runtime/gpu.ts";
import type { WeightDtype } from "../runtime/kernel.ts";
import { type BufferView, Program } from "../runtime/program.ts";
import { ProgramCache } from "../runtime/program_cache.ts";
import { checkGpu, Tensor } from "../runtime/tensor.ts";
import { USAGE } from "../runtime/usage.ts";
import type { GPUBuffer, GPUCommandEncoder, GPUComputePassEncoder } from "../webgpu.ts";
import { Decoder } from "./decoder.ts";
import { HlmState, POSITION_CHUNK } from "./hlm_state.ts";
import { checkHlmConfig, type HlmConfig, type HlmParts, type HlmWeights, loadHlm } from "./hlm_weights.ts";
import { positionFeatures } from "./positions.ts";
import { checkSampling, type SamplingOptions } from "./sampling.ts";

/** Options of {@link Hlm.forward}. */
export interface HlmForwardOptions {
  /** Default 1. */
  readonly batch?: number;
  /** Position of the first token: one for all, or one a batch row. Default 0. */
  readonly posOffset?: number | Int32Array;
  /** `[B·n]`, 0 for padding: such a query sees nothing, as in training on padded batches. */
  readonly attentionMask?: Uint8Array | Float32Array;
}

/** Options of {@link Hlm.createState}. */
export interface HlmStateOptions {
  /** Independent texts, advanced together. Default 1. */
  readonly batch?: number;
  /** Each layer remembers the last `window` tokens only. Default: all. */
  readonly window?: number | undefined;
  /** Position of the first token. Default 0. */
  readonly position?: number;
}

/** Options of {@link Hlm.generate}. */
export interface GenerateOptions extends SamplingOptions {
  /** Default 100. */
  readonly maxTokens?: number;
  /** Stops before the next token, with the signal's reason. */
  readonly signal?: AbortSignal;
  /** Each layer sees the last `window` tokens only. Default: all. */
  readonly window?: number;
  /**
   * Where a model was trained on short texts only, it loses the thread past `contextLength`, though nothing else stops it. With `refresh`, a text that
   * reaches `contextLength` goes on from a new state of its last `refresh` tokens, at positions from 0. Default: never.
   */
  readonly refresh?: number;
  /**
   * Continue this text instead of an empty one. Afterwards the state has taken in the prompt and every yielded token but the last, which has
   * not been fed back. Steps then run one at a time, so that an early end leaves nothing more in it.
   */
  readonly state?: HlmState;
}

/** Tokens of a prompt that are taken in at once: memory does not grow with the prompt. */
const PREFILL_CHUNK = 256;
/** Steps that may run before the first of them has been read back. */
const STEPS_IN_FLIGHT = 4;
const KEPT_PROGRAMS = 16;

/** Where one run of the model reads and writes. */
interface Run {
  readonly rows: number;
  /** `[rows]` */
  readonly ids: GPUBuffer;
  /** `[rows]`: rows of `positions`. */
  readonly positionRows: GPUBuffer;
  readonly positions: GPUBuffer;
}

/**
 * The HoM language model: token embedding + position embedding, causal HoM blocks, output projection; no normalisation layer.
 *
 * @example
 * const weights = await fetchSafetensors("/hlm.safetensors");
 * const model = await Hlm.create(gpu, hlmConfigOf(weights), weights);
 * for await (const token of model.generate(promptIds, { maxTokens: 100, temperature: 0.8 })) show(token);
 */
export class Hlm {
  readonly gpu: Gpu;
  readonly config: HlmConfig;
  readonly #parts: HlmParts;
  readonly #programs = new ProgramCache(KEPT_PROGRAMS);
  /** The position embedding of a model that has none: zeros `[D]`. */
  readonly #nowhere: GPUBuffer;
  #destroyed = false;

  private constructor(gpu: Gpu, config: HlmConfig, parts: HlmParts) {
    this.gpu = gpu;
    this.config = Object.freeze({ ...config });
    this.#parts = parts;
    this.#nowhere = gpu.createBuffer("hom.positions.none", Math.max(16, config.dim * 4), USAGE.STORAGE);
  }

  /**
   * Uploads a checkpoint (original key names, training prefixes removed) and compiles the kernels.
   * @param options.weightDtype storage of every weight but the token embedding: `"f16"`, `"i8"` and `"i4"` take a half, a quarter, a seventh. Default `"f32"`
   * @throws TypeError, RangeError for the configuration, WeightsError for the checkpoint, GpuLostError, GpuOutOfMemoryError
   */
  static async create(gpu: Gpu, config: HlmConfig, weights: HlmWeights, options: { readonly weightDtype?: WeightDtype } = {}): Promise<Hlm> {
    const where = "Hlm.create";
    checkGpu(where, gpu);
    checkHlmConfig(where, config);
    gpu.checkUsable(where);
    checkObject(where, "options", options, ["weightDtype"]);
    const weightDtype = checkOneOf(where, "weightDtype", options.weightDtype ?? "f32", ["f32", "f16", "i8", "i4"]);
    return new Hlm(gpu, config, await loadHlm(where, gpu, config, weights, weightDtype));
  }

  /** Bytes of the weights on the GPU. */
  get weightBytes(): number {
    const { table, positions, blocks, shifts, output } = this.#parts;
    const bare = [table, ...shifts].reduce((sum, { size }) => sum + size, 0);
    return [...(positions?.layers ?? []), ...blocks, output].reduce((sum, part) => sum + part.weightBytes, bare);
  }

  /**
   * Token ids `[B·n]` -> logits `[B, n, V]`, on the GPU. n is at most `contextLength`, as in the original; `step` has no such limit.
   * @throws TypeError, RangeError, GpuLostError
   */
  forward(tokenIds: Int32Array, options: HlmForwardOptions = {}): Tensor {
    const where = "Hlm.forward";
    checkObject(where, "options", options, ["batch", "posOffset", "attentionMask"]);
    this.#checkUsable(where);
    const batch = checkInteger(where, "batch", options.batch ?? 1, 1);
    const length = this.#checkIds(where, "tokenIds", tokenIds, batch);
    const { contextLength } = this.config;
    if (length > contextLength) {
      throw rangeError(
        where,
        "tokenIds",
        `have at most contextLength = ${contextLength} tokens a row`,
        raw(`${length}`),
        "step() takes texts of any length",
      );
    }
    const offsets = checkOffsets(where, options.posOffset ?? 0, batch);
    const queryMask = checkAttentionMask(where, options.attentionMask, tokenIds.length);
    if (queryMask && this.config.decay) throw typeError(where, "attentionMask", "be left out for a model with decayed moments", raw("a mask"));
    const rows = batch * length;
    const places = Array.from({ length: rows }, (_, row) => (offsets[Math.floor(row / length)] ?? 0) + (row % length));
    const shape = [batch, length, this.config.vocabSize];
    const free: (() => void)[] = [];
    const { result, status } = this.gpu.guard(where, () => {
      const logits = Tensor.allocate(where, this.gpu, "hom.logits", shape);
      const upload = (label: string, data: Uint32Array | Float32Array) => {
        const buffer = this.gpu.upload(label, data);
        free.push(() => buffer.destroy());
        return buffer;
      };
      const embedding = this.#parts.positions;
      const positions = embedding ? this.#scratch("positions", rows, this.config.dim).buffer : this.#nowhere;
      const features = embedding && upload("hom.positions.features", positionFeatures(embedding.freqs, places));
      const run: Run = {
        rows,
        ids: upload("hom.embed.ids", new Uint32Array(tokenIds)),
        positionRows: upload(
          "hom.embed.position_rows",
          Uint32Array.from({ length: rows }, (_, i) => (embedding ? i : 0)),
        ),
        positions,
      };
      this.gpu.submit("hlm", (pass) => {
        if (features) this.#recordPositions(pass, features, positions, rows);
        let [x, spare] = this.#recordEmbedding(pass, run);
        const between = this.#scratch("between", rows, this.config.dim);
        const seeing = queryMask && { queryMask: true, uploads: { table: queryMask } };
        const call = { shape: { batch, queryLength: length, contextLength: length }, resolved: CAUSAL, ...seeing };
        this.#parts.blocks.forEach((block, i) => {
          const query = this.#recordShift(pass, i, x, batch, length);
          free.push(...block.record(pass, { ...call, query, residual: x }, between, spare, rows));
          [x, spare] = [spare, x];
        });
        this.#parts.output.record(pass, { x, y: { buffer: logits, byteOffset: 0 }, rows });
      });
      return logits;
    });
    for (const f of free) f();
    return Tensor.adopt(this.gpu, result, shape, status);
  }

  /** An empty memory for `step` and `generate`. */
  createState(options: HlmStateOptions = {}): HlmState {
    const where = "Hlm.createState";
    checkObject(where, "options", options, ["batch", "window", "position"]);
    this.#checkUsable(where);
    const { batch = 1, window, position = 0 } = options;
    checkInteger(where, "position", position, 0, 2 ** 31);
    const states = this.#parts.blocks.map((block) => block.hom.createState({ batch, window }));
    return new HlmState(this.gpu, states, batch, window, position, this.config.dim, this.config.tokenShift ?? false);
  }

  /**
   * Takes in the next tokens `[B·n]` of each text, causally, and returns their logits `[B, n, V]` (or `[B, 1, V]`, of the last ones). A token costs the
   * same whatever came before it, and n may be anything. Positions go on from the state's, past `contextLength` if need be.
   * @throws TypeError, RangeError, GpuLostError; the state is as it was then
   */
  step(state: HlmState, tokenIds: Int32Array, options: { readonly logits?: "all" | "last" } = {}): Tensor {
    const where = "Hlm.step";
    checkObject(where, "options", options, ["logits"]);
    this.#checkState(where, state);
    const length = this.#checkIds(where, "tokenIds", tokenIds, state.batch);
    const { logits: wanted = "all" } = options;
    if (wanted !== "all" && wanted !== "last") throw typeError(where, "logits", 'be "all" or "last"', wanted);
    const shape = [state.batch, wanted === "all" ? length : 1, this.config.vocabSize];
    const { result, status } = this.gpu.guard(where, () => {
      const buffer = Tensor.allocate(where, this.gpu, "hom.logits", shape);
      this.#take(state, tokenIds, buffer, wanted);
      return buffer;
    });
    return Tensor.adopt(this.gpu, result, shape, status);
  }

  /**
   * Continues a prompt of any length, token by token, at a constant cost and in constant memory. Sampling runs on the GPU, some steps ahead of the
   * caller; a caller who waits makes it wait.
   * @throws TypeError, RangeError, GpuLostError, the signal's reason
   */
  async *generate(promptIds: Int32Array, options: GenerateOptions = {}): AsyncGenerator<number, void, undefined> {
    const where = "Hlm.generate";
    checkObject(where, "options", options, ["maxTokens", "temperature", "topK", "seed", "signal", "window", "refresh", "state"]);
    const { maxTokens = 100, signal, window, refresh } = options;
    checkInteger(where, "maxTokens", maxTokens, 0);
    const { vocabSize, contextLength } = this.config;
    if (refresh !== undefined) checkInteger(where, "refresh", refresh, 1, contextLength - 1);
    const sampling = checkSampling(where, options, vocabSize);
    this.#checkUsable(where);
    this.#checkIds(where, "promptIds", promptIds, 1);
    if (options.state) {
      this.#checkState(where, options.state);
      if (window !== undefined) throw typeError(where, "window", "be left to the given state", window);
      if (options.state.batch !== 1) throw rangeError(where, "state", "have batch 1", raw(`batch ${options.state.batch}`));
    }
    signal?.throwIfAborted();
    if (maxTokens === 0) return;

    const state = options.state ?? this.createState({ window });
    const ahead = options.state ? 1 : STEPS_IN_FLIGHT;
    const decoder = new Decoder(this.gpu, vocabSize, sampling);
    const pending: Promise<number>[] = [];
    const recent = refresh !== undefined && promptIds.length > contextLength ? [...promptIds.subarray(-refresh)] : [...promptIds];
    const run = (work: () => void) => {
      const { status } = this.gpu.guard(where, work);
      const checked = Promise.all([status, decoder.read(where)]).then(([failure, id]) => {
        if (failure) throw failure;
        if (id >= vocabSize) throw new Error(`${where}: the logits must be finite, got none that is; the weights or the input overflow f32`);
        return id;
      });
      // Whoever takes the token learns of its failure; a caller who stops early does not have to.
      checked.catch(() => {});
      pending.push(checked);
    };
    try {
      for (let submitted = 0, yielded = 0; yielded < maxTokens; yielded++) {
        while (submitted < maxTokens && pending.length < ahead) {
          const anew = submitted === 0 ? recent : refresh !== undefined && state.position >= contextLength ? recent.slice(-refresh) : undefined;
          // What to start anew from is known when everything has been read back.
          if (anew && pending.length > 0) break;
          run(() => {
            if (submitted > 0 && anew) state.reset();
            if (anew) this.#take(state, Int32Array.from(anew), decoder.logits, "last", decoder);
            else this.#advance(state, 1, decoder.ids, [{ row: 0, rows: 1, at: 0 }], decoder.logits, decoder);
          });
          submitted++;
        }
        const token = await pending.shift();
        signal?.throwIfAborted();
        if (token === undefined) throw new Error("Hlm: no token was drawn");
        recent.push(token);
        if (recent.length > 2 * contextLength) recent.splice(0, recent.length - contextLength);
        yield token;
        signal?.throwIfAborted();
      }
    } finally {
      await Promise.allSettled(pending);
      decoder.destroy();
      if (!options.state) state.destroy();
    }
  }

  /** Frees the weights. Results already returned stay valid. */
  destroy(): void {
    if (this.#destroyed) return;
    this.#destroyed = true;
    const { table, positions, blocks, shifts, output } = this.#parts;
    for (const part of [table, this.#nowhere, ...(positions?.layers ?? []), ...blocks, ...shifts, output, this.#programs]) part.destroy();
  }

  [Symbol.dispose](): void {
    this.destroy();
  }

  /** Takes in tokens `[B·n]` from the host, chunk by chunk, and leaves logits of all or of the last of each row. */
  #take(state: HlmState, ids: Int32Array, logits: GPUBuffer, wanted: "all" | "last", decoder?: Decoder): void {
    const { vocabSize } = this.config;
    const { batch } = state;
    const length = ids.length / batch;
    const chunk = state.window === undefined ? PREFILL_CHUNK : 1;
    for (let from = 0; from < length; from += chunk) {
      const n = Math.min(chunk, length - from);
      const some = new Uint32Array(batch * n);
      for (let b = 0; b < batch; b++) some.set(ids.subarray(b * length + from, b * length + from + n), b * n);
      const buffer = this.gpu.upload("hom.embed.ids", some);
      const isLast = from + n === length;
      // Logits of a chunk's rows go to their places in [B, length, V], or of a row's last token to [B, 1, V].
      const outputs = Array.from({ length: batch }, (_, b) => {
        if (wanted === "all") return { row: b * n, rows: n, at: (b * length + from) * vocabSize * 4 };
        return { row: b * n + n - 1, rows: 1, at: b * vocabSize * 4 };
      });
      this.#advance(state, n, buffer, wanted === "all" || isLast ? outputs : [], logits, isLast ? decoder : undefined);
      buffer.destroy();
    }
  }

  /** One submit: n tokens a batch row through all layers, and the next token drawn where there is a decoder. */
  #advance(
    state: HlmState,
    n: number,
    ids: GPUBuffer,
    outputs: readonly { readonly row: number; readonly rows: number; readonly at: number }[],
    logits: GPUBuffer,
    decoder: Decoder | undefined,
  ): void {
    const { gpu } = this;
    const { dim } = this.config;
    const { batch, position } = state;
    const rows = batch * n;
    const decode = n === 1;
    const encoder = gpu.device.createCommandEncoder({ label: "hom.hlm_step.encoder" });
    const { run, free } = this.#place(encoder, state, n, ids);
    const between = this.#scratch("between", rows, dim);
    let pass = encoder.beginComputePass({ label: "hom.hlm_step.pass" });
    let [x, spare] = this.#recordEmbedding(pass, run);
    this.#parts.blocks.forEach((block, i) => {
      const own = state.layers[i];
      const query = this.#recordShift(pass, i, x, batch, n, state);
      if (!own) throw new Error("Hlm: the state has fewer layers than the model");
      if (state.window === undefined) {
        own.advance(new Array<number>(batch).fill(n), n === 1 ? "after" : "before");
        block.hom.stream.recordStep(pass, own, { x: query, out: between, residual: x, length: n });
      } else {
        const { slot } = own.advanceWindow();
        pass.end();
        own.recordTake(encoder, slot, query);
        pass = encoder.beginComputePass({ label: "hom.hlm_step.pass" });
        block.hom.stream.recordSlide(pass, own, { x: query, out: between, residual: x });
      }
      block.recordFeedForward(pass, between, spare, rows, decode);
      [x, spare] = [spare, x];
    });
    for (const { row, rows: count, at } of outputs) {
      const y = { buffer: logits, byteOffset: at };
      this.#parts.output.record(pass, { x: { buffer: x.buffer, byteOffset: row * dim * 4 }, y, rows: count, decode });
    }
    decoder?.record(pass);
    pass.end();
    decoder?.recordRead(encoder);
    gpu.device.queue.submit([encoder.finish()]);
    for (const f of free) f();
    if (state.position !== position) throw new Error("Hlm: a state was advanced while it was being advanced");
    state.advance(n);
  }

  /** Position embeddings of the next n tokens: from the state's chunk while decoding, computed where it ends; for a prompt, computed for its chunk. */
  #place(encoder: GPUCommandEncoder, state: HlmState, n: number, ids: GPUBuffer): { run: Run; free: (() => void)[] } {
    const { gpu } = this;
    const { batch, position } = state;
    const rows = batch * n;
    const decoding = n === 1;
    const embedding = this.#parts.positions;
    if (!embedding) {
      const positionRows = gpu.scratch("position_rows", rows * 4);
      gpu.device.queue.writeBuffer(positionRows, 0, new Uint32Array(rows));
      return { run: { rows, ids, positionRows, positions: this.#nowhere }, free: [] };
    }
    let positions = state.positions;
    let first = state.cachedFrom;
    const free: (() => void)[] = [];
    if (!decoding || first === undefined || position < first || position >= first + POSITION_CHUNK) {
      const count = decoding ? POSITION_CHUNK : n;
      first = position;
      if (decoding) state.cachedFrom = first;
      else positions = this.#scratch("positions", n, this.config.dim).buffer;
      const places = Array.from({ length: count }, (_, i) => position + i);
      const features = gpu.upload("hom.positions.features", positionFeatures(embedding.freqs, places));
      free.push(() => features.destroy());
      const pass = encoder.beginComputePass({ label: "hom.positions.pass" });
      this.#recordPositions(pass, features, positions, count);
      pass.end();
    }
    const start = position - first;
    const positionRows = gpu.scratch("position_rows", rows * 4);
    gpu.device.queue.writeBuffer(
      positionRows,
      0,
      Uint32Array.from({ length: rows }, (_, row) => start + (row % n)),
    );
    return { run: { rows, ids, positionRows, positions }, free };
  }

  #recordPositions(pass: GPUComputePassEncoder, features: GPUBuffer, positions: GPUBuffer, count: number): void {
    const [first, second] = this.#parts.positions?.layers ?? [];
    const hidden = this.#scratch("hidden", count, 2 * this.config.dim);
    first?.record(pass, { x: { buffer: features, byteOffset: 0 }, y: hidden, rows: count });
    second?.record(pass, { x: hidden, y: { buffer: positions, byteOffset: 0 }, rows: count });
  }

  #recordEmbedding(pass: GPUComputePassEncoder, { rows, ids, positionRows, positions }: Run): [BufferView, BufferView] {
    const { dim, vocabSize } = this.config;
    const x = this.#scratch("x0", rows, dim);
    const program = this.#programs.get(`embed ${rows} ${positions.size}`, false, () => {
      const slot = (buffer: string, bytes: number) => ({ buffer, offset: 0, size: Math.max(16, bytes) });
      const step = planEmbed({
        ids: slot("ids", rows * 4),
        positionRows: slot("positionRows", rows * 4),
        table: slot("table", vocabSize * dim * 4),
        positions: slot("positions", positions.size),
        y: slot("y", rows * dim * 4),
        tokens: rows,
        dim,
        maxWorkgroups: this.gpu.limits.maxComputeWorkgroupsPerDimension,
      });
      return new Program(this.gpu, [step], new Map());
    });
    program.record(pass, { ids, positionRows, table: this.#parts.table, positions, y: x.buffer });
    return [x, this.#scratch("x1", rows, dim)];
  }

  /** What the mixer of layer i sees of x: the shifted tokens, in a model that shifts them. A state keeps the last ones. */
  #recordShift(pass: GPUComputePassEncoder, i: number, x: BufferView, batch: number, length: number, state?: HlmState): BufferView {
    const mix = this.#parts.shifts[i];
    if (!mix) return x;
    const { dim } = this.config;
    const y = this.#scratch("shifted", batch * length, dim);
    const ends = state?.shifted[i];
    const program = this.#programs.get(`shift ${batch} ${length} ${ends !== undefined}`, false, () => {
      const slot = (buffer: string, elements: number) => ({ buffer, offset: 0, size: Math.max(16, elements * 4) });
      const rows = batch * length * dim;
      const step = planShift({
        x: slot("x", rows),
        mix: slot("mix", dim),
        y: slot("y", rows),
        ...(ends && { previous: slot("previous", batch * dim), last: slot("last", batch * dim) }),
        batch,
        length,
        dim,
        maxWorkgroups: this.gpu.limits.maxComputeWorkgroupsPerDimension,
      });
      return new Program(this.gpu, [step], new Map());
    });
    program.record(pass, { x, mix, y, ...(ends && { previous: ends.previous, last: ends.next }) });
    if (ends) [ends.previous, ends.next] = [ends.next, ends.previous];
    return y;
  }

  #scratch(role: string, rows: number, width: number): BufferView {
    return { buffer: this.gpu.scratch(role, rows * width * 4), byteOffset: 0 };
  }

  #checkUsable(where: string): void {
    if (this.#destroyed) throw typeError(where, "model", "be alive", raw("a destroyed model"));
    this.gpu.checkUsable(where);
  }

  #checkState(where: string, state: HlmState): void {
    this.#checkUsable(where);
    if (!(state instanceof HlmState)) throw typeError(where, "state", "be an HlmState", state, "make one with createState()");
    state.checkUsable(where);
    const { blocks } = this.#parts;
    if (state.layers.length !== blocks.length) throw rangeError(where, "state", `have ${blocks.length} layers`, raw(`${state.layers.length}`));
    const shifts = this.config.tokenShift ?? false;
    if (state.shifted.length > 0 !== shifts) {
      throw rangeError(where, "state", `be of a model ${shifts ? "with" : "without"} a token shift`, raw("another model's state"));
    }
    blocks.forEach((block, i) => {
      const own = state.layers[i];
      if (own) block.hom.checkState(where, own);
    });
  }

  /** @returns tokens a row */
  #checkIds(where: string, argument: string, ids: Int32Array, batch: number): number {
    if (!(ids instanceof Int32Array)) throw typeError(where, argument, "be an Int32Array", ids);
    if (ids.length === 0) throw rangeError(where, argument, "have at least one token", raw("none"));
    if (ids.length % batch !== 0) throw rangeError(where, argument, `have ${batch} rows of equal length`, raw(`${ids.length} ids`));
    const { vocabSize } = this.config;
    const bad = ids.findIndex((id) => id < 0 || id >= vocabSize);
    if (bad !== -1) throw rangeError(where, `${argument}[${bad}]`, `be a token id from 0 to ${vocabSize - 1}`, ids[bad]);
    return ids.length / batch;
  }
}

const CAUSAL = { plan: { kind: "causal", ahead: 1 }, uploads: {}, key: "causal" } as const;

function checkOffsets(where: string, offset: number | Int32Array, batch: number): Int32Array {
  if (typeof offset === "number") return new Int32Array(batch).fill(checkInteger(where, "posOffset", offset, 0, 0x7fffffff));
  if (!(offset instanceof Int32Array)) throw typeError(where, "posOffset", "be a number or an Int32Array", offset);
  if (offset.length !== batch) throw rangeError(where, "posOffset", `have ${batch} elements, one a batch row`, raw(`${offset.length}`));
  const bad = offset.findIndex((p) => p < 0);
  if (bad !== -1) throw rangeError(where, `posOffset[${bad}]`, "be >= 0", offset[bad]);
  return offset;
}

function checkAttentionMask(where: string, mask: Uint8Array | Float32Array | undefined, size: number): Uint32Array | undefined {
  if (mask === undefined) return undefined;
  if (!(mask instanceof Uint8Array) && !(mask instanceof Float32Array))
    throw typeError(where, "attentionMask", "be a Uint8Array or a Float32Array", mask);
  if (mask.length !== size) throw rangeError(where, "attentionMask", `have ${size} elements`, raw(`${mask.length}`));
  return Uint32Array.from(mask, (seen) => (seen === 0 ? 0 : 1));
}
