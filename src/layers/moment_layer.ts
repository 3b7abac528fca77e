import { checkInteger, checkObject, FULL, leftOut, rangeError, raw, typeError } from "../checks.ts";
import type { Gpu } from "../runtime/gpu.ts";
import { type Dtype, type PlannedDispatch, planned, TILES } from "../runtime/kernel.ts";
import { type BufferView, Program, planOffset } from "../runtime/program.ts";
import { ProgramCache } from "../runtime/program_cache.ts";
import { allOf, Tensor } from "../runtime/tensor.ts";
import type { GPUBuffer, GPUCommandEncoder, GPUComputePassEncoder } from "../webgpu.ts";
import { type HomCall, planHom } from "./hom_plan.ts";
import { HomMask, type MaskShape, type MaskSpec, type ResolvedMask, resolveMask, uploadBuffers } from "./mask.ts";
import { blockTokensFor, type PlanConfig } from "./planner.ts";
import { checkOutput, checkTensor } from "./tensor_checks.ts";

/** Options of a call that every layer of this package has. */
export interface ForwardOptions {
  /** `[B, N, D]`, the tokens that are summarised. Default: the query itself. */
  readonly context?: Tensor | undefined;
  readonly mask?: MaskSpec | HomMask | undefined;
  /** `[B, T, D]`, written instead of a new tensor; not the memory of another argument. */
  readonly out?: Tensor | undefined;
  /** `[B, T, D]`, added to the output. */
  readonly residual?: Tensor | undefined;
}

/** The call that `plan` looks at: B, T, N and the mask. */
export interface HomPlanOptions {
  readonly batch: number;
  readonly queryLength: number;
  /** Default: `queryLength`. */
  readonly contextLength?: number;
  readonly mask?: MaskSpec | undefined;
}

/** What a call would do, without doing it. */
export interface HomPlanReport {
  readonly dispatches: readonly PlannedDispatch[];
  /** Multiply-adds count 2. */
  readonly flops: number;
  /** Each dispatch's inputs counted once. */
  readonly bytesRead: number;
  readonly bytesWritten: number;
  /** Scratch memory of the call; never grows with the number of tokens beyond `scratchBudget`. */
  readonly scratchBytes: number;
}

/** One call on memory, all checked. @internal */
export interface LayerRecord {
  readonly query: BufferView;
  readonly context: BufferView;
  readonly residual?: BufferView | undefined;
  readonly out: BufferView;
  readonly shape: MaskShape;
  readonly resolved: Omit<ResolvedMask, "epsilon">;
  readonly prepared?: HomMask | undefined;
  /** Arrays of this call beside the mask's, which take the mask's place under the same name. */
  readonly uploads?: Readonly<Record<string, Uint32Array>> | undefined;
  /** The queries that see something are in `uploads.table`. */
  readonly queryMask?: boolean | undefined;
}

/** The tensors of one call, all checked. @internal */
export interface CheckedCall extends Omit<LayerRecord, "out"> {
  readonly query: Tensor;
  readonly context: Tensor;
  readonly residual: Tensor | undefined;
  readonly out: Tensor | undefined;
}

/** What a layer is made of. @internal */
export interface LayerParts {
  readonly name: "HomLayer" | "PomLayer";
  readonly dtype: Dtype;
  readonly plan: PlanConfig;
  /** What is added to the sum of a mask before dividing by it. */
  readonly epsilon: number;
  /** Of a call, beside those of {@link ForwardOptions}. */
  readonly optionKeys: readonly string[];
  /** The parameters, under the names that the planner uses. */
  readonly buffers: Readonly<Record<string, GPUBuffer>>;
  /** What the device objected to when they were made. */
  readonly status: Promise<Error | undefined>;
}

const OPTION_KEYS = ["context", "mask", "out", "residual"];
const KEPT_PROGRAMS = 32;

/** Calls of a layer: what is the same whatever its moments are. */
export abstract class MomentLayer<Options extends ForwardOptions = ForwardOptions> {
  readonly gpu: Gpu;
  /** @internal */
  readonly parts: LayerParts;
  /** @internal */
  protected readonly blockTokens: number;
  /** @internal */
  protected readonly programs = new ProgramCache(KEPT_PROGRAMS);
  #destroyed = false;

  /** @internal */
  protected constructor(gpu: Gpu, parts: LayerParts) {
    this.gpu = gpu;
    this.parts = parts;
    this.blockTokens = blockTokensFor(gpu.tuning.blockTokens, parts.plan);
  }

  /** Bytes of this layer's weights on the GPU. */
  get weightBytes(): number {
    return Object.values(this.parts.buffers).reduce((sum, { size }) => sum + size, 0);
  }

  /**
   * Runs the layer: `[B, T, D]` -> `[B, T, D]`. The result stays on the GPU until it is read; nothing is waited for.
   * @throws TypeError, RangeError for arguments, GpuLostError; what the device refuses later is thrown by `read()` of the result
   */
  forward(query: Tensor, options: Options = {} as Options): Tensor {
    const where = `${this.parts.name}.forward`;
    return this.run(where, this.check(where, query, options));
  }

