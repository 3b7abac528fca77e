import { checkInteger, checkObject, checkOneOf, rangeError, raw, typeError } from "../checks.ts";
import type { Gpu } from "../runtime/gpu.ts";
import { type PlannedDispatch, planned, TILES } from "../runtime/kernel.ts";
import { type BufferView, Program, planOffset } from "../runtime/program.ts";
import { ProgramCache } from "../runtime/program_cache.ts";
import { allOf, checkGpu, Tensor } from "../runtime/tensor.ts";
import type { GPUBuffer, GPUCommandEncoder, GPUComputePassEncoder } from "../webgpu.ts";
import { checkConfig, checkParams, type HomConfig, type HomParams } from "./hom_config.ts";
import { type HomCall, planHom } from "./hom_plan.ts";
import { type HomGradients, type HomTrainingPass, runBackward, type TrainingCall } from "./hom_training.ts";
import { HomMask, type MaskShape, type MaskSpec, type ResolvedMask, resolveMask, uploadMask } from "./mask.ts";
import { encodeWeights, packLinear, padded } from "./params.ts";
import { blockTokensFor } from "./planner.ts";
import { checkWindow, HomState } from "./state.ts";
import { type AppendOptions, HomStream, type QueryOptions, type StepOptions } from "./stream.ts";
import { checkOutput, checkTensor } from "./tensor_checks.ts";

export interface HomForwardOptions {
  /** `[B, N, D]`, the tokens that are summarised. Default: the query itself. */
  readonly context?: Tensor | undefined;
  readonly mask?: MaskSpec | HomMask | undefined;
  /** `[B, T, D]`, written instead of a new tensor; not the memory of another argument. */
  readonly out?: Tensor | undefined;
  /** `[B, T, D]`, added to the output. */
  readonly residual?: Tensor | undefined;
  /** `[B·T]`, with a causal mask: queries of value 0 see nothing, as padded rows in training do. */
  readonly queryMask?: Uint8Array | undefined;
}

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

export interface HomTrainingOptions extends Pick<HomForwardOptions, "context" | "mask" | "queryMask"> {}

const TRAINING_KEYS = ["context", "mask", "queryMask"];
const OPTION_KEYS = ["context", "mask", "out", "residual", "queryMask"];
const KEPT_PROGRAMS = 32;

interface HomWeights {
  /** ho_proj and se_proj side by side. */
  readonly projections: GPUBuffer;
  readonly ag: GPUBuffer;
}

/** One call on memory, all checked. @internal */
export interface HomRecord {
  readonly query: BufferView;
  readonly context: BufferView;
  readonly residual?: BufferView | undefined;
  readonly out: BufferView;
  readonly shape: MaskShape;
  readonly resolved: ResolvedMask;
  readonly prepared?: HomMask | undefined;
  readonly queryMask?: Uint32Array | undefined;
}

/** The tensors of one call, all checked. */
interface Call extends Omit<HomRecord, "out"> {
  readonly query: Tensor;
  readonly context: Tensor;
  readonly residual: Tensor | undefined;
  readonly out: Tensor | undefined;
}

/**
 * The high-order moment layer: y = ag_proj(σ(se_proj(xq)) ⊙ h), h the mean over context tokens of the products
 * m₁ = z₁, m_i = z_i ⊙ m_(i-1), z = act(ho_proj(xc)) cut into k chunks. Linear in the number of tokens; no normalisation, no residual.
 *
 * @example
 * const hom = await HomLayer.create(gpu, { dim: 64, order: 2, orderExpand: 2 }, params);
 * const y = hom.forward(Tensor.from(gpu, data, [1, 100, 64]), { mask: "causal" });
 * console.log(await y.read());
 */
export class HomLayer {
  readonly gpu: Gpu;
  readonly config: Readonly<Required<HomConfig>>;
  /** M = k·e·D. */
  readonly momentDim: number;
  readonly #weights: HomWeights;
  readonly #blockTokens: number;
  readonly #programs = new ProgramCache(KEPT_PROGRAMS);
  readonly #status: Promise<Error | undefined>;
  /** @internal */
  readonly stream: HomStream;
  #destroyed = false;

