import { HomMask } from "../layers/mask.ts";
import { checkTensor } from "../layers/tensor_checks.ts";
import { type RowsIn, view } from "../layers/training_steps.ts";
import type { Gpu } from "../runtime/gpu.ts";
import { planOffset } from "../runtime/program.ts";
import { ProgramCache } from "../runtime/program_cache.ts";
import type { Tensor } from "../runtime/tensor.ts";
import { type Adjacency, type HomGnnCall, type HomGnnConfig, HomGnn as InferenceModel } from "./gnn.ts";
import {
  checkGradient,
  type ModelProgram,
  ModelSteps,
  type ModelTrainingPass,
  modelGradients,
  type TrainedBlock,
  trainedBlock,
} from "./model_training.ts";
import type { ModelWeights } from "./with_shapes.ts";

/** Gradients of one call of a {@link HomGnn}, on the GPU. They are the caller's to destroy. */
export interface HomGnnGradients {
  /** `[B, N, D]` */
  readonly x: Tensor;
  /** Under the checkpoint's keys and in their layout. */
  readonly params: Readonly<Record<string, Tensor>>;
}

/** The gradient of x, which is no parameter of any checkpoint. */
const GRAD_X = "gradient of x";
const KEPT_PROGRAMS = 8;

/**
 * HoM over graphs, as `HomGnn` of `homm-webgpu/models`, with its gradients.
 *
 * @example
 * const { output, backward } = model.forwardForTraining(x, adjacency);
 * const { params } = backward(gradOutput);
 * console.log(await params["layers.0.ho_proj.weight"].read());
 */
export class HomGnn extends InferenceModel {
  readonly #programs = new ProgramCache<ModelProgram>(KEPT_PROGRAMS);

  /** @throws TypeError, RangeError for the configuration, WeightsError for the checkpoint, GpuLostError, GpuOutOfMemoryError */
  static override create(gpu: Gpu, config: HomGnnConfig, weights: ModelWeights): Promise<HomGnn> {
    return InferenceModel.make((...parts) => new HomGnn(...parts), gpu, config, weights);
  }

  /**
   * `forward`, and what computes the gradients of the nodes and the parameters. A node that sees none gets gradients of what it reads itself only. An adjacency is what it
   * was at this call, whatever happens to its array later.
   * @throws TypeError, RangeError, GpuLostError
   */
  forwardForTraining(x: Tensor, adjacency: Adjacency): ModelTrainingPass<HomGnnGradients> {
    const where = "HomGnn.forwardForTraining";
    const call = this.check(where, x, adjacency);
    const output = this.run(where, x, call);
    const prepared = adjacency instanceof HomMask ? adjacency : undefined;
    const { plan, uploads } = call.mask.resolved;
    const copies = prepared ? {} : Object.fromEntries(Object.entries(uploads).map(([name, data]) => [name, data.slice()]));
    if (!prepared) call.mask.destroy();
    const { shape, outShape } = call;
    const backward = (gradOutput: Tensor): HomGnnGradients => {
      const where = "HomGnn.forwardForTraining's backward";
      this.checkUsable(where);
      checkGradient(where, gradOutput, outShape, this.gpu);
      checkTensor(where, "x", x, this.gpu);
      prepared?.check(where, this.gpu, shape, prepared.blockTokens, 0);
      const { prefixes, blocks, output } = this.parts;
      const trained = blocks.map((block, i) => trainedBlock(block, prefixes[i] ?? "", prefixes[i] ?? ""));
      const offsets = { x: planOffset(x), gradOut: planOffset(gradOutput) };
      const { [GRAD_X]: gradX, ...params } = modelGradients(where, {
        gpu: this.gpu,
        programs: this.#programs,
        key: [...Object.values(shape), ...Object.values(plan), ...Object.values(offsets)].join(),
        plan: () => planGnnBackward(this.gpu, this.config, trained, { shape, plan, offsets }),
        inputs: {
          x,
          gradOut: gradOutput,
          ...Object.assign({}, ...trained.map(({ weights }) => weights)),
          ...(output && { linear: output.weights }),
          ...prepared?.buffers,
        },
        uploads: copies,
        statuses: [x.status, gradOutput.status],
      });
      return { x: gradX as Tensor, params };
    };
    return { output, backward };
  }

  /** Frees the weights. Results already returned stay valid. */
  override destroy(): void {
    super.destroy();
    this.#programs.destroy();
  }
}

/** The whole backward pass; x and the gradient of the output are where `offsets` says. @internal */
export function planGnnBackward(
  { tuning, limits }: Pick<Gpu, "tuning" | "limits">,
  { dim, classes }: HomGnnConfig,
  blocks: readonly TrainedBlock[],
  a: Pick<HomGnnCall, "shape"> & {
    readonly plan: HomGnnCall["mask"]["resolved"]["plan"];
    readonly offsets: { readonly x: number; readonly gradOut: number };
  },
): ModelSteps {
  const scratchBudget = blocks[0]?.mixer.scratchBudget ?? 0;
  const steps = new ModelSteps({ tuning, limits, scratchBudget, dim });
  const { shape, offsets } = a;
  const call = { shape, mask: a.plan };
  const rows = shape.batch * shape.queryLength;
  const last = blocks.length - 1;
  const given: RowsIn = { buffer: "gradOut", byteOffset: offsets.gradOut, width: classes ?? dim };
  const xs: RowsIn[] = [{ buffer: "x", byteOffset: offsets.x, width: dim }];
  const mids = blocks.map((_, i) => steps.keepRows(`mid${i}`, rows, dim));
  const gradients = [0, 1].map((i) => steps.keepRows(`dx${i}`, rows, dim)) as [RowsIn, RowsIn];
  for (const [i, block] of blocks.entries()) {
    const y = i < last || classes !== undefined ? steps.keepRows(`x${i + 1}`, rows, dim) : undefined;
    steps.block(block, call, xs[i] as RowsIn, mids[i] as RowsIn, y);
    if (y) xs.push(y);
  }
  let gradY = given;
  if (classes !== undefined) {
    gradY = gradients[blocks.length % 2] as RowsIn;
    const layer = { name: "linear", inner: dim, outer: classes };
    const back = steps.transposed("transposed", steps.matrix(layer, "packed_dense"));
    steps.slabs(rows, classes, (first, count) => {
      const dy = view(given, first, count);
      steps.denseGradient(layer, view(xs[last + 1] as RowsIn, first, count), dy, { first: first === 0, last: first + count === rows });
      steps.linear(dy, back, view(gradY, first, count));
    });
  }
  for (let i = last; i >= 0; i--) {
    const gradMid = gradients[(i + 1) % 2] as RowsIn;
    const gradX = i === 0 ? { buffer: GRAD_X, width: dim } : (gradients[i % 2] as RowsIn);
    steps.blockBackward(blocks[i] as TrainedBlock, call, { x: xs[i] as RowsIn, mid: mids[i] as RowsIn, gradY, gradMid, gradX });
    gradY = gradX;
  }
  steps.gradients[GRAD_X] = [shape.batch, shape.queryLength, dim];
  return steps;
}
