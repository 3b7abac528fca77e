import { planUnpackLinear } from "../ops/unpack_linear.ts";
import type { Gpu, GpuLimits } from "../runtime/gpu.ts";
import type { Slot, Step } from "../runtime/kernel.ts";
import { Program, planOffset } from "../runtime/program.ts";
import type { ProgramCache } from "../runtime/program_cache.ts";
import { allOf, type Shape, Tensor } from "../runtime/tensor.ts";
import type { Tuning } from "../runtime/tuning.ts";
import { USAGE } from "../runtime/usage.ts";
import type { GPUBuffer } from "../webgpu.ts";
import { type HomBackwardCall, planHomBackward, planHomTranspose, transposedWeights } from "./hom_backward_plan.ts";
import type { HomConfig } from "./hom_config.ts";
import { type HomMask, type MaskShape, type ResolvedMask, uploadBuffers } from "./mask.ts";
import { momentLayout } from "./planner.ts";

/** Gradients of one call, on the GPU. They are the caller's to destroy. */
export interface HomGradients {
  /** `[B, T, D]`; without a context, of the tokens in both of their parts. */
  readonly query: Tensor;
  /** `[B, N, D]`, where a context was given. */
  readonly context?: Tensor;
  /** Under the parameters' names and in their layout, `"ho_proj.weight"` `[M, D]` and so on; biases where the layer has them. */
  readonly params: Readonly<Record<string, Tensor>>;
}

/** What {@link HomLayer.forwardForTraining} returns. */
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

/** The layer's Linears: where they lie in the packed matrices, and their channels. */
function linears({ dim, order, orderExpand }: HomConfig) {
  const { stride4 } = momentLayout({ dim, order, orderExpand });
  const moment = { count: order, width: orderExpand * dim };
  const model = { count: 1, width: dim };
  const projections = { packed: "gradProjections", stride: 8 * stride4, inner: model, outer: moment };
  return [
    { name: "ho_proj", firstColumn: 0, ...projections },
    { name: "se_proj", firstColumn: 4 * stride4, ...projections },
    { name: "ag_proj", firstColumn: 0, packed: "gradAg", stride: Math.ceil(dim / 4) * 4, inner: moment, outer: model },
  ];
}

/** Transposed weights, the backward pass, and the gradients in a checkpoint's layout: buffers named after the parameters. */
export function planTraining(config: Required<HomConfig>, tuning: Tuning, limits: GpuLimits, call: HomBackwardCall) {
  const { steps, scratch } = planHomBackward(config, tuning, limits, { ...call, bias: config.bias });
  const unpack = linears(config).map(({ name, packed, stride, inner, outer, firstColumn }): Step => {
    const [rows, columns] = [inner.count * inner.width, outer.count * outer.width];
    const packedBytes = (inner.count * Math.ceil(inner.width / 4) * 4 + 1) * stride * 4;
    const bias: Slot = config.bias ? { buffer: `${name}.bias`, offset: 0, size: columns * 4 } : { buffer: "unused", offset: 0, size: 16 };
    return planUnpackLinear({
      packed: { buffer: packed, offset: 0, size: packedBytes },
      stride,
      firstColumn,
      inner,
      outer,
      weight: { buffer: `${name}.weight`, offset: 0, size: columns * rows * 4 },
      bias,
      hasBias: config.bias,
      maxWorkgroups: limits.maxComputeWorkgroupsPerDimension,
    });
  });
  return { steps: [...planHomTranspose(config, limits), ...steps, ...unpack], scratch };
}

/** What the backward pass needs of a layer. */
export interface TrainedLayer {
  readonly gpu: Gpu;
  readonly config: Readonly<Required<HomConfig>>;
  /** `projections` and `ag`. */
  readonly weights: Readonly<Record<string, GPUBuffer>>;
  readonly programs: ProgramCache;
  readonly status: Promise<Error | undefined>;
}

/** A checked call of the layer. */
export interface TrainingCall {
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

/** Gradients of a checked call for a checked gradient of its output. */
export function runBackward(where: string, layer: TrainedLayer, call: TrainingCall, gradOutput: Tensor): HomGradients {
  const { gpu, config } = layer;
  const { query, context, prepared } = call;
  const { result, status } = gpu.guard(where, () => {
    const memory = allocate(where, gpu, config, query.shape, context?.shape);
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
  const { gpu, config } = layer;
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
    const { steps, scratch } = planTraining(config, gpu.tuning, gpu.limits, { ...shape, ...offsets, mask: resolved.plan });
    return new Program(gpu, steps, scratch);
  };
  if (resolved.key === undefined) return { program: build(), cached: false };
  const key = ["backward", resolved.key, ...Object.values(shape), ...Object.values(offsets)].join();
  return { program: layer.programs.get(key, false, build), cached: true };
}

/** Buffers of the gradients, and of what is only needed on the way to them. */
function allocate(where: string, gpu: Gpu, config: Required<HomConfig>, query: Shape, context: Shape | undefined) {
  const { dim, bias } = config;
  const { stride4 } = momentLayout(config);
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
    const tensor = (name: string, shape: Shape) =>
      gradients.push({ name, shape, buffer: Tensor.allocate(where, gpu, `hom.gradient.${name}`, shape) });
    tensor("query", query);
    if (context) tensor("context", context);
    for (const { name, inner, outer } of linears(config)) {
      const columns = outer.count * outer.width;
      tensor(`${name}.weight`, [columns, inner.count * inner.width]);
      if (bias) tensor(`${name}.bias`, [columns]);
    }
    const model = Math.ceil(dim / 4) * 4;
    const sizes = { gradProjections: (model + 1) * 8 * stride4 * 4, gradAg: (4 * stride4 + 1) * model * 4, ...transposedWeights(config).bytes };
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