  /** Runs a checked call. @internal */
  protected run(where: string, call: CheckedCall): Tensor {
    let transient: (() => void)[] = [];
    const { result, status } = this.gpu.guard(where, () => {
      const out = this.#allocate(where, call);
      try {
        this.gpu.submit("forward", (pass) => {
          transient = this.record(pass, { ...call, out });
        });
      } catch (error) {
        if (!call.out) out.buffer.destroy();
        throw error;
      }
      return out.buffer;
    });
    for (const free of transient) free();
    return this.#output(call, result, status);
  }

  /**
   * Records the layer into the caller's encoder, between passes, and returns the output; the caller submits. A mask given as an array is
   * uploaded to memory that is freed some time after the work is done; `createMask` gives control over it.
   */
  encode(encoder: GPUCommandEncoder, options: Options & { readonly query: Tensor }): Tensor {
    const where = `${this.parts.name}.encode`;
    if (typeof encoder?.beginComputePass !== "function") throw typeError(where, "commandEncoder", "be a GPUCommandEncoder", encoder);
    checkObject(where, "options", options, ["query", ...OPTION_KEYS, ...this.parts.optionKeys]);
    const { query, ...rest } = options;
    const call = this.check(where, query, rest as unknown as Options);
    const { result, status } = this.gpu.guard(where, () => {
      const out = this.#allocate(where, call);
      const pass = encoder.beginComputePass({ label: "hom.encode.pass" });
      try {
        this.record(pass, { ...call, out }, true);
      } catch (error) {
        if (!call.out) out.buffer.destroy();
        throw error;
      } finally {
        pass.end();
      }
      return out.buffer;
    });
    return this.#output(call, result, status);
  }

  /** Dispatches, FLOPs, bytes and scratch of a call; pure, no GPU work. */
  plan(options: HomPlanOptions): HomPlanReport {
    const where = `${this.parts.name}.plan`;
    checkObject(where, "options", options, ["batch", "queryLength", "contextLength", "mask"]);
    const shape = checkShape(where, options);
    const { plan: mask } = this.#resolve(where, options.mask, shape);
    const { steps, scratch, flops } = planHom(this.parts.plan, this.gpu.tuning, this.gpu.limits, { ...shape, mask, query: 0, context: 0, out: 0 });
    return {
      dispatches: steps.map(planned),
      flops,
      bytesRead: steps.reduce((sum, step) => sum + step.bytesRead, 0),
      bytesWritten: steps.reduce((sum, step) => sum + step.bytesWritten, 0),
      scratchBytes: [...scratch.values()].reduce((sum, bytes) => sum + bytes, 0),
    };
  }

  /** Uploads a mask once, for calls of these shapes by any layer of the same kind, width and order. */
  createMask(mask: MaskSpec, options: Omit<HomPlanOptions, "mask">): HomMask {
    const where = `${this.parts.name}.createMask`;
    if (!FULL) throw leftOut(where);
    checkObject(where, "options", options, ["batch", "queryLength", "contextLength"]);
    const shape = checkShape(where, options);
    const resolved = this.#resolve(where, mask, shape);
    this.checkUsable(where);
    return new HomMask(this.gpu, shape, resolved, this.blockTokens);
  }

