import { rangeError } from "../checks.ts";
import type { HomBlock } from "../layers/block.ts";
import type { HomConfig } from "../layers/hom_config.ts";
import type { MaskPlan } from "../layers/hom_plan.ts";
import { planHom } from "../layers/hom_plan.ts";
import { homTraining } from "../layers/hom_training.ts";
import { type MaskShape, uploadBuffers } from "../layers/mask.ts";
import { padded } from "../layers/params.ts";
import { checkTensor } from "../layers/tensor_checks.ts";
import { type FeedForward, type PackedMatrix, type RowsIn, TrainingSteps } from "../layers/training_steps.ts";
import type { Rows } from "../ops/op.ts";
import { planUnpackLinear } from "../ops/unpack_linear.ts";
import type { Gpu } from "../runtime/gpu.ts";
import type { Slot } from "../runtime/kernel.ts";
import { type BoundBuffers, Program } from "../runtime/program.ts";
import type { ProgramCache } from "../runtime/program_cache.ts";
import { allOf, type Shape, Tensor } from "../runtime/tensor.ts";
import { USAGE } from "../runtime/usage.ts";
import type { GPUBuffer } from "../webgpu.ts";

/** What `forwardForTraining` of a model returns. */
export interface ModelTrainingPass<Gradients> {
  /** As of `forward`. */
  readonly output: Tensor;
  /**
   * Gradients for a gradient of the output, of its shape, in f32. May be called any number of times, as long as the model and the tensors of the call are alive; nothing
   * else is kept: the model runs once more, and what its layers start from is freed when the gradients are computed. One submit.
   */
  readonly backward: (gradOutput: Tensor) => Gradients;
}

/** A dense layer of a model: its checkpoint name, which its packed weights bear, too. */
export interface DenseLayer {
  readonly name: string;
  readonly inner: number;
  readonly outer: number;
}

/** A residual block of a model, and what comes before its checkpoint keys. */
export interface TrainedBlock {
  readonly mixer: Readonly<Required<HomConfig>>;
  readonly ffwExpand: number;
  /** Of the mixer's. */
  readonly hom: string;
  /** Of `ffw.1` and `ffw.3`. */
  readonly ffw: string;
}

/** Batch and tokens of a self-mixing call, and its mask; `mask`, `table` and `divisors` are the caller's buffers. */
export interface BlockCall {
  readonly shape: MaskShape;
  readonly mask: MaskPlan;
}

/**
 * Collects the dispatches of a model's forward and backward pass. Packed weights are buffers by the names of their layers (`<prefix>projections` and `<prefix>ag` of a
 * mixer), gradients buffers by their checkpoint keys; their packed forms only pass by.
 */
export class ModelSteps extends TrainingSteps {
  /** The gradients that the steps write. */
  readonly gradients: Record<string, Shape> = {};

  /** A buffer of this call. */
  keep(buffer: string, numbers: number): Slot {
    const bytes = Math.ceil(numbers / 4) * 16;
    this.kept.set(buffer, Math.max(this.kept.get(buffer) ?? 0, bytes));
    return { buffer, offset: 0, size: bytes };
  }

  /** Rows of a buffer of this call. */
  keepRows(buffer: string, rows: number, width: number): RowsIn {
    this.keep(buffer, rows * width);
    return { buffer, width };
  }

  /** A layer's weights, and a gradient that passes by in `gradient`. */
  matrix({ name, inner, outer }: DenseLayer, gradient: string): PackedMatrix {
    const [rows, columns] = [padded(inner), padded(outer)];
    const numbers = (rows + 1) * columns;
    return { weights: { buffer: name, offset: 0, size: numbers * 4 }, gradient: this.keep(gradient, numbers), rows, columns };
  }

