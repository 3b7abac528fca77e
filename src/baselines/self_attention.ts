import { checkInteger, checkObject, checkOneOf, rangeError, raw, typeError } from "../checks.ts";
import type { CheckedCall } from "../layers/moment_layer.ts";
import { packLinear } from "../layers/params.ts";
import { checkOutput, checkTensor } from "../layers/tensor_checks.ts";
import { type HomTrainingPass, type Training, trainingPass } from "../layers/training.ts";
import type { Gpu } from "../runtime/gpu.ts";
import { type PlannedDispatch, planned, TILES } from "../runtime/kernel.ts";
import { Program, planOffset } from "../runtime/program.ts";
import { ProgramCache } from "../runtime/program_cache.ts";
import { allOf, Tensor } from "../runtime/tensor.ts";
import type { GPUBuffer } from "../webgpu.ts";
import type { BaselineCall, BaselinePlan } from "./attention_plan.ts";
import type { AttentionConfig, BaselineParams } from "./config.ts";

/** Options of `forward` and `encode` of a baseline. */
export interface BaselineForwardOptions {
  /** Whether row t sees tokens 0 to t only. Default false: every token sees all tokens of its batch row. */
  readonly causal?: boolean | undefined;
  /** `[B, N, D]`, written instead of a new tensor; not the memory of x. */
  readonly out?: Tensor | undefined;
}

/** Options of `forwardForTraining` of a baseline. */
export interface BaselineTrainingOptions extends Pick<BaselineForwardOptions, "causal"> {}

/** The call that a baseline's `plan` looks at. */
export interface BaselinePlanOptions {
  readonly batch: number;
  /** N */
  readonly length: number;
  readonly causal?: boolean | undefined;
}

/** What a call would do, without doing it. */
export interface BaselinePlanReport {
  readonly dispatches: readonly PlannedDispatch[];
  /** Of the formula, multiply-adds counting 2: see {@link flops}. */
  readonly flops: number;
  /** Each dispatch's inputs counted once. */
  readonly bytesRead: number;
  readonly bytesWritten: number;
  /** Scratch memory of the call, at most the layer's `scratchBudget`. */
  readonly scratchBytes: number;
}

/** What tells one kind of self-attention from another. */
export interface Mixing {
  /** The class's name, for messages. */
  readonly name: string;
  readonly dim: number;
  plan(call: BaselineCall): BaselinePlan;
  flops(shape: { readonly batch: number; readonly length: number; readonly causal: boolean }): number;
}

const KEPT_PROGRAMS = 16;

/** What all baselines are made of: weights on the GPU, dispatches by plan, one call. */
export class SelfAttention {
  readonly #gpu: Gpu;
  readonly #mixing: Mixing;
  readonly #weights: Readonly<Record<string, GPUBuffer>>;
  readonly #status: Promise<Error | undefined>;
  readonly #programs = new ProgramCache(KEPT_PROGRAMS);
  #destroyed = false;

  private constructor(gpu: Gpu, mixing: Mixing, weights: Readonly<Record<string, GPUBuffer>>, status: Promise<Error | undefined>) {
    this.#gpu = gpu;
    this.#mixing = mixing;
    this.#weights = weights;
    this.#status = status;
  }

  /** Uploads and compiles. */
  static async create(gpu: Gpu, mixing: Mixing, data: Readonly<Record<string, Float32Array | Uint32Array>>): Promise<SelfAttention> {
    gpu.checkUsable(`${mixing.name}.create`);
    const { result, status } = gpu.guard(`${mixing.name}.create`, () =>
      Object.fromEntries(Object.entries(data).map(([name, values]) => [name, gpu.upload(`hom.baselines.${name}`, values)])),
    );
    const made = new SelfAttention(gpu, mixing, result, status);
    try {
      const failure = await status;
      if (failure) throw failure;
      await made.#compile();
    } catch (error) {
      made.destroy();
      throw error;
    }
    return made;
  }