  /** Frees the weights. Results already returned stay valid. */
  destroy(): void {
    if (this.#destroyed) return;
    this.#destroyed = true;
    for (const buffer of Object.values(this.parts.buffers)) buffer.destroy();
    this.programs.destroy();
  }

  [Symbol.dispose](): void {
    this.destroy();
  }

  /**
   * Records a checked call on bare buffers: how models chain layers in one pass. Returns what to free once it is submitted.
   * @internal
   */
  record(pass: GPUComputePassEncoder, call: LayerRecord, lent = false): (() => void)[] {
    const { query, context, residual, out, shape, resolved, prepared, queryMask = false } = call;
    const homCall: HomCall = {
      ...shape,
      mask: resolved.plan,
      query: planOffset(query),
      context: planOffset(context),
      out: planOffset(out),
      residual: residual && planOffset(residual),
      queryMask,
      queryDtype: query.dtype ?? "f32",
      contextDtype: context.dtype ?? "f32",
      outDtype: out.dtype ?? "f32",
    };
    const { program, cached } = this.#program(homCall, resolved.key, lent);
    const uploads = uploadBuffers(this.gpu, { ...(prepared ? {} : resolved.uploads), ...call.uploads });
    program.record(pass, { query, context, out, residual, ...this.parts.buffers, ...prepared?.buffers, ...uploads });
    return [...Object.values(uploads).map((buffer) => () => buffer.destroy()), ...(cached ? [] : [() => program.destroy()])];
  }

  /** What a call adds to the one that every layer makes of its options. */
  protected abstract checkOptions(
    where: string,
    options: Options,
    call: { readonly shape: MaskShape; readonly resolved: ResolvedMask; readonly self: boolean },
  ): Pick<LayerRecord, "uploads" | "queryMask">;

  protected checkUsable(where: string): void {
    if (this.#destroyed) throw typeError(where, "layer", "be alive", raw("a destroyed layer"));
    this.gpu.checkUsable(where);
  }

  /** Unmasked and causal calls on aligned tensors find their kernels compiled; others compile at their first use. Destroys the layer where that fails. */
  protected async open(others: Promise<void>): Promise<this> {
    const { plan, dtype, status } = this.parts;
    const masks = [{ kind: "none" }, { kind: "causal", ahead: 1 }] as const;
    // Few rows take a small tile, others the adapter's largest.
    const lengths = [1, TILES[this.gpu.tuning.tile].rows];
    const dtypes = { queryDtype: dtype, contextDtype: dtype, outDtype: dtype };
    try {
      const failure = await status;
      if (failure) throw failure;
      const steps = lengths.flatMap((length) => {
        const call = { batch: 1, queryLength: length, contextLength: length, query: 0, context: 0, out: 0, ...dtypes };
        return (plan.decay ? masks.slice(1) : masks).flatMap((mask) => planHom(plan, this.gpu.tuning, this.gpu.limits, { ...call, mask }).steps);
      });
      await Promise.all([...steps.map(({ kernel, variant }) => this.gpu.prepare(kernel, variant)), others]);
    } catch (error) {
      this.destroy();
      throw error;
    }
    return this;
  }

  #resolve(where: string, mask: MaskSpec | undefined, shape: MaskShape): ResolvedMask {
    return resolveMask(where, mask, shape, this.blockTokens, this.parts.epsilon);
  }

  /** @internal */
  protected check(where: string, query: Tensor, options: Options): CheckedCall {
    checkObject(where, "options", options, [...OPTION_KEYS, ...this.parts.optionKeys]);
    this.checkUsable(where);
    const { dim } = this.parts.plan;
    const { context = query, residual, out } = options;
    this.checkTensor(where, "query", query, `[B, T, ${dim}]`, (s) => s.length === 3 && s[2] === dim);
    const [batch = 0, queryLength = 0] = query.shape;
    this.checkTensor(where, "context", context, `[${batch}, N, ${dim}]`, (s) => s.length === 3 && s[2] === dim && s[0] === batch);
    const contextLength = context.shape[1] ?? 0;
    const shape = { batch, queryLength, contextLength };
    const likeQuery = (s: readonly number[]) => s.length === 3 && s[0] === batch && s[1] === queryLength && s[2] === dim;
    if (residual) this.checkTensor(where, "residual", residual, `[${query.shape.join(", ")}]`, likeQuery);
    if (out) this.checkTensor(where, "out", out, `[${query.shape.join(", ")}]`, likeQuery);
    checkOutput(where, { query, context }, { out, residual }, this.parts.dtype);
    const prepared = FULL && options.mask instanceof HomMask ? options.mask : undefined;
    prepared?.check(where, this.gpu, shape, this.blockTokens, this.parts.epsilon);
    const resolved = prepared?.resolved ?? this.#resolve(where, options.mask as MaskSpec | undefined, shape);
    const more = this.checkOptions(where, options, { shape, resolved, self: context === query });
    return { query, context, residual, out, shape, resolved, prepared, ...more };
  }

  /** @internal */
  protected checkTensor(where: string, name: string, tensor: Tensor, wanted: string, fits: (shape: readonly number[]) => boolean): void {
    checkTensor(where, name, tensor, this.gpu);
    if (!fits(tensor.shape)) throw rangeError(where, name, `have shape ${wanted}`, tensor.shape);
  }

  #program(call: HomCall, maskKey: string | undefined, lent: boolean): { program: Program; cached: boolean } {
    const build = () => {
      const { steps, scratch } = planHom(this.parts.plan, this.gpu.tuning, this.gpu.limits, call);
      return new Program(this.gpu, steps, scratch);
    };
    if (maskKey === undefined) return { program: build(), cached: false };
    const { mask, ...rest } = call;
    const key = [maskKey, ...Object.values(rest)].join();
    return { program: this.programs.get(key, lent, build), cached: true };
  }

  #allocate(where: string, { out, query }: CheckedCall): BufferView {
    const { dtype } = this.parts;
    return out ?? { buffer: Tensor.allocate(where, this.gpu, "hom.output", query.shape, dtype), byteOffset: 0, dtype };
  }

  #output(call: CheckedCall, buffer: GPUBuffer, status: Promise<Error | undefined>): Tensor {
    const all = allOf([status, this.parts.status, call.query.status, call.context.status, call.residual?.status]);
    return call.out ? call.out.overwritten(all) : Tensor.adopt(this.gpu, buffer, call.query.shape, all, this.parts.dtype);
  }
}

function checkShape(where: string, options: Omit<HomPlanOptions, "mask">): MaskShape {
  return {
    batch: checkInteger(where, "batch", options.batch, 1),
    queryLength: checkInteger(where, "queryLength", options.queryLength, 1),
    contextLength: checkInteger(where, "contextLength", options.contextLength ?? options.queryLength, 1),
  };
}