  /** The gradients of a dense layer's parameters, from its whole input and the gradient of its whole output, or from a part of both. */
  denseGradient(
    layer: DenseLayer,
    x: Rows,
    dy: Rows,
    part: { readonly first?: boolean; readonly last?: boolean; readonly shape?: Shape | undefined } = {},
  ): void {
    const matrix = this.matrix(layer, "packed_dense");
    const { first = true, last = true, shape } = part;
    this.weightGradient(x, dy, matrix, !first);
    if (last) this.unpack(layer, matrix.gradient, shape && { shape });
  }

  /** A packed gradient in the checkpoint's layout. */
  unpack(
    { name, inner, outer }: DenseLayer,
    packed: Slot,
    options: { readonly weight?: string; readonly hasBias?: boolean; readonly shape?: Shape } = {},
  ): void {
    const { weight = `${name}.weight`, hasBias = true, shape = [outer, inner] } = options;
    this.gradients[weight] = shape;
    if (hasBias) this.gradients[`${name}.bias`] = [outer];
    const step = planUnpackLinear({
      packed,
      stride: padded(outer),
      firstColumn: 0,
      inner: { count: 1, width: inner },
      outer: { count: 1, width: outer },
      weight: { buffer: weight, offset: 0, size: outer * inner * 4 },
      bias: hasBias ? { buffer: `${name}.bias`, offset: 0, size: outer * 4 } : this.scratchSlot("unused", 16),
      hasBias,
      maxWorkgroups: this.maxWorkgroups,
    });
    this.steps.push(step);
  }

  /** mid = x + hom(x), y = mid + ffw(mid); without y as far as mid. */
  block(of: TrainedBlock, call: BlockCall, x: RowsIn, mid: RowsIn, y: RowsIn | undefined): void {
    const { tuning, limits } = this.sizes;
    const at = x.byteOffset ?? 0;
    const hom = planHom(of.mixer, tuning, limits, { ...call.shape, mask: call.mask, query: at, context: at, residual: at, out: 0 });
    this.add(hom, { query: x.buffer, context: x.buffer, residual: x.buffer, out: mid.buffer, ...mixerNames(of) });
    if (y) this.feedForward(this.#feedForward(of, mid), y, mid, rowsOf(call));
  }

  /** The gradient of x and those of the block's parameters, from the gradient of y; that of mid goes to a buffer of its own, or in the place of y's. */
  blockBackward(
    of: TrainedBlock,
    call: BlockCall,
    { x, mid, gradY, gradMid, gradX }: Record<"x" | "mid" | "gradY" | "gradMid" | "gradX", RowsIn>,
  ): void {
    const rows = rowsOf(call);
    const part = this.#feedForward(of, mid);
    this.feedForwardBackward(part, gradY, gradMid, { rows, residual: gradMid.buffer === gradY.buffer ? undefined : gradY, accumulate: false });
    const { ffwExpand } = of;
    const { dim } = of.mixer;
    this.unpack({ name: `${of.ffw}ffw.1`, inner: dim, outer: ffwExpand * dim }, part.up.gradient);
    this.unpack({ name: `${of.ffw}ffw.3`, inner: ffwExpand * dim, outer: dim }, part.down.gradient);
    const training = homTraining(of.mixer, this.sizes);
    for (const [name, bytes] of Object.entries(training.passing)) this.keep(name, bytes / 4);
    const keys = Object.entries(training.parameters).map(([key, shape]) => {
      this.gradients[`${of.hom}${key}`] = shape;
      return [key, `${of.hom}${key}`] as const;
    });
    const at = x.byteOffset ?? 0;
    const plan = training.plan({ ...call.shape, mask: call.mask, query: at, context: at, gradOut: 0, residual: 0, gradQuery: 0 });
    const names = { query: x.buffer, context: x.buffer, gradOut: gradMid.buffer, residual: gradMid.buffer, gradQuery: gradX.buffer };
    this.add(plan, { ...names, ...mixerNames(of), ...Object.fromEntries(keys) });
  }

  #feedForward({ mixer: { dim }, ffwExpand, ffw }: TrainedBlock, x: RowsIn): FeedForward {
    const up = this.matrix({ name: `${ffw}ffw.1`, inner: dim, outer: ffwExpand * dim }, "packed_up");
    const down = this.matrix({ name: `${ffw}ffw.3`, inner: ffwExpand * dim, outer: dim }, "packed_down");
    return { up, down, x };
  }
}

