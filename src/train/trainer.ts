import { checkInteger, checkObject, rangeError, raw, typeError } from "../checks.ts";
import { TrainingDivergedError } from "../errors.ts";
import { minimumScratch } from "../layers/hom_plan.ts";
import { Hlm } from "../models/hlm.ts";
import { checkHlmConfig, type HlmConfig, type HlmWeights, hlmParams } from "../models/hlm_weights.ts";
import { positionFeatures } from "../models/positions.ts";
import { adamwSettings, decayBits, SETTINGS_BYTES } from "../ops/adamw.ts";
import { packRowGroups } from "../ops/embed_backward.ts";
import { STATUS, STATUS_BYTES } from "../ops/types.ts";
import type { Gpu } from "../runtime/gpu.ts";
import { Program } from "../runtime/program.ts";
import { ProgramCache } from "../runtime/program_cache.ts";
import { Readback } from "../runtime/readback.ts";
import { checkGpu } from "../runtime/tensor.ts";
import { USAGE } from "../runtime/usage.ts";
import type { GPUBuffer } from "../webgpu.ts";
import { type TensorSource, Weights } from "../weights/safetensors.ts";
import { type ArenaLayout, type ArenaTensor, arenaLayout, arenaShapes, decayedRanges, initialParams, packArena, unpackArena } from "./arena.ts";
import { type CheckedTokens, checkTokens, type MicroBatch, microBatch } from "./inputs.ts";
import { checkTrainerOptions, type TrainerOptions, type TrainerSettings } from "./options.ts";
import { type ArenaName, constantsOf, readTrainerState, type TrainerState, writeTrainerState } from "./save.ts";
import { checkRate } from "./schedule.ts";
import {
  DECAYS,
  decayTables,
  FIRST,
  GRADIENTS,
  type PlannedModel,
  planEvaluation,
  planMicroBatch,
  planUpdate,
  SECOND,
  type StepPlan,
  type StepShape,
  WEIGHTS,
} from "./step_plan.ts";
import type { TokenBatch } from "./text.ts";

/** Options of {@link HlmTrainer.step}. */
export interface StepOptions {
  /** Rows of `tokens`. Default 1. */
  readonly batch?: number;
  /** Learning rate of this step. Default: the trainer's. */
  readonly lr?: number;
  /** Micro-batches of batch / accumulate rows, whose gradients are added: less memory, the same step. Default 1. */
  readonly accumulate?: number;
  /** Position of the first token: one for all, or one a row. Default 0. */
  readonly posOffset?: number | Int32Array;
}

/** What a step tells of itself. */
export interface StepResult {
  /** Mean cross-entropy of the batch, in nats, before the step. */
  readonly loss: number;
  /** L2 norm of all gradients, before clipping. */
  readonly gradNorm: number;
}

/** Options of {@link HlmTrainer.evaluate}. */
export interface EvaluateOptions {
  /** Rows, where tokens are given. Default 1. */
  readonly batch?: number;
  readonly posOffset?: number | Int32Array;
  /** Stops between two batches, with the signal's reason. */
  readonly signal?: AbortSignal | undefined;
}

/** What an evaluation found. */
export interface EvaluationResult {
  /** Mean cross-entropy, in nats. */
  readonly loss: number;
  /** Predictions that it is the mean of. */
  readonly tokens: number;
}

/** A trained model's tensors under their checkpoint names, in the checkpoint's layout. */
export type ExportedWeights = Record<string, Required<TensorSource> & { readonly data: Float32Array<ArrayBuffer> }>;

/** Batches that may be evaluated before the first of them has been read back. */
const EVALUATIONS_IN_FLIGHT = 4;
const KEPT_PROGRAMS = 8;

/** Buffers of one layout: weights, gradients, and the optimiser's moments. */
interface Arenas {
  readonly weights: GPUBuffer;
  readonly gradients: GPUBuffer;
  readonly first: GPUBuffer;
  readonly second: GPUBuffer;
}

/** What a step or an evaluation needs besides the weights; as large as the largest so far. */
interface Workspace {
  readonly buffers: Map<string, GPUBuffer>;
  /** The positions whose features have been uploaded. */
  positions: readonly number[];
}