  private constructor(gpu: Gpu, config: Required<HomConfig>, weights: HomWeights, status: Promise<Error | undefined>) {
    this.gpu = gpu;
    this.config = Object.freeze(config);
    this.momentDim = config.order * config.orderExpand * config.dim;
    this.#weights = weights;
    this.#blockTokens = blockTokensFor(gpu.tuning.blockTokens, config);
    this.#status = status;
    this.stream = new HomStream(gpu, config, weights);
  }

  /**
   * Checks and uploads the parameters and compiles the kernels; the only slow step.
   * @throws TypeError, RangeError for the configuration, WeightsError for the parameters, GpuLostError, GpuOutOfMemoryError
   */
  static async create(gpu: Gpu, config: HomConfig, params: HomParams): Promise<HomLayer> {
    const where = "HomLayer.create";
    checkGpu(where, gpu);
    const full = checkConfig(where, config, gpu);
    const checked = checkParams(where, full, params);
    gpu.checkUsable(where);
    const { dim, order, orderExpand } = full;
    const moment = { count: order, width: orderExpand * dim };
    const model = { count: 1, width: dim };
    const side = (name: string) => ({ weight: checked[`${name}.weight`] ?? [], bias: checked[`${name}.bias`], outer: moment });
    const projections = packLinear([side("ho_proj"), side("se_proj")], model);
    const output = packLinear([{ ...side("ag_proj"), outer: model }], moment);
    const stored = {
      projections: encodeWeights(where, projections, 2 * order * padded(moment.width), full.weightDtype),
      ag: encodeWeights(where, output, padded(dim), full.weightDtype),
    };
    for (const { byteLength } of Object.values(stored)) {
      const { maxStorageBufferBindingSize } = gpu.limits;
      if (byteLength > maxStorageBufferBindingSize) {
        const rule = `keep its weights within the device's maxStorageBufferBindingSize of ${maxStorageBufferBindingSize} bytes`;
        throw rangeError(where, "config", rule, raw(`${byteLength} bytes`), "use a smaller layer, or f16 or i8 weights");
      }
    }
    const { result, status } = gpu.guard(where, () => ({
      projections: gpu.upload("hom.projections.weights", stored.projections),
      ag: gpu.upload("hom.ag_proj.weights", stored.ag),
    }));
    const layer = new HomLayer(gpu, full, result, status);
    try {
      const failure = await status;
      if (failure) throw failure;
      await layer.#compile();
    } catch (error) {
      layer.destroy();
      throw error;
    }
    return layer;
  }

  /** Bytes of this layer's weights on the GPU. */
  get weightBytes(): number {
    return this.#weights.projections.size + this.#weights.ag.size;
  }

  /**
   * Runs the layer: `[B, T, D]` -> `[B, T, D]`. The result stays on the GPU until it is read; nothing is waited for.
   * @throws TypeError, RangeError for arguments, GpuLostError; what the device refuses later is thrown by `read()` of the result
   */
  forward(query: Tensor, options: HomForwardOptions = {}): Tensor {
    const where = "HomLayer.forward";
    return this.#forward(where, this.#check(where, query, options));
  }

