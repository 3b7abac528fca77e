import { checkObject, FULL, leftOut, rangeError, raw, typeError } from "../checks.ts";
import type { Gpu } from "../runtime/gpu.ts";
import type { Dtype } from "../runtime/kernel.ts";
import { type BufferView, Program, planOffset } from "../runtime/program.ts";
import { ProgramCache } from "../runtime/program_cache.ts";
import { Tensor } from "../runtime/tensor.ts";
import type { GPUBuffer, GPUCommandEncoder, GPUComputePassEncoder } from "../webgpu.ts";
import { checkCuSeqlens, checkLengths } from "./mask.ts";
import { blockTokensFor, firstBlocks, type PlanConfig } from "./planner.ts";
import type { MomentState } from "./state.ts";
import { planState, type StateOperation, type StatePlan } from "./state_plan.ts";
import { checkOutput, checkTensor } from "./tensor_checks.ts";

/** Options of `append`. */
export interface AppendOptions {
  /** `[B]`: only the first `lengths[b]` tokens of each row are appended. */
  readonly lengths?: Uint32Array | undefined;
  /** `[B + 1]`: the context is `[1, total, D]`, one packed sequence a batch row of the state. */
  readonly cuSeqlens?: Uint32Array | undefined;
}

/** Options of `query`. */
export interface QueryOptions {
  /** `[B + 1]`: the query is `[1, total, D]`, one packed sequence a batch row of the state. */
  readonly cuSeqlens?: Uint32Array | undefined;
  readonly out?: Tensor | undefined;
  readonly residual?: Tensor | undefined;
}

/** Options of `step`. */
export type StepOptions = Omit<QueryOptions, "cuSeqlens">;

/** Memory of one step, all checked. @internal */
export interface StepRecord {
  readonly x: BufferView;
  readonly out: BufferView;
  readonly residual?: BufferView | undefined;
  readonly length: number;
}

const KEPT_PROGRAMS = 32;

interface Views {
  readonly x?: BufferView;
  readonly out?: BufferView | undefined;
  readonly residual?: BufferView | undefined;
}

/** What the streaming half needs to know of its layer. */
export interface StreamLayer {
  readonly dtype: Dtype;
  readonly plan: PlanConfig;
  readonly buffers: Readonly<Record<string, GPUBuffer>>;
  /** @throws where the state is another layer's */
  check(where: string, state: MomentState): void;
  /** Options of a call beside those of every layer. */
  readonly optionKeys: readonly string[];
  /** For layers with positions: where the tokens of a call stand. */
  place?(where: string, call: PlacedCall): Placed;
}

/** A call on a state as far as positions depend on it; an empty `options` is a call that gives none. */
export interface PlacedCall {
  readonly kind: "append" | "query" | "step";
  readonly state: MomentState;
  readonly length: number;
  readonly lengths: Uint32Array | undefined;
  readonly cuSeqlens: Uint32Array | undefined;
  readonly options: object;
}

/** Arrays that the kernels read, and where the next token of each batch row stands afterwards. */
export interface Placed {
  readonly uploads: Readonly<Record<string, Uint32Array>>;
  readonly next?: readonly number[] | undefined;
}

/** The streaming half of a layer: what `append`, `query` and `step` do with a state. */
export class MomentStream {
  readonly #gpu: Gpu;
  readonly #layer: StreamLayer;
  readonly #programs = new ProgramCache(KEPT_PROGRAMS);

  constructor(gpu: Gpu, layer: StreamLayer) {
    this.#gpu = gpu;
    this.#layer = layer;
  }

