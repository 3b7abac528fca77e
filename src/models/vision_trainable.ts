import { checkTensor } from "../layers/tensor_checks.ts";
import { type RowsIn, view } from "../layers/training_steps.ts";
import type { Rows } from "../ops/op.ts";
import { planSumRows } from "../ops/sum_rows.ts";
import { planUnpatchify } from "../ops/unpatchify.ts";
import type { Gpu } from "../runtime/gpu.ts";
import { planOffset } from "../runtime/program.ts";
import { ProgramCache } from "../runtime/program_cache.ts";
import type { Tensor } from "../runtime/tensor.ts";
import { KeptBuffers } from "./image_parts.ts";
import { gridWeights } from "./interpolate.ts";
import {
  checkGradient,
  type ModelProgram,
  ModelSteps,
  type ModelTrainingPass,
  modelGradients,
  type TrainedBlock,
  trainedBlock,
} from "./model_training.ts";
import { type HomVisionCall, type HomVisionConfig, type HomVisionForwardOptions, HomVision as InferenceModel } from "./vision.ts";
import { planCls, planPatches, planPositions } from "./vision_steps.ts";
import type { ModelWeights } from "./with_shapes.ts";

/** Gradients of one call of a {@link HomVision}, on the GPU. They are the caller's to destroy. */
export interface HomVisionGradients {
  /** `[B, C, H, W]`; 0 where a border does not fill a patch. */
  readonly image: Tensor;
  /** Under the checkpoint's keys and in their layout; `position` of the size that the model was trained on. */
  readonly params: Readonly<Record<string, Tensor>>;
}

/** The gradient of the images, which are no parameter of any checkpoint. */
const GRAD_IMAGE = "gradient of image";
const KEPT_PROGRAMS = 8;

/**
 * The HoM image classifier, as `HomVision` of `homm-webgpu/models`, with its gradients.
 *
 * @example
 * const { output, backward } = model.forwardForTraining(images);
 * const { params } = backward(gradLogits);
 * console.log(await params["layers.0.hom.ho_proj.weight"].read());
 */
export class HomVision extends InferenceModel {
  readonly #programs = new ProgramCache<ModelProgram>(KEPT_PROGRAMS);
  readonly #grids = new KeptBuffers();

  /** @throws TypeError, RangeError for the configuration, WeightsError for the checkpoint, GpuLostError, GpuOutOfMemoryError */
  static override create(gpu: Gpu, config: HomVisionConfig, weights: ModelWeights): Promise<HomVision> {
    return InferenceModel.make((...parts) => new HomVision(...parts), gpu, config, weights);
  }

  /**
   * `forward`, and what computes the gradients of the images and the parameters for a gradient of the logits. A mask is what it was at this call, whatever happens to its
   * array later.
   * @throws TypeError, RangeError, GpuLostError
   */
  forwardForTraining(image: Tensor, options: HomVisionForwardOptions = {}): ModelTrainingPass<HomVisionGradients> {
    const where = "HomVision.forwardForTraining";
    const call = this.check(where, image, options);
    const output = this.run(where, image, call);
    const backward = (gradOutput: Tensor): HomVisionGradients => {
      const where = "HomVision.forwardForTraining's backward";
      this.checkUsable(where);
      checkGradient(where, gradOutput, call.outShape, this.gpu);
      checkTensor(where, "image", image, this.gpu);
      const { gpu, parts, config } = this;
      const { sizes, resolved } = call;
      const blocks = parts.blocks.map((block, i) => trainedBlock(block, `layers.${i}.hom.`, `layers.${i}.`));
      const known = parts.position.length / config.dim;
      const [from, to] = [Math.sqrt(known), Math.sqrt(sizes.n)];
      const grid = known === sizes.n ? undefined : this.#grids.get(String(to), () => gpu.upload("hom.vision.grid", gridWeights(from, to, false)));
      const offsets = { image: planOffset(image), gradOut: planOffset(gradOutput) };
      const { [GRAD_IMAGE]: gradImage, ...params } = modelGradients(where, {
        gpu,
        programs: this.#programs,
        key: [...Object.values(sizes), resolved.key, ...Object.values(offsets)].join(),
        plan: () => planVisionBackward(gpu, config, blocks, { ...call, offsets, known }),
        inputs: {
          image,
          gradOut: gradOutput,
          conv: parts.conv.weights,
          out_proj: parts.output.weights,
          cls_token: parts.cls,
          positions: this.positions(where, sizes.n),
          grid,
          ...Object.assign({}, ...blocks.map(({ weights }) => weights)),
        },
        uploads: resolved.uploads,
        statuses: [image.status, gradOutput.status],
      });
      return { image: gradImage as Tensor, params };
    };
    return { output, backward };
  }