  /**
   * Runs the layer and returns, with the output, what computes the gradients: of a layer with f32 weights and output, for query and context in f32.
   * A mask is what it was at this call, whatever happens to its arrays later.
   * @throws TypeError, RangeError for arguments, GpuLostError; what the device refuses later is thrown by `read()` of the results
   *
   * @example
   * const { output, backward } = hom.forwardForTraining(x, { mask: "causal" });
   * const { query, params } = backward(gradOutput);
   * console.log(await params["ho_proj.weight"].read());
   */
  forwardForTraining(query: Tensor, options: HomTrainingOptions = {}): HomTrainingPass {
    const where = "HomLayer.forwardForTraining";
    checkObject(where, "options", options, TRAINING_KEYS);
    const call = this.#check(where, query, options);
    const { dtype, weightDtype } = this.config;
    if (dtype !== "f32" || weightDtype !== "f32") {
      const got = raw(`dtype "${dtype}" and weightDtype "${weightDtype}"`);
      throw typeError(where, "layer", "have weights and output in f32", got, 'create it with dtype "f32"');
    }
    checkOneOf(where, "query's dtype", query.dtype, ["f32"]);
    checkOneOf(where, "context's dtype", call.context.dtype, ["f32"]);
    const { resolved, prepared, shape, queryMask } = call;
    const uploads = Object.fromEntries(Object.entries(resolved.uploads).map(([name, data]) => [name, data.slice()]));
    const kept = { query, context: options.context, shape, resolved: { ...resolved, uploads }, prepared, queryMask };
    const output = this.#forward(where, call);
    return { output, backward: (gradOutput) => this.#backward(kept, gradOutput) };
  }

  #backward(call: TrainingCall, gradOutput: Tensor): HomGradients {
    const where = "HomLayer.forwardForTraining's backward";
    const { query, context, shape, prepared } = call;
    this.#checkUsable(where);
    const likeQuery = (s: readonly number[]) => s.join() === query.shape.join();
    this.#checkTensor(where, "gradOutput", gradOutput, `[${query.shape.join(", ")}]`, likeQuery);
    checkOneOf(where, "gradOutput's dtype", gradOutput.dtype, ["f32"]);
    checkTensor(where, "query", query, this.gpu);
    if (context) checkTensor(where, "context", context, this.gpu);
    prepared?.check(where, this.gpu, shape, this.#blockTokens);
    const layer = { gpu: this.gpu, config: this.config, weights: this.#weights, programs: this.#programs, status: this.#status };
    return runBackward(where, layer, call, gradOutput);
  }

  #forward(where: string, call: Call): Tensor {
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
  encode(encoder: GPUCommandEncoder, options: HomForwardOptions & { readonly query: Tensor }): Tensor {
    const where = "HomLayer.encode";
    if (typeof encoder?.beginComputePass !== "function") throw typeError(where, "commandEncoder", "be a GPUCommandEncoder", encoder);
    const { query, ...rest } = checkObject(where, "options", options, ["query", ...OPTION_KEYS]) as unknown as typeof options;
    const call = this.#check(where, query, rest);
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
    const where = "HomLayer.plan";
    checkObject(where, "options", options, ["batch", "queryLength", "contextLength", "mask"]);
    const shape = checkShape(where, options);
    const { plan: mask } = resolveMask(where, options.mask, shape, this.#blockTokens);
    const { steps, scratch, flops } = planHom(this.config, this.gpu.tuning, this.gpu.limits, { ...shape, mask, query: 0, context: 0, out: 0 });
    return {
      dispatches: steps.map(planned),
      flops,
      bytesRead: steps.reduce((sum, step) => sum + step.bytesRead, 0),
      bytesWritten: steps.reduce((sum, step) => sum + step.bytesWritten, 0),
      scratchBytes: [...scratch.values()].reduce((sum, bytes) => sum + bytes, 0),
    };
  }

  /** Uploads a mask once, for calls of these shapes by any layer of the same width and order. */
  createMask(mask: MaskSpec, options: Omit<HomPlanOptions, "mask">): HomMask {
    const where = "HomLayer.createMask";
    checkObject(where, "options", options, ["batch", "queryLength", "contextLength"]);
    const shape = checkShape(where, options);
    const resolved = resolveMask(where, mask, shape, this.#blockTokens);
    this.#checkUsable(where);
    return new HomMask(this.gpu, shape, resolved, this.#blockTokens);
  }

  /**
   * An empty memory of a stream of tokens, for `append`, `query` and `step`.
   * @param options.batch independent streams; default 1
   * @param options.window remember the last `window` tokens only; default all
   */
  createState(options: { readonly batch?: number; readonly window?: number | undefined } = {}): HomState {
    const where = "HomLayer.createState";
    checkObject(where, "options", options, ["batch", "window"]);
    const batch = checkInteger(where, "batch", options.batch ?? 1, 1, 65_535);
    const window = checkWindow(where, options.window);
    this.#checkUsable(where);
    const { dim, order, orderExpand, activation } = this.config;
    return new HomState(this.gpu, { dim, order, orderExpand, activation }, batch, window);
  }

  /** Adds context tokens `[B, n, D]` to the state: its sums grow by their moments, its counts by their number. */
  append(state: HomState, context: Tensor, options: AppendOptions = {}): void {
    const where = "HomLayer.append";
    this.#checkState(where, state);
    this.stream.append(where, state, context, options);
  }

  /** What query tokens `[B, T, D]` read from the state, `[B, T, D]`; the state stays as it is. A row that has seen nothing reads zeros. */
  query(state: HomState, query: Tensor, options: QueryOptions = {}): Tensor {
    const where = "HomLayer.query";
    this.#checkState(where, state);
    return this.stream.query(where, state, query, options);
  }

  /** Append and query of the same tokens `[B, n, D]`, causal inside the chunk: autoregressive decoding, at a cost that does not depend on the past. */
  step(state: HomState, tokens: Tensor, options: StepOptions = {}): Tensor {
    const where = "HomLayer.step";
    this.#checkState(where, state);
    return this.stream.step(where, state, tokens, options);
  }

  /** Frees the weights. Results already returned stay valid. */
  destroy(): void {
    if (this.#destroyed) return;
    this.#destroyed = true;
    this.#weights.projections.destroy();
    this.#weights.ag.destroy();
    this.#programs.destroy();
    this.stream.destroy();
  }

  [Symbol.dispose](): void {
    this.destroy();
  }

  #checkUsable(where: string): void {
    if (this.#destroyed) throw typeError(where, "layer", "be alive", raw("a destroyed layer"));
    this.gpu.checkUsable(where);
  }

  #checkState(where: string, state: HomState): void {
    this.#checkUsable(where);
    if (!(state instanceof HomState)) throw typeError(where, "state", "be a HomState", state, "make one with createState()");
  }

  #check(where: string, query: Tensor, options: HomForwardOptions): Call {
    checkObject(where, "options", options, OPTION_KEYS);
    this.#checkUsable(where);
    const { dim } = this.config;
    const { context = query, residual, out, queryMask } = options;
    this.#checkTensor(where, "query", query, `[B, T, ${dim}]`, (s) => s.length === 3 && s[2] === dim);
    const [batch = 0, queryLength = 0] = query.shape;
    this.#checkTensor(where, "context", context, `[${batch}, N, ${dim}]`, (s) => s.length === 3 && s[2] === dim && s[0] === batch);
    const contextLength = context.shape[1] ?? 0;
    const shape = { batch, queryLength, contextLength };
    const likeQuery = (s: readonly number[]) => s.length === 3 && s[0] === batch && s[1] === queryLength && s[2] === dim;
    if (residual) this.#checkTensor(where, "residual", residual, `[${query.shape.join(", ")}]`, likeQuery);
    if (out) this.#checkTensor(where, "out", out, `[${query.shape.join(", ")}]`, likeQuery);
    checkOutput(where, { query, context }, { out, residual }, this.config.dtype);
    const prepared = options.mask instanceof HomMask ? options.mask : undefined;
    prepared?.check(where, this.gpu, shape, this.#blockTokens);
    const resolved = prepared?.resolved ?? resolveMask(where, options.mask as MaskSpec | undefined, shape, this.#blockTokens);
    if (queryMask !== undefined) {
      if (!(queryMask instanceof Uint8Array)) throw typeError(where, "queryMask", "be a Uint8Array", queryMask);
      if (queryMask.length !== batch * queryLength) throw rangeError(where, "queryMask", `have ${batch * queryLength} elements`, queryMask);
      if (resolved.key !== "causal") throw typeError(where, "queryMask", 'come with mask "causal"', raw("another mask"));
    }
    return { query, context, residual, out, shape, resolved, prepared, queryMask: queryMask && Uint32Array.from(queryMask) };
  }

  #checkTensor(where: string, name: string, tensor: Tensor, wanted: string, fits: (shape: readonly number[]) => boolean): void {
    checkTensor(where, name, tensor, this.gpu);
    if (!fits(tensor.shape)) throw rangeError(where, name, `have shape ${wanted}`, tensor.shape);
  }

  /**
   * Records a checked call on bare buffers: how models chain layers in one pass. Returns what to free once it is submitted.
   * @internal
   */
  record(pass: GPUComputePassEncoder, call: HomRecord, lent = false): (() => void)[] {
    const { query, context, residual, out, shape, resolved, prepared, queryMask } = call;
    const homCall: HomCall = {
      ...shape,
      mask: resolved.plan,
      query: planOffset(query),
      context: planOffset(context),
      out: planOffset(out),
      residual: residual && planOffset(residual),
      queryMask: queryMask !== undefined,
      queryDtype: query.dtype ?? "f32",
      contextDtype: context.dtype ?? "f32",
      outDtype: out.dtype ?? "f32",
    };
    const { program, cached } = this.#program(homCall, resolved.key, lent);
    // A causal mask uploads nothing of its own.
    const arrays = queryMask ? { table: queryMask } : prepared ? {} : resolved.uploads;
    const uploads = uploadMask(this.gpu, arrays);
    program.record(pass, { query, context, out, residual, ...this.#weights, ...prepared?.buffers, ...uploads });
    return [...Object.values(uploads).map((buffer) => () => buffer.destroy()), ...(cached ? [] : [() => program.destroy()])];
  }

  #program(call: HomCall, maskKey: string | undefined, lent: boolean): { program: Program; cached: boolean } {
    const build = () => {
      const { steps, scratch } = planHom(this.config, this.gpu.tuning, this.gpu.limits, call);
      return new Program(this.gpu, steps, scratch);
    };
    if (maskKey === undefined) return { program: build(), cached: false };
    const { mask, ...rest } = call;
    const key = [maskKey, ...Object.values(rest)].join();
    return { program: this.#programs.get(key, lent, build), cached: true };
  }

  #allocate(where: string, { out, query }: Call): BufferView {
    const { dtype } = this.config;
    return out ?? { buffer: Tensor.allocate(where, this.gpu, "hom.output", query.shape, dtype), byteOffset: 0, dtype };
  }

  #output(call: Call, buffer: GPUBuffer, status: Promise<Error | undefined>): Tensor {
    const all = allOf([status, this.#status, call.query.status, call.context.status, call.residual?.status]);
    return call.out ? call.out.overwritten(all) : Tensor.adopt(this.gpu, buffer, call.query.shape, all, this.config.dtype);
  }

  /** Unmasked and causal calls on aligned tensors find their kernels compiled; others compile at their first use. */
  async #compile(): Promise<void> {
    const { config, gpu } = this;
    const masks = [{ kind: "none" }, { kind: "causal", ahead: 1 }] as const;
    // Few rows take a small tile, others the adapter's largest.
    const lengths = [1, TILES[gpu.tuning.tile].rows];
    const dtypes = { queryDtype: config.dtype, contextDtype: config.dtype, outDtype: config.dtype };
    const steps = lengths.flatMap((length) => {
      const call = { batch: 1, queryLength: length, contextLength: length, query: 0, context: 0, out: 0, ...dtypes };
      return masks.flatMap((mask) => planHom(config, gpu.tuning, gpu.limits, { ...call, mask }).steps);
    });
    await Promise.all([...steps.map(({ kernel, variant }) => this.gpu.prepare(kernel, variant)), this.stream.prepare()]);
  }
}

function checkShape(where: string, options: Omit<HomPlanOptions, "mask">): MaskShape {
  return {
    batch: checkInteger(where, "batch", options.batch, 1),
    queryLength: checkInteger(where, "queryLength", options.queryLength, 1),
    contextLength: checkInteger(where, "contextLength", options.contextLength ?? options.queryLength, 1),
  };
}
