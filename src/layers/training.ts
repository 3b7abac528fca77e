import { checkObject, checkOneOf, rangeError, raw, typeError } from "../checks.ts";
import type { Gpu } from "../runtime/gpu.ts";
import type { Dtype, Step, WeightDtype } from "../runtime/kernel.ts";
import { Program, planOffset } from "../runtime/program.ts";
import type { ProgramCache } from "../runtime/program_cache.ts";
import { allOf, type Shape, Tensor } from "../runtime/tensor.ts";
import { USAGE } from "../runtime/usage.ts";
import type { GPUBuffer } from "../webgpu.ts";
import type { BackwardCall } from "./backward_planner.ts";
import { type HomMask, type MaskShape, type ResolvedMask, uploadBuffers } from "./mask.ts";
import type { CheckedCall, ForwardOptions } from "./moment_layer.ts";
import { checkTensor } from "./tensor_checks.ts";

/** Gradients of one call, on the GPU. They are the caller's to destroy. */
export interface HomGradients {
  /** `[B, T, D]`; without a context, of the tokens in both of their parts. */
  readonly query: Tensor;
  /** `[B, N, D]`, where a context was given. */
  readonly context?: Tensor;
  /** Under the parameters' names and in their layout, `"ho_proj.weight"` `[M, D]` and so on; biases where the layer has them. */
  readonly params: Readonly<Record<string, Tensor>>;
}

/** What `forwardForTraining` of a layer returns. */
export interface HomTrainingPass {
  /** `[B, T, D]`, as of `forward`. */
  readonly output: Tensor;
  /**
   * Gradients of the query, the context and the parameters for a gradient of the output, `[B, T, D]` in f32. May be called any number of times, as long
   * as the layer, the query, the context and a mask of `createMask` are alive; nothing else is kept. Moments and gates are computed anew, in slabs within
   * `scratchBudget`.
   */
  readonly backward: (gradOutput: Tensor) => HomGradients;
}

/** What the backward pass computes for a kind of layer. */
export interface Training {
  /** The gradients of parameters that a call returns. */
  readonly parameters: Readonly<Record<string, Shape>>;
  /** Bytes of the buffers that are only needed on the way to them. */
  readonly passing: Readonly<Record<string, number>>;
  /** The dispatches; buffers of gradients bear the parameters' names. */
  readonly plan: (call: BackwardCall) => { readonly steps: readonly Step[]; readonly scratch: ReadonlyMap<string, number> };
}

/** What the backward pass needs of a layer. */
export interface TrainedLayer extends Training {
  readonly name: string;
  readonly gpu: Gpu;
  readonly dtypes: { readonly dtype: Dtype; readonly weightDtype: WeightDtype };
  /** Under the names that the planner uses. */
  readonly weights: Readonly<Record<string, GPUBuffer>>;
  readonly programs: ProgramCache;
  readonly status: Promise<Error | undefined>;
  readonly checkUsable: (where: string) => void;
  readonly checkMask: (where: string, mask: HomMask, shape: MaskShape) => void;
  readonly run: (where: string, call: CheckedCall) => Tensor;
}

/** A checked call of the layer. */
interface TrainingCall {
  readonly query: Tensor;
  /** Undefined: the query. */
  readonly context: Tensor | undefined;
  readonly shape: MaskShape;
  readonly resolved: Pick<ResolvedMask, "plan" | "key">;
  readonly prepared?: HomMask | undefined;
  /** What is not in `prepared`. */
  readonly uploads: Readonly<Record<string, Float32Array | Uint32Array>>;
  /** The queries that see something are in `uploads.table`. */
  readonly queryMask: boolean;
}

/** Runs a layer for training. `check` checks the call as `forward` would. */
export function trainingPass<Options extends Pick<ForwardOptions, "context">>(
  layer: TrainedLayer,
  options: Options,
  keys: readonly string[],
  check: (where: string) => CheckedCall,
): HomTrainingPass {
  const where = `${layer.name}.forwardForTraining`;
  checkObject(where, "options", options, keys);
  const call = check(where);
  const { dtype, weightDtype } = layer.dtypes;
  if (dtype !== "f32" || weightDtype !== "f32") {
    const got = raw(`dtype "${dtype}" and weightDtype "${weightDtype}"`);
    throw typeError(where, "layer", "have weights and output in f32", got, 'create it with dtype "f32"');
  }
  checkOneOf(where, "query's dtype", call.query.dtype, ["f32"]);
  checkOneOf(where, "context's dtype", call.context.dtype, ["f32"]);
  const { query, resolved, prepared, shape, queryMask = false } = call;
  const given = { ...(prepared ? {} : resolved.uploads), ...call.uploads };
  const uploads = Object.fromEntries(Object.entries(given).map(([name, data]) => [name, data.slice()]));
  const kept = { query, context: options.context, shape, resolved, prepared, uploads, queryMask };
  const output = layer.run(where, call);
  return { output, backward: (gradOutput) => backward(layer, kept, gradOutput) };
}