/**
 * Trains an HoM language model on next-token prediction, on the GPU: forward, loss, backward, clipping by global norm and AdamW, one submit a
 * micro-batch. Nothing is waited for: several steps may be under way, and each resolves with its loss when it is done.
 *
 * A step whose loss or gradient is not finite rejects with {@link TrainingDivergedError} and changes no weight; those behind it do nothing either, until
 * {@link HlmTrainer.recover}.
 *
 * @example
 * const trainer = await HlmTrainer.create(gpu, config, { seed: 1 }, { lr: 1e-3 });
 * const { loss } = await trainer.step(tokens, { batch: 12 });
 * const weights = await trainer.exportWeights();
 */
export class HlmTrainer {
  readonly gpu: Gpu;
  readonly config: HlmConfig;
  readonly settings: TrainerSettings;
  /** What was passed to the `save` that this trainer was resumed from. */
  readonly metadata: Readonly<Record<string, string>>;
  readonly #layout: ArenaLayout;
  readonly #constants: TrainerState["constants"];
  readonly #decays: GPUBuffer | undefined;
  readonly #model: PlannedModel;
  readonly #arenas: Arenas;
  readonly #status: GPUBuffer;
  readonly #evaluated: GPUBuffer;
  readonly #optimiser: GPUBuffer;
  readonly #decay: GPUBuffer;
  readonly #update: Program;
  readonly #programs = new ProgramCache(KEPT_PROGRAMS);
  /** Of every program so far: sizes of the buffers that it needs. */
  readonly #kept = new Map<string, StepPlan["kept"]>();
  readonly #readback: Readback;
  #workspace: Workspace = { buffers: new Map(), positions: [] };
  /** Steps submitted, less those that turned out not to have happened. */
  #steps: number;
  readonly #pending = new Set<Promise<unknown>>();
  #diverged: TrainingDivergedError | undefined;
  #destroyed = false;

  private constructor(gpu: Gpu, state: TrainerState, layout: ArenaLayout) {
    const { config, settings } = state;
    this.gpu = gpu;
    this.config = Object.freeze({ ...config });
    this.settings = settings;
    this.metadata = Object.freeze({ ...state.metadata });
    this.#layout = layout;
    this.#constants = state.constants;
    this.#decays = config.decay ? gpu.upload("hom.trainer.decays", decayTables(config, state.constants)) : undefined;
    this.#steps = state.steps;
    this.#model = { config, layout, tuning: gpu.tuning, limits: gpu.limits, scratchBudget: settings.scratchBudget };
    const storage = USAGE.STORAGE | USAGE.COPY_SRC | USAGE.COPY_DST;
    const empty = (label: string, size: number) => gpu.createBuffer(`hom.trainer.${label}`, size, storage);
    const arena = (name: ArenaName) =>
      state.arenas[name].length === 0 ? empty(name, layout.size) : gpu.upload(`hom.trainer.${name}`, state.arenas[name]);
    this.#arenas = { weights: arena("weights"), gradients: empty("gradients", layout.size), first: arena("first"), second: arena("second") };
    this.#status = empty("status", STATUS_BYTES);
    this.#evaluated = empty("evaluated", STATUS_BYTES);
    this.#optimiser = empty("settings", SETTINGS_BYTES);
    this.#decay = gpu.upload("hom.trainer.decayed", decayBits(decayedRanges(layout), layout.size / 4));
    const update = planUpdate(this.#model);
    this.#update = new Program(gpu, update.steps, update.scratch);
    this.#readback = new Readback(gpu, "trainer", STATUS_BYTES);
  }

  /**
   * Uploads a checkpoint (original key names), or draws weights from a seed as the original does, and compiles the kernels.
   * @param options.lr and the other settings of AdamW, clipping and scratch memory
   * @throws TypeError, RangeError for config and options, WeightsError for the checkpoint, GpuLostError, GpuOutOfMemoryError
   */
  static async create(
    gpu: Gpu,
    config: HlmConfig,
    weights: HlmWeights | { readonly seed: number },
    options: TrainerOptions = {},
  ): Promise<HlmTrainer> {
    const where = "HlmTrainer.create";
    checkGpu(where, gpu);
    checkHlmConfig(where, config);
    const settings = checkTrainerOptions(where, options);
    gpu.checkUsable(where);
    const seed = seedOf(weights);
    const params =
      seed === undefined ? hlmParams(where, config, weights as HlmWeights) : initialParams(config, checkInteger(where, "seed", seed, 0, 0xffffffff));
    const arenas = { weights: packArena(arenaLayout(config), params), first: new Float32Array(), second: new Float32Array() };
    return HlmTrainer.#open(where, gpu, { config, settings, steps: 0, constants: constantsOf(config, params), arenas, metadata: {} });
  }

  /**
   * Goes on where `save` was called, bit for bit on the same adapter.
   * @param options settings to change; the others stay as they were
   * @throws TypeError, RangeError for options, WeightsError for the file, GpuLostError, GpuOutOfMemoryError
   */
  static async resume(gpu: Gpu, bytes: ArrayBuffer | Uint8Array, options: TrainerOptions = {}): Promise<HlmTrainer> {
    const where = "HlmTrainer.resume";
    checkGpu(where, gpu);
    checkTrainerOptions(where, options);
    gpu.checkUsable(where);
    const state = readTrainerState(where, bytes);
    return HlmTrainer.#open(where, gpu, { ...state, settings: checkTrainerOptions(where, { ...state.settings, ...options }) });
  }

  static async #open(where: string, gpu: Gpu, state: TrainerState): Promise<HlmTrainer> {
    const layout = arenaLayout(state.config);
    checkLimits(where, gpu, state, layout);
    const { result: trainer, status } = gpu.guard(where, () => new HlmTrainer(gpu, state, layout));
    try {
      const failure = await status;
      if (failure) throw failure;
      await trainer.#compile();
    } catch (error) {
      trainer.destroy();
      throw error;
    }
    return trainer;
  }