  get weightBytes(): number {
    return Object.values(this.#weights).reduce((sum, { size }) => sum + size, 0);
  }

  forward(x: Tensor, options: BaselineForwardOptions): Tensor {
    const where = `${this.#mixing.name}.forward`;
    checkObject(where, "options", options, ["causal", "out"]);
    const causal = this.#check(where, x, options);
    const { out } = options;
    if (out) {
      checkTensor(where, "out", out, this.#gpu);
      checkOneOf(where, "out's dtype", out.dtype, ["f32"]);
      if (out.shape.join() !== x.shape.join()) throw rangeError(where, "out", `have shape [${x.shape.join(", ")}]`, out.shape);
    }
    checkOutput(where, { x }, { out, residual: undefined }, "f32");
    return this.#run(where, x, causal, out);
  }

  /** @param training the backward pass of this kind of attention */
  forwardForTraining(x: Tensor, options: BaselineTrainingOptions, training: Training): HomTrainingPass {
    const { name } = this.#mixing;
    const layer = {
      ...training,
      name,
      gpu: this.#gpu,
      dtypes: { dtype: "f32", weightDtype: "f32" },
      weights: this.#weights,
      programs: this.#programs,
      status: this.#status,
      checkUsable: (where: string) => this.#checkUsable(where),
      checkMask: () => {},
      run: (where: string, { query, resolved }: CheckedCall) => this.#run(where, query, resolved.plan.kind === "causal", undefined),
    } as const;
    return trainingPass<BaselineTrainingOptions & { readonly context?: undefined }>(layer, options, ["causal"], (where) => {
      const causal = this.#check(where, x, options);
      const [batch = 0, length = 0] = x.shape;
      return {
        query: x,
        context: x,
        residual: undefined,
        out: undefined,
        shape: { batch, queryLength: length, contextLength: length },
        resolved: { plan: causal ? { kind: "causal", ahead: 1 } : { kind: "none" }, uploads: {}, key: `${causal}` },
      };
    });
  }

  plan(options: BaselinePlanOptions): BaselinePlanReport {
    const where = `${this.#mixing.name}.plan`;
    checkObject(where, "options", options, ["batch", "length", "causal"]);
    const { causal = false } = options;
    const batch = checkInteger(where, "batch", options.batch, 1);
    const length = checkInteger(where, "length", options.length, 1);
    if (typeof causal !== "boolean") throw typeError(where, "causal", "be true or false", causal);
    const { steps, scratch } = this.#mixing.plan({ batch, length, causal, x: 0, out: 0 });
    return {
      dispatches: steps.map(planned),
      flops: this.#mixing.flops({ batch, length, causal }),
      bytesRead: steps.reduce((sum, step) => sum + step.bytesRead, 0),
      bytesWritten: steps.reduce((sum, step) => sum + step.bytesWritten, 0),
      scratchBytes: [...scratch.values()].reduce((sum, bytes) => sum + bytes, 0),
    };
  }

  destroy(): void {
    if (this.#destroyed) return;
    this.#destroyed = true;
    for (const buffer of Object.values(this.#weights)) buffer.destroy();
    this.#programs.destroy();
  }

  /** Whether the call is causal. @throws TypeError, RangeError, GpuLostError */
  #check(where: string, x: Tensor, { causal = false }: BaselineTrainingOptions): boolean {
    const { dim } = this.#mixing;
    this.#checkUsable(where);
    if (typeof causal !== "boolean") throw typeError(where, "causal", "be true or false", causal);
    checkTensor(where, "x", x, this.#gpu);
    checkOneOf(where, "x's dtype", x.dtype, ["f32"]);
    if (x.shape.length !== 3 || x.shape[2] !== dim) throw rangeError(where, "x", `have shape [B, N, ${dim}]`, x.shape);
    return causal;
  }

  #run(where: string, x: Tensor, causal: boolean, out: Tensor | undefined): Tensor {
    const [batch = 0, length = 0] = x.shape;
    const { result, status } = this.#gpu.guard(where, () => {
      const view = out ?? { buffer: Tensor.allocate(where, this.#gpu, "hom.output", x.shape), byteOffset: 0 };
      try {
        const call = { batch, length, causal, x: planOffset(x), out: planOffset(view) };
        const program = this.#programs.get(Object.values(call).join(), false, () => {
          const { steps, scratch } = this.#mixing.plan(call);
          return new Program(this.#gpu, steps, scratch);
        });
        this.#gpu.submit("baseline", (pass) => program.record(pass, { query: x, out: view, ...this.#weights }));
      } catch (error) {
        if (!out) view.buffer.destroy();
        throw error;
      }
      return view.buffer;
    });
    const all = allOf([status, this.#status, x.status]);
    return out ? out.overwritten(all) : Tensor.adopt(this.#gpu, result, x.shape, all);
  }

  #checkUsable(where: string): void {
    if (this.#destroyed) throw typeError(where, "layer", "be alive", raw("a destroyed layer"));
    this.#gpu.checkUsable(where);
  }

  /** Calls on aligned tensors find their kernels compiled. */
  async #compile(): Promise<void> {
    const lengths = [1, TILES[this.#gpu.tuning.tile].rows];
    const steps = lengths.flatMap((length) => [false, true].flatMap((causal) => this.#mixing.plan({ batch: 1, length, causal, x: 0, out: 0 }).steps));
    await Promise.all(steps.map(({ kernel, variant }) => this.#gpu.prepare(kernel, variant)));
  }
}

/**
 * The four projections as the kernels read them: each head's channels padded to a multiple of 4, keys and values side by side.
 * @param queryScale multiplies the queries
 */
export function packProjections({ dim, heads }: Required<AttentionConfig>, params: BaselineParams, queryScale: number): Record<string, Float32Array> {
  const perHead = { count: heads, width: dim / heads };
  const model = { count: 1, width: dim };
  const side = (name: string, scale = 1) => {
    const [weight = new Float32Array(), bias] = [params[`${name}.weight`], params[`${name}.bias`]];
    const scaled = (values: Float32Array | Int32Array) => (scale === 1 ? values : Float32Array.from(values, (value) => value * scale));
    return { weight: scaled(weight), bias: bias && scaled(bias), outer: perHead };
  };
  return {
    q: packLinear([side("q_proj", queryScale)], model),
    kv: packLinear([side("k_proj"), side("v_proj")], model),
    projection: packLinear([{ ...side("out_proj"), outer: model }], perHead),
  };
}