  /** Frees the weights. Results already returned stay valid. */
  override destroy(): void {
    super.destroy();
    this.#programs.destroy();
    this.#grids.destroy();
  }
}

interface VisionBackward extends Omit<HomVisionCall, "resolved" | "outShape"> {
  readonly resolved: Pick<HomVisionCall["resolved"], "plan">;
  /** Where the image and the gradient of the logits are. */
  readonly offsets: { readonly image: number; readonly gradOut: number };
  /** Positions of the checkpoint. */
  readonly known: number;
}

/** The whole backward pass. @internal */
export function planVisionBackward(
  { tuning, limits }: Pick<Gpu, "tuning" | "limits">,
  config: Pick<HomVisionConfig, "classes">,
  blocks: readonly TrainedBlock[],
  a: VisionBackward,
): ModelSteps {
  const { sizes, shape, resolved, read, known } = a;
  const { batch, height, width, n, channels, patch, dim } = sizes;
  const inner = channels * patch * patch;
  const tokens = n + 1;
  const rows = batch * tokens;
  const maxWorkgroups = limits.maxComputeWorkgroupsPerDimension;
  const steps = new ModelSteps({ tuning, limits, scratchBudget: blocks[0]?.mixer.scratchBudget ?? 0, dim });
  const call = { shape, mask: resolved.plan };
  const xs = blocks.map((_, i) => steps.keepRows(`x${i}`, rows, dim)).concat(steps.keepRows(`x${blocks.length}`, rows, dim));
  const mids = blocks.map((_, i) => steps.keepRows(`mid${i}`, rows, dim));
  const gradients = [0, 1].map((i) => steps.keepRows(`dx${i}`, rows, dim));
  const at = <T>(list: readonly T[], i: number): T => list[i] as T;
  /** Tokens of some images, one row after the other. */
  const tokenRows = ({ buffer }: RowsIn, first: number, count: number, images: number, firstImage = 0): Rows => ({
    buffer,
    byteOffset: (firstImage * tokens + first) * dim * 4,
    length: dim,
    stride: dim,
    first: 0,
    count: images * count,
    ...(images > 1 && { span: count, pitch: tokens }),
  });

  const conv = { name: "conv", inner, outer: dim };
  const convMatrix = steps.matrix(conv, "packed_dense");
  const patches = view(steps.keepRows("patches", batch * n, inner), 0, batch * n);
  steps.add({ steps: [planPatches(sizes, a.offsets.image, maxWorkgroups)] });
  steps.linear(patches, convMatrix.weights, view(steps.keepRows("embedded", batch * n, dim), 0, batch * n));
  steps.add({ steps: [planPositions(sizes, maxWorkgroups), planCls(sizes, maxWorkgroups)] }, { x: at(xs, 0).buffer });
  for (const [i, block] of blocks.entries()) steps.block(block, call, at(xs, i), at(mids, i), at(xs, i + 1));

  // The tokens that are not read keep the zeros that every new buffer has.
  let gradY = at(gradients, blocks.length % 2);
  const output = { name: "out_proj", inner: dim, outer: config.classes };
  const outputBack = steps.transposed("transposed", steps.matrix(output, "packed_dense"));
  const logitsOf = (first: number, count: number) => view({ buffer: "gradOut", byteOffset: a.offsets.gradOut, width: config.classes }, first, count);
  const stretches = stretchesOf(batch, read.count, Math.floor(limits.maxStorageBufferBindingSize / (config.classes * 4)) - 64);
  for (const [i, { image, images, first, count }] of stretches.entries()) {
    const dy = logitsOf(image * read.count + first, images * count);
    const part = { first: i === 0, last: i === stretches.length - 1 };
    steps.denseGradient(output, tokenRows(at(xs, blocks.length), read.at + first, count, images, image), dy, part);
    steps.linear(dy, outputBack, tokenRows(gradY, read.at + first, count, images, image));
  }
  for (let i = blocks.length - 1; i >= 0; i--) {
    const gradX = at(gradients, i % 2);
    steps.blockBackward(at(blocks, i), call, { x: at(xs, i), mid: at(mids, i), gradY, gradMid: gradY, gradX });
    gradY = gradX;
  }

  steps.gradients["cls"] = [1, 1, dim];
  steps.gradients["position"] = [1, known, dim];
  const sum = (first: number, count: number, y: string) => {
    const x = { buffer: gradY.buffer, offset: 0, size: rows * dim * 4 };
    const to = { buffer: y, offset: 0, size: count * dim * 4 };
    const of = { x, at: first * dim, outerStep: 0, rowStep: tokens * dim, outer: 1, count: batch, width: count * dim };
    const { steps: planned, partialBytes } = planSumRows({ ...of, y: to, partial: "sum_blocks", maxWorkgroups });
    if (partialBytes > 0) steps.scratchSlot("sum_blocks", partialBytes);
    steps.add({ steps: planned });
  };
  sum(0, 1, "cls");
  if (known === n) {
    sum(1, n, "position");
  } else {
    const resized = steps.keepRows("dpositions", n, dim);
    sum(1, n, resized.buffer);
    const layer = { name: "position", inner: dim, outer: known };
    const { gradient, columns } = steps.matrix(layer, "packed_dense");
    steps.weightGradient(view(resized, 0, n), view({ buffer: "grid", width: known }, 0, n), { gradient, columns }, false, false);
    steps.unpack(layer, gradient, { weight: "position", hasBias: false, shape: [1, known, dim] });
  }
  const embedded = tokenRows(gradY, 1, n, batch);
  steps.denseGradient(conv, patches, embedded, { shape: [dim, channels, patch, patch] });
  steps.linear(embedded, steps.transposed("transposed", convMatrix), patches);
  const image = { buffer: GRAD_IMAGE, byteOffset: 0 };
  const together = { rows: { buffer: "patches", offset: 0, size: batch * n * inner * 4 }, image, batch, channels, height, width, patch };
  steps.gradients[GRAD_IMAGE] = [batch, channels, height, width];
  steps.add({ steps: [planUnpatchify({ ...together, channelsLast: false, maxWorkgroups })] });
  return steps;
}

/** Rows of all images, `count` each, in stretches of at most `most`: whole images, or parts of one. */
function stretchesOf(batch: number, count: number, most: number): { image: number; images: number; first: number; count: number }[] {
  const images = Math.floor(most / count);
  if (images >= 1) {
    return Array.from({ length: Math.ceil(batch / images) }, (_, i) => ({
      image: i * images,
      images: Math.min(images, batch - i * images),
      first: 0,
      count,
    }));
  }
  const rows = Math.max(1, most);
  return Array.from({ length: batch * Math.ceil(count / rows) }, (_, i) => {
    const first = (i % Math.ceil(count / rows)) * rows;
    return { image: Math.floor(i / Math.ceil(count / rows)), images: 1, first, count: Math.min(rows, count - first) };
  });
}