  /** Optimiser steps done or under way. */
  get steps(): number {
    return this.#steps;
  }

  /** Trained numbers. */
  get parameters(): number {
    return Object.values(arenaShapes(this.#layout)).reduce((sum, shape) => sum + shape.reduce((a, b) => a * b, 1), 0);
  }

  /** GPU memory of this object: weights, gradients, moments, and the workspace of the largest step so far. Scratch memory is the `Gpu`'s. */
  get bytes(): number {
    const buffers = [...Object.values(this.#arenas), ...this.#workspace.buffers.values()] as GPUBuffer[];
    return buffers.reduce((sum, buffer) => sum + buffer.size, 0);
  }

  /**
   * One optimiser step on the mean loss of tokens `[B·(n+1)]`: of a row the first n are inputs, the last n what follows them. It is submitted
   * before this returns; the promise resolves when it is done. Steps are done in the order of the calls.
   * @throws TypeError, RangeError for arguments, TrainingDivergedError, GpuLostError, GpuOutOfMemoryError; the weights are as they were then
   */
  step(tokens: Int32Array, options: StepOptions = {}): Promise<StepResult> {
    let result: Promise<StepResult>;
    try {
      result = this.#submit("HlmTrainer.step", tokens, options);
    } catch (error) {
      return Promise.reject(error);
    }
    // Of several steps under way, the caller learns of the first that failed; the others need no handler of their own.
    result.catch(() => {});
    return result;
  }

  /**
   * Mean loss of batches, without a step. Batches are computed with the weights at the time when each is submitted: steps should not be
   * submitted meanwhile.
   * @param tokens `[B·(n+1)]`, or several batches such as those of `evaluationBatches`
   */
  async evaluate(tokens: Int32Array | Iterable<TokenBatch>, options: EvaluateOptions = {}): Promise<EvaluationResult> {
    const where = "HlmTrainer.evaluate";
    checkObject(where, "options", options, ["batch", "posOffset", "signal"]);
    this.#checkUsable(where);
    const { batch, posOffset = 0, signal } = options;
    if (typeof tokens !== "object" || tokens === null || !(Symbol.iterator in tokens)) {
      throw typeError(where, "tokens", "be an Int32Array or batches of { tokens, batch }", tokens);
    }
    const single = ArrayBuffer.isView(tokens);
    if (!single && batch !== undefined) throw typeError(where, "batch", "be left to the batches", batch);
    const batches = single ? [{ tokens, batch: batch ?? 1 }] : (tokens as Iterable<TokenBatch>);
    signal?.throwIfAborted();
    const pending: Promise<EvaluationResult>[] = [];
    let loss = 0;
    let count = 0;
    const settle = async () => {
      const result = await pending.shift();
      loss += (result?.loss ?? 0) * (result?.tokens ?? 0);
      count += result?.tokens ?? 0;
    };
    try {
      for (const each of batches) {
        if (typeof each !== "object" || each === null) throw typeError(where, "tokens", "be an Int32Array or batches of { tokens, batch }", each);
        const checked = this.#check(where, each.tokens, each.batch, posOffset);
        while (pending.length >= EVALUATIONS_IN_FLIGHT) await settle();
        signal?.throwIfAborted();
        this.#checkUsable(where);
        pending.push(this.#submitEvaluation(where, checked));
      }
      while (pending.length > 0) await settle();
    } catch (error) {
      await Promise.allSettled(pending);
      throw error;
    }
    if (count === 0) throw rangeError(where, "tokens", "have at least one batch", raw("none"));
    return { loss: loss / count, tokens: count };
  }

  /** The weights after all steps submitted so far, under their checkpoint names: for `writeSafetensors`, or `Hlm.create`. */
  async exportWeights(): Promise<ExportedWeights> {
    const where = "HlmTrainer.exportWeights";
    this.#checkUsable(where);
    const arena = await this.#read(where, "weights");
    const constants = Object.entries(this.#constants).map(([key, data]) => [key, { shape: [data.length], data: data.slice() }] as const);
    const tensors = { ...unpackArena(this.#layout, arena), ...Object.fromEntries(constants) };
    return Object.fromEntries(Object.entries(tensors).map(([key, tensor]) => [key, { dtype: "F32", ...tensor }]));
  }

  /** Gradients of the last step submitted, not clipped, under the checkpoint names. @internal */
  async readGradients(): Promise<Record<string, ArenaTensor>> {
    const where = "HlmTrainer.readGradients";
    this.#checkUsable(where);
    return unpackArena(this.#layout, new Float32Array(await this.gpu.readBytes(where, this.#arenas.gradients, 0, this.#layout.size)));
  }

  /** A model with the weights after all steps submitted so far, to generate with; the caller destroys it. */
  async model(): Promise<Hlm> {
    return Hlm.create(this.gpu, this.config, await this.exportWeights());
  }

  /**
   * All that `resume` needs, after all steps submitted so far: weights, moments, settings, the number of steps. The file is a checkpoint at the same time.
   * @param metadata strings to go with it: a vocabulary, the state of a `BatchSampler`
   */
  async save(metadata: Readonly<Record<string, string>> = {}): Promise<Uint8Array<ArrayBuffer>> {
    const where = "HlmTrainer.save";
    checkObject(where, "metadata", metadata, Object.keys(metadata ?? {}));
    this.#checkUsable(where);
    // The copies are submitted here; which of the steps before them have happened is known when these have been read back.
    const submitted = this.#steps;
    const before = Promise.allSettled(this.#pending);
    const copies = (["weights", "first", "second"] as const).map(async (name) => [name, await this.#read(where, name)] as const);
    const [read, results] = await Promise.all([Promise.all(copies), before]);
    return writeTrainerState({
      config: this.config,
      settings: this.settings,
      steps: submitted - results.filter(({ status }) => status === "rejected").length,
      constants: this.#constants,
      arenas: Object.fromEntries(read) as TrainerState["arenas"],
      metadata,
    });
  }

  /** After a step has diverged, and all behind it have been waited for: lets the next step start from the weights before it. */
  async recover(): Promise<void> {
    const where = "HlmTrainer.recover";
    this.#checkUsable(where);
    await Promise.allSettled(this.#pending);
    this.#checkUsable(where);
    this.gpu.device.queue.writeBuffer(this.#status, 0, new Uint32Array(STATUS_BYTES / 4));
    this.#diverged = undefined;
  }

  /** Frees everything on the GPU. Steps that were submitted still end. */
  destroy(): void {
    if (this.#destroyed) return;
    this.#destroyed = true;
    const own = [...Object.values(this.#arenas), this.#status, this.#evaluated, this.#optimiser, this.#decay, ...this.#workspace.buffers.values()];
    this.#decays?.destroy();
    for (const part of [...own, this.#update, this.#programs, this.#readback]) part.destroy();
  }

  [Symbol.dispose](): void {
    this.destroy();
  }

  #submit(where: string, tokens: Int32Array, options: StepOptions): Promise<StepResult> {
    checkObject(where, "options", options, ["batch", "lr", "accumulate", "posOffset"]);
    this.#checkUsable(where);
    if (this.#diverged) throw this.#diverged;
    const { batch = 1, lr = this.settings.lr, accumulate = 1, posOffset = 0 } = options;
    const checked = this.#check(where, tokens, batch, posOffset, accumulate);
    checkRate(where, "lr", lr);
    const { betas, eps, weightDecay, clipNorm } = this.settings;
    const step = this.#steps + 1;
    const rows = checked.batch / accumulate;
    const micros = Array.from({ length: accumulate }, (_, i) => microBatch(checked, i * rows, rows, this.config));
    const { queue } = this.gpu.device;
    const { result: read, status } = this.gpu.guard(where, () => {
      queue.writeBuffer(this.#optimiser, 0, adamwSettings({ lr, betas, eps, weightDecay, clipNorm, step }));
      let read: ((where: string) => Promise<ArrayBuffer>) | undefined;
      for (const [i, micro] of micros.entries()) {
        const { program, buffers } = this.#prepare(micro, "step", checked.batch * checked.length);
        const encoder = this.gpu.device.createCommandEncoder({ label: "hom.trainer_step.encoder" });
        if (i === 0) {
          encoder.clearBuffer(this.#arenas.gradients);
          encoder.clearBuffer(this.#status, STATUS.loss * 4, 4);
        }
        // Positions that fill the list up have no token that sets their row.
        if (buffers["dpositions"]) encoder.clearBuffer(buffers["dpositions"]);
        const pass = encoder.beginComputePass({ label: "hom.trainer_step.pass" });
        program.record(pass, { ...buffers, ...this.#bound, status: this.#status });
        if (i === micros.length - 1)
          this.#update.record(pass, { ...this.#bound, status: this.#status, settings: this.#optimiser, decayed: this.#decay });
        pass.end();
        if (i === micros.length - 1) read = this.#readback.record(encoder, this.#status, "the loss");
        queue.submit([encoder.finish({ label: "hom.trainer_step.commands" })]);
      }
      return read;
    });
    this.#steps = step;
    const result = this.#finish(where, step, status, read);
    this.#pending.add(result);
    const forget = () => this.#pending.delete(result);
    result.then(forget, forget);
    return result;
  }

  async #finish(
    where: string,
    step: number,
    status: Promise<Error | undefined>,
    read: ((where: string) => Promise<ArrayBuffer>) | undefined,
  ): Promise<StepResult> {
    const [refused, bytes] = await Promise.all([status, read?.(where).catch((error: Error) => error)]);
    if (refused) {
      // Nothing of it was done.
      this.#steps--;
      this.#dropWorkspace();
      throw refused;
    }
    if (!bytes || bytes instanceof Error) throw bytes ?? new Error(`${where}: nothing was read`);
    const numbers = new Float32Array(bytes);
    const flags = new Uint32Array(bytes);
    const { loss = 0, gradNorm = 0 } = { loss: numbers[STATUS.loss], gradNorm: numbers[STATUS.norm] };
    if (flags[STATUS.halted] === 0) return { loss, gradNorm };
    this.#steps--;
    this.#diverged ??= new TrainingDivergedError(
      `${where}: loss and gradients must stay finite, got a loss of ${loss} and a gradient norm of ${gradNorm} in step ${step}; ` +
        "the weights are those before it: call recover() and use a lower learning rate, or a longer warm-up",
    );
    throw this.#diverged;
  }

  async #submitEvaluation(where: string, checked: CheckedTokens): Promise<EvaluationResult> {
    const tokens = checked.batch * checked.length;
    const micro = microBatch(checked, 0, checked.batch, this.config);
    const { result: read, status } = this.gpu.guard(where, () => {
      const { program, buffers } = this.#prepare(micro, "evaluation", tokens);
      const encoder = this.gpu.device.createCommandEncoder({ label: "hom.trainer_evaluate.encoder" });
      encoder.clearBuffer(this.#evaluated);
      const pass = encoder.beginComputePass({ label: "hom.trainer_evaluate.pass" });
      program.record(pass, { ...buffers, ...this.#bound, status: this.#evaluated });
      pass.end();
      const read = this.#readback.record(encoder, this.#evaluated, "the loss");
      this.gpu.device.queue.submit([encoder.finish({ label: "hom.trainer_evaluate.commands" })]);
      return read;
    });
    const [refused, bytes] = await Promise.all([status, read(where).catch((error: Error) => error)]);
    if (refused) {
      this.#dropWorkspace();
      throw refused;
    }
    if (bytes instanceof Error) throw bytes;
    return { loss: new Float32Array(bytes)[STATUS.loss] ?? 0, tokens };
  }

  /** The program of a micro-batch, and its buffers with the micro-batch in them. */
  #prepare(micro: MicroBatch, kind: "step" | "evaluation", rowsOfLoss: number) {
    const { batch, length, positions } = micro;
    const { program, kept } = this.#program(kind, { batch, length, positions: positions.length });
    const buffers: Record<string, GPUBuffer> = {};
    for (const [role, bytes] of kept) buffers[role] = this.#buffer(role, bytes);
    const upload = (role: string, data: Uint32Array<ArrayBuffer> | Float32Array<ArrayBuffer>) => {
      buffers[role] = this.#buffer(role, data.byteLength);
      this.gpu.device.queue.writeBuffer(buffers[role], 0, data);
    };
    upload("ids", micro.ids);
    upload("targets", micro.targets);
    upload("position_rows", micro.positionRows);
    upload("loss_weight", Float32Array.of(1 / rowsOfLoss));
    if (kind === "step") {
      upload("id_groups", packRowGroups(micro.idGroups, this.config.vocabSize));
      upload("position_groups", packRowGroups(micro.positionGroups, positions.length));
    }
    const workspace = this.#workspace;
    const features = this.#buffer("features", positions.length * this.config.dim * 4);
    if (buffers["features"] !== features || !sameNumbers(workspace.positions, positions)) {
      this.gpu.device.queue.writeBuffer(features, 0, positionFeatures(this.#constants["freqs"] ?? new Float32Array(), positions));
      workspace.positions = positions;
    }
    buffers["features"] = features;
    return { program, buffers };
  }

  #program(kind: "step" | "evaluation", shape: StepShape): { program: Program; kept: StepPlan["kept"] } {
    const key = [kind, ...Object.values(shape)].join();
    const plan = () => (kind === "step" ? planMicroBatch : planEvaluation)(this.#model, shape);
    const program = this.#programs.get(key, false, () => {
      const { steps, scratch, kept } = plan();
      this.#kept.set(key, kept);
      return new Program(this.gpu, steps, scratch);
    });
    return { program, kept: this.#kept.get(key) ?? plan().kept };
  }

  #check(where: string, tokens: unknown, batch: unknown, posOffset: unknown, accumulate: unknown = 1): CheckedTokens {
    const checked = checkTokens(where, tokens, batch, posOffset, this.config);
    const parts = checkInteger(where, "accumulate", accumulate, 1, checked.batch);
    if (checked.batch % parts !== 0) throw rangeError(where, "accumulate", `divide the batch of ${checked.batch} rows`, parts);
    const bytes = (checked.batch / parts) * checked.length * this.config.dim * 4;
    const most = Math.min(this.gpu.limits.maxStorageBufferBindingSize, this.gpu.limits.maxBufferSize);
    if (bytes > most) {
      const hint = "use a smaller batch, or accumulate";
      throw rangeError(where, "tokens", `have activations that the device can bind, at most ${most} bytes`, raw(`${bytes} bytes`), hint);
    }
    return checked;
  }

  /** The arenas by the names that plans know them by. */
  get #bound(): Record<string, GPUBuffer> {
    const { weights, gradients, first, second } = this.#arenas;
    const decays = this.#decays && { [DECAYS]: this.#decays };
    return { [WEIGHTS]: weights, [GRADIENTS]: gradients, [FIRST]: first, [SECOND]: second, ...decays };
  }

  #checkUsable(where: string): void {
    if (this.#destroyed) throw typeError(where, "trainer", "be alive", raw("a destroyed trainer"));
    this.gpu.checkUsable(where);
  }

  async #read(where: string, name: ArenaName): Promise<Float32Array<ArrayBuffer>> {
    return new Float32Array(await this.gpu.readBytes(where, this.#arenas[name], 0, this.#layout.size));
  }

  /** Steps of a usual size find their kernels compiled; what other sizes use is compiled when it is first used. */
  async #compile(): Promise<void> {
    const { contextLength } = this.config;
    const length = Math.min(contextLength, 64);
    const shape = { batch: Math.ceil(64 / length), length, positions: length };
    const steps = [...planMicroBatch(this.#model, shape).steps, ...planEvaluation(this.#model, shape).steps, ...this.#update.steps];
    await Promise.all(steps.map(({ kernel, variant }) => this.gpu.prepare(kernel, variant)));
  }

  /** A buffer of this role with room for so many bytes; a larger one takes the place of a smaller. */
  #buffer(role: string, bytes: number): GPUBuffer {
    const { buffers } = this.#workspace;
    const kept = buffers.get(role);
    const size = Math.max(16, Math.ceil(bytes / 16) * 16);
    if (kept && kept.size >= size) return kept;
    // Work that was submitted with it still ends.
    kept?.destroy();
    const made = this.gpu.createBuffer(`hom.trainer.${role}`, size, USAGE.STORAGE | USAGE.COPY_SRC | USAGE.COPY_DST);
    buffers.set(role, made);
    return made;
  }

  /** After a failed allocation: what was made may not exist. */
  #dropWorkspace(): void {
    for (const buffer of this.#workspace.buffers.values()) buffer.destroy();
    this.#workspace = { buffers: new Map(), positions: [] };
  }
}

/** The seed, where one was given in the place of weights. */
function seedOf(weights: unknown): number | undefined {
  if (typeof weights !== "object" || weights === null || weights instanceof Weights) return undefined;
  const [key, ...more] = Object.keys(weights);
  return key === "seed" && more.length === 0 ? (weights as { seed: number }).seed : undefined;
}

function sameNumbers(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((value, i) => value === b[i]);
}

/** @throws RangeError where the device cannot hold the model, or the scratch budget not a slab */
function checkLimits(where: string, gpu: Gpu, { config, settings }: TrainerState, layout: ArenaLayout): void {
  const { maxBufferSize, maxStorageBufferBindingSize } = gpu.limits;
  const hint = "use a smaller model, or another device";
  if (layout.size > maxBufferSize) {
    throw rangeError(
      where,
      "config",
      `give weights that fit in one buffer of the device, at most ${maxBufferSize} bytes`,
      raw(`${layout.size} bytes`),
      hint,
    );
  }
  const largest = Math.max(...layout.matrices.map(({ size }) => size));
  if (largest > maxStorageBufferBindingSize) {
    throw rangeError(
      where,
      "config",
      `give matrices that the device can bind, at most ${maxStorageBufferBindingSize} bytes`,
      raw(`${largest} bytes`),
      hint,
    );
  }
  const needed = minimumScratch({ ...config, decay: config.decay ?? false, activation: "gelu", scratchBudget: settings.scratchBudget }, gpu.tuning);
  if (settings.scratchBudget < needed) {
    throw rangeError(where, "scratchBudget", `be at least ${needed} bytes for this width and order`, settings.scratchBudget);
  }
}