  append(where: string, state: MomentState, context: Tensor, options: AppendOptions): void {
    checkObject(where, "options", options, ["lengths", "cuSeqlens", ...this.#layer.optionKeys]);
    const { lengths, cuSeqlens } = options;
    if (!FULL && (lengths || cuSeqlens)) throw leftOut(where);
    this.#layer.check(where, state);
    const batch = cuSeqlens ? 1 : state.batch;
    this.#checkTensor(where, "context", context, batch);
    const length = context.shape[1] ?? 0;
    if (lengths && cuSeqlens) throw typeError(where, "options", "have lengths or cuSeqlens", raw("both"));
    if (FULL && lengths) checkLengths(where, "lengths", lengths, state.batch, length);
    if (FULL && cuSeqlens) checkCuSeqlens(where, "cuSeqlens", cuSeqlens, length, state.batch);
    if (FULL && state.window !== undefined) {
      checkWindowDtypes(where, context.dtype);
      if (lengths || cuSeqlens) throw typeError(where, "options", "be empty for a state with a window", raw(lengths ? "lengths" : "cuSeqlens"));
      this.#slide(where, state, { x: context, length }, undefined);
      return;
    }
    const tokens = lengths ? [...lengths] : FULL && cuSeqlens ? differences(cuSeqlens) : new Array<number>(state.batch).fill(length);
    const perCall = state.perCall;
    const operation: StateOperation =
      FULL && cuSeqlens
        ? { kind: "appendPacked", cuSeqlens: Uint32Array.from(cuSeqlens), perCall }
        : { kind: "append", lengths: lengths !== undefined, perCall };
    const placed = this.#layer.place?.(where, { kind: "append", state, length, lengths, cuSeqlens, options });
    const uploads: Record<string, Uint32Array | Float32Array> = { ...placed?.uploads };
    if (FULL && lengths) uploads["table"] = lengths;
    if (FULL && cuSeqlens) {
      const starts = firstBlocks(cuSeqlens, blockTokensFor(this.#gpu.tuning.blockTokens, this.#layer.plan));
      uploads["table"] = Uint32Array.from([...cuSeqlens, ...starts]);
    }
    if (perCall) uploads["divisors"] = Float32Array.from(tokens, (n) => n || 1);
    const counted = perCall ? tokens.map((n) => Math.min(n, 1)) : tokens;
    this.#submit(where, state, { operation, batch, length, tokens: counted, next: placed?.next, divisors: "after", context, uploads });
  }

  query(where: string, state: MomentState, query: Tensor, options: QueryOptions): Tensor {
    checkObject(where, "options", options, ["cuSeqlens", "out", "residual", ...this.#layer.optionKeys]);
    const { cuSeqlens } = options;
    if (!FULL && cuSeqlens) throw leftOut(where);
    this.#layer.check(where, state);
    const batch = cuSeqlens ? 1 : state.batch;
    this.#checkTensor(where, "query", query, batch);
    const length = query.shape[1] ?? 0;
    if (FULL && cuSeqlens) checkCuSeqlens(where, "cuSeqlens", cuSeqlens, length, state.batch);
    this.#checkOutputs(where, query, options);
    const operation: StateOperation = cuSeqlens ? { kind: "queryPacked", states: state.batch } : { kind: "query" };
    const placed = this.#layer.place?.(where, { kind: "query", state, length, lengths: undefined, cuSeqlens, options });
    return this.#withOutput(where, query, options, (out) =>
      this.#submit(where, state, {
        operation,
        batch,
        length,
        tokens: undefined,
        divisors: "after",
        context: query,
        out,
        residual: options.residual,
        uploads: { ...placed?.uploads, ...(cuSeqlens && { table: cuSeqlens }) },
      }),
    );
  }

  step(where: string, state: MomentState, tokens: Tensor, options: StepOptions): Tensor {
    checkObject(where, "options", options, ["out", "residual", ...this.#layer.optionKeys]);
    this.#layer.check(where, state);
    this.#checkTensor(where, "tokens", tokens, state.batch);
    this.#checkOutputs(where, tokens, options);
    if (FULL && state.window !== undefined) checkWindowDtypes(where, tokens.dtype, options.out?.dtype ?? this.#layer.dtype);
    const length = tokens.shape[1] ?? 0;
    if (state.perCall && length > 1) {
      throw rangeError(where, "tokens", 'have one token a row for a state that counts "calls"', tokens.shape, "append() the chunk, then query()");
    }
    const placed = this.#layer.place?.(where, { kind: "step", state, length, lengths: undefined, cuSeqlens: undefined, options });
    return this.#withOutput(where, tokens, options, (out) => {
      if (FULL && state.window !== undefined) {
        this.#slide(where, state, { x: tokens, length }, { out, residual: options.residual });
        return state.status;
      }
      const counts = new Array<number>(state.batch).fill(length);
      const divisors = length === 1 ? "after" : "before";
      const call = {
        operation: { kind: "step" } as const,
        batch: state.batch,
        length,
        tokens: counts,
        next: placed?.next,
        divisors,
        context: tokens,
        out,
        residual: options.residual,
        uploads: placed?.uploads ?? {},
      } as const;
      return this.#submit(where, state, call);
    });
  }

  /**
   * Records a step of a state without a window into a model's pass. The caller has checked everything and calls `state.advance` before it submits.
   * @internal
   */
  recordStep(pass: GPUComputePassEncoder, state: MomentState, { x, out, residual, length }: StepRecord): void {
    const program = this.#program({ kind: "step" }, state.batch, length, { x, out, residual });
    program.record(pass, this.#buffers(state, { context: x, out, residual }));
  }

  /** The same for one token a row of a windowed state, which has been copied into the ring. @internal */
  recordSlide(pass: GPUComputePassEncoder, state: MomentState, { x, out, residual }: Omit<StepRecord, "length">): void {
    if (!FULL) throw leftOut("recordSlide");
    const operation = { kind: "stepWindow", ring: (state.window ?? 0) + 1 } as const;
    const program = this.#program(operation, state.batch, 1, { x: { ...x, byteOffset: 0 }, out, residual });
    program.record(pass, this.#buffers(state, { context: x, out, residual }));
  }

  /** Kernels of single steps, compiled before the first. */
  async prepare(): Promise<void> {
    // Where a view starts and what it holds decide the kernels, its buffer does not.
    const view = { byteOffset: 0, dtype: this.#layer.dtype } as BufferView;
    const { steps } = this.#plan({ kind: "step" }, 1, 1, { x: view, out: view });
    await Promise.all(steps.map(({ kernel, variant }) => this.#gpu.prepare(kernel, variant)));
  }

  destroy(): void {
    this.#programs.destroy();
  }

  /** Token by token: each enters the ring and pushes out the one that leaves. */
  #slide(
    where: string,
    state: MomentState,
    tokens: { x: Tensor; length: number },
    outputs: { out: BufferView; residual: Tensor | undefined } | undefined,
  ): void {
    if (!FULL) throw leftOut(where);
    const { dim } = this.#layer.plan;
    const { device } = this.#gpu;
    const { batch, window = 0 } = state;
    const bytes = batch * dim * 4;
    const { x, length } = tokens;
    // Without outputs only the last window of tokens matters.
    const from = outputs ? 0 : Math.max(0, length - window);
    if (from > 0) state.reset();
    const { status } = this.#gpu.guard(where, () => {
      const gather = (name: string) => this.#gpu.scratch(name, bytes);
      const copyRows = (encoder: GPUCommandEncoder, token: number, tensor: BufferView, row: GPUBuffer, toRow: boolean) => {
        for (let b = 0; b < batch; b++) {
          const at = tensor.byteOffset + (b * length + token) * dim * 4;
          if (toRow) encoder.copyBufferToBuffer(tensor.buffer, at, row, b * dim * 4, dim * 4);
          else encoder.copyBufferToBuffer(row, b * dim * 4, tensor.buffer, at, dim * 4);
        }
      };
      for (let token = from; token < length; token++) {
        const { slot } = state.advanceWindow();
        const encoder = device.createCommandEncoder({ label: "hom.step.encoder" });
        const row = { buffer: gather("step_x"), byteOffset: 0 };
        const out = { buffer: gather("step_out"), byteOffset: 0 };
        const residual = outputs?.residual && { buffer: gather("step_residual"), byteOffset: 0 };
        copyRows(encoder, token, x, row.buffer, true);
        if (residual && outputs.residual) copyRows(encoder, token, outputs.residual, residual.buffer, true);
        state.recordTake(encoder, slot, row);
        const pass = encoder.beginComputePass({ label: "hom.step.pass" });
        this.recordSlide(pass, state, { x: row, out, residual });
        pass.end();
        if (outputs) copyRows(encoder, token, outputs.out, out.buffer, false);
        device.queue.submit([encoder.finish()]);
      }
    });
    state.follow(allOfTensors(status, x, outputs?.residual));
  }

  #submit(
    where: string,
    state: MomentState,
    a: {
      operation: StateOperation;
      batch: number;
      length: number;
      /** Tokens added to each batch row; undefined for a call that adds nothing. */
      tokens: readonly number[] | undefined;
      next?: readonly number[] | undefined;
      divisors: "after" | "before";
      context: Tensor;
      out?: BufferView;
      residual?: Tensor | undefined;
      uploads: Readonly<Record<string, Uint32Array | Float32Array>>;
    },
  ): Promise<Error | undefined> {
    const { operation, context, out, residual } = a;
    const uploaded: Record<string, GPUBuffer> = {};
    let transient: Program | undefined;
    const { status } = this.#gpu.guard(where, () => {
      const program = this.#program(operation, a.batch, a.length, { x: context, out, residual });
      if (operation.kind === "appendPacked") transient = program;
      for (const [name, data] of Object.entries(a.uploads)) uploaded[name] = this.#gpu.upload(`hom.state.${name}`, data);
      if (a.tokens) state.advance(a.tokens, a.divisors, a.next);
      else state.writeCounts();
      this.#gpu.submit("stream", (pass) => program.record(pass, { ...this.#buffers(state, { context, out, residual }), ...uploaded }));
    });
    for (const buffer of Object.values(uploaded)) buffer.destroy();
    transient?.destroy();
    const all = allOfTensors(status, context, residual);
    if (a.tokens) state.follow(all);
    return Promise.all([all, state.status]).then(([first, second]) => first ?? second);
  }

  #buffers(state: MomentState, views: { context: BufferView; out?: BufferView | undefined; residual?: BufferView | undefined }) {
    return {
      query: views.context,
      ...views,
      levels: state.levels,
      history: state.history,
      entry: state.entry,
      ...this.#layer.buffers,
    };
  }

  #plan(operation: StateOperation, batch: number, length: number, { x, out, residual }: Views): StatePlan {
    const at = x ? planOffset(x) : 0;
    const dtype = x?.dtype ?? "f32";
    const call = {
      batch,
      queryLength: length,
      contextLength: length,
      query: at,
      context: at,
      out: out ? planOffset(out) : 0,
      residual: residual && planOffset(residual),
      queryDtype: dtype,
      contextDtype: dtype,
      outDtype: out?.dtype ?? "f32",
    };
    return planState(this.#layer.plan, this.#gpu.tuning, this.#gpu.limits, call, operation);
  }

  #program(operation: StateOperation, batch: number, length: number, views: Views): Program {
    const build = () => {
      const { steps, scratch } = this.#plan(operation, batch, length, views);
      return new Program(this.#gpu, steps, scratch);
    };
    // What depends on the sequences' lengths is not worth keeping.
    if (operation.kind === "appendPacked") return build();
    const { x, out, residual } = views;
    const where = [x, out, residual].map((view) => view && [planOffset(view), view.dtype]);
    return this.#programs.get([...Object.values(operation), batch, length, ...where].join(), false, build);
  }

  #withOutput(where: string, like: Tensor, options: StepOptions, run: (out: BufferView) => Promise<Error | undefined>): Tensor {
    if (options.out) return options.out.overwritten(run(options.out));
    const { dtype } = this.#layer;
    const { result: buffer, status } = this.#gpu.guard(where, () => Tensor.allocate(where, this.#gpu, "hom.output", like.shape, dtype));
    const done = run({ buffer, byteOffset: 0, dtype });
    const all = Promise.all([status, done]).then(([first, second]) => first ?? second);
    return Tensor.adopt(this.#gpu, buffer, like.shape, all, dtype);
  }

  #checkTensor(where: string, name: string, tensor: Tensor, batch: number): void {
    const { dim } = this.#layer.plan;
    checkTensor(where, name, tensor, this.#gpu);
    const { shape } = tensor;
    if (shape.length !== 3 || shape[0] !== batch || shape[2] !== dim) throw rangeError(where, name, `have shape [${batch}, n, ${dim}]`, shape);
  }

  #checkOutputs(where: string, like: Tensor, options: StepOptions): void {
    for (const [name, tensor] of Object.entries({ out: options.out, residual: options.residual })) {
      if (!tensor) continue;
      checkTensor(where, name, tensor, this.#gpu);
      if (tensor.shape.join() !== like.shape.join()) throw rangeError(where, name, `have shape [${like.shape.join(", ")}]`, tensor.shape);
    }
    const { out, residual } = options;
    checkOutput(where, { input: like }, { out, residual }, this.#layer.dtype);
  }
}

/** A window's ring copies tokens as they are. */
function checkWindowDtypes(where: string, ...dtypes: string[]): void {
  if (dtypes.includes("f16")) throw typeError(where, "tensors", "be f32 for a state with a window", raw("f16"));
}

function differences(cu: Uint32Array): number[] {
  return Array.from(cu.subarray(1), (end, s) => end - (cu[s] ?? 0));
}

async function allOfTensors(status: Promise<Error | undefined>, ...tensors: (Tensor | undefined)[]): Promise<Error | undefined> {
  const all = await Promise.all([status, ...tensors.map((tensor) => tensor?.status)]);
  return all.find((failure) => failure !== undefined);
}