const rowsOf = ({ shape }: BlockCall): number => shape.batch * shape.queryLength;

const mixerNames = ({ hom }: TrainedBlock) => ({ projections: `${hom}projections`, ag: `${hom}ag` });

/** A block, and its packed weights by the names of {@link ModelSteps}. */
export function trainedBlock(block: HomBlock, hom: string, ffw: string): TrainedBlock & { readonly weights: Readonly<Record<string, GPUBuffer>> } {
  const weights: Record<string, GPUBuffer> = { [`${ffw}ffw.1`]: block.up.weights, [`${ffw}ffw.3`]: block.down.weights };
  for (const [name, buffer] of Object.entries(block.hom.parts.buffers)) weights[`${hom}${name}`] = buffer;
  return { mixer: block.hom.config, ffwExpand: block.config.ffwExpand, hom, ffw, weights };
}

/** Dispatches with what the steps said of their buffers. */
export class ModelProgram extends Program {
  readonly kept: ReadonlyMap<string, number>;
  readonly gradients: Readonly<Record<string, Shape>>;

  constructor(gpu: Gpu, { steps, scratch, kept, gradients }: ModelSteps) {
    super(gpu, steps, scratch);
    this.kept = kept;
    this.gradients = gradients;
  }
}

/** A backward pass that has been checked. */
export interface ModelBackward {
  readonly gpu: Gpu;
  readonly programs: ProgramCache<ModelProgram>;
  /** Tells programs apart. */
  readonly key: string;
  readonly plan: () => ModelSteps;
  /** Weights and tensors. */
  readonly inputs: BoundBuffers;
  /** Arrays that are uploaded for this call. */
  readonly uploads: Readonly<Record<string, Float32Array | Uint32Array>>;
  readonly statuses: readonly Promise<Error | undefined>[];
}

/** Runs a backward pass in one submit and returns its gradients by name. */
export function modelGradients(where: string, call: ModelBackward): Record<string, Tensor> {
  const { gpu } = call;
  const { result, status } = gpu.guard(where, () => {
    const program = call.programs.get(call.key, false, () => new ModelProgram(gpu, call.plan()));
    const passing: Record<string, GPUBuffer> = {};
    const gradients: Record<string, GPUBuffer> = {};
    try {
      for (const [name, shape] of Object.entries(program.gradients)) gradients[name] = Tensor.allocate(where, gpu, `hom.gradient.${name}`, shape);
      for (const [name, size] of program.kept) passing[name] = gpu.createBuffer(`hom.${name}`, Math.max(16, size), USAGE.STORAGE);
      Object.assign(passing, uploadBuffers(gpu, call.uploads));
      gpu.submit("backward", (pass) => program.record(pass, { ...call.inputs, ...passing, ...gradients }));
      return { gradients, shapes: program.gradients };
    } catch (error) {
      for (const buffer of Object.values(gradients)) buffer.destroy();
      throw error;
    } finally {
      for (const buffer of Object.values(passing)) buffer.destroy();
    }
  });
  const all = allOf([status, ...call.statuses]);
  return Object.fromEntries(
    Object.entries(result.gradients).map(([name, buffer]) => [name, Tensor.adopt(gpu, buffer, result.shapes[name] ?? [], all)]),
  );
}

/** A gradient of an output of this shape. @throws TypeError, RangeError */
export function checkGradient(where: string, gradOutput: Tensor, output: Shape, gpu: Gpu): void {
  checkTensor(where, "gradOutput", gradOutput, gpu);
  if (gradOutput.shape.join() !== output.join()) throw rangeError(where, "gradOutput", `have shape [${output.join(", ")}]`, gradOutput.shape);
  if (gradOutput.dtype !== "f32") throw rangeError(where, "gradOutput", "be f32", gradOutput.dtype);
}