function backward(layer: TrainedLayer, call: TrainingCall, gradOutput: Tensor): HomGradients {
  const where = `${layer.name}.forwardForTraining's backward`;
  const { gpu } = layer;
  const { query, context, shape, prepared } = call;
  layer.checkUsable(where);
  checkTensor(where, "gradOutput", gradOutput, gpu);
  if (gradOutput.shape.join() !== query.shape.join())
    throw rangeError(where, "gradOutput", `have shape [${query.shape.join(", ")}]`, gradOutput.shape);
  checkOneOf(where, "gradOutput's dtype", gradOutput.dtype, ["f32"]);
  checkTensor(where, "query", query, gpu);
  if (context) checkTensor(where, "context", context, gpu);
  if (prepared) layer.checkMask(where, prepared, shape);
  return runBackward(where, layer, call, gradOutput);
}

/** Gradients of a checked call for a checked gradient of its output. */
function runBackward(where: string, layer: TrainedLayer, call: TrainingCall, gradOutput: Tensor): HomGradients {
  const { gpu } = layer;
  const { query, context, prepared } = call;
  const { result, status } = gpu.guard(where, () => {
    const memory = allocate(where, layer, query.shape, context?.shape);
    const transient: (() => void)[] = [memory.freePassing];
    try {
      const { program, cached } = programOf(layer, call, gradOutput);
      if (!cached) transient.push(() => program.destroy());
      const uploads = uploadBuffers(gpu, call.uploads);
      transient.push(...Object.values(uploads).map((buffer) => () => buffer.destroy()));
      const inputs = { query, context: context ?? query, gradOut: gradOutput, ...layer.weights, ...prepared?.buffers, ...uploads };
      gpu.submit("backward", (pass) => program.record(pass, { ...inputs, ...memory.buffers }));
      return memory.gradients;
    } catch (error) {
      memory.free();
      throw error;
    } finally {
      for (const free of transient) free();
    }
  });
  const all = allOf([status, layer.status, query.status, context?.status, gradOutput.status]);
  const tensors = result.map(({ name, buffer, shape }) => [name, Tensor.adopt(gpu, buffer, shape, all)] as const);
  const { query: ofQuery, context: ofContext, ...params } = Object.fromEntries(tensors);
  return { query: ofQuery as Tensor, ...(ofContext && { context: ofContext }), params };
}

function programOf(layer: TrainedLayer, call: TrainingCall, gradOutput: Tensor): { program: Program; cached: boolean } {
  const { gpu } = layer;
  const { query, context, shape, resolved, queryMask } = call;
  const offsets = {
    query: planOffset(query),
    context: planOffset(context ?? query),
    gradOut: planOffset(gradOutput),
    gradQuery: 0,
    gradContext: context && 0,
    queryMask,
  };
  const build = () => {
    const { steps, scratch } = layer.plan({ ...shape, ...offsets, mask: resolved.plan });
    return new Program(gpu, steps, scratch);
  };
  if (resolved.key === undefined) return { program: build(), cached: false };
  const key = ["backward", resolved.key, ...Object.values(shape), ...Object.values(offsets)].join();
  return { program: layer.programs.get(key, false, build), cached: true };
}

/** Buffers of the gradients, and of what is only needed on the way to them. */
function allocate(where: string, { gpu, parameters, passing: sizes }: TrainedLayer, query: Shape, context: Shape | undefined) {
  const passing: Record<string, GPUBuffer> = {};
  const gradients: { name: string; shape: Shape; buffer: GPUBuffer }[] = [];
  const freePassing = () => {
    for (const buffer of Object.values(passing)) buffer.destroy();
  };
  const free = () => {
    freePassing();
    for (const { buffer } of gradients) buffer.destroy();
  };
  try {
    for (const [name, shape] of Object.entries({ query, ...(context && { context }), ...parameters })) {
      gradients.push({ name, shape, buffer: Tensor.allocate(where, gpu, `hom.gradient.${name}`, shape) });
    }
    for (const [name, size] of Object.entries(sizes)) passing[name] = gpu.createBuffer(`hom.${name}`, size, USAGE.STORAGE);
    const named = Object.fromEntries(gradients.map(({ name, buffer }) => [NAMES[name] ?? name, buffer]));
    return { gradients, buffers: { ...passing, ...named }, free, freePassing };
  } catch (error) {
    free();
    throw error;
  }
}

/** Buffers of the steps that do not have a gradient's own name. */
const NAMES: Readonly<Record<string, string>> = { query: "gradQuery", context: "gradContext" };
