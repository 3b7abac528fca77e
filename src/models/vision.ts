import { checkObject, checkOneOf, rangeError, raw, typeError } from "../checks.ts";
import { HomBlock } from "../layers/block.ts";
import type { LinearLayer } from "../layers/linear.ts";
import { MASK_EPSILON, type MaskShape, type ResolvedMask, resolveMask } from "../layers/mask.ts";
import { addRows, planAddRows } from "../ops/add_rows.ts";
import { patchify } from "../ops/patchify.ts";
import type { Gpu } from "../runtime/gpu.ts";
import { planOffset } from "../runtime/program.ts";
import { allOf, checkGpu, type Shape, Tensor } from "../runtime/tensor.ts";
import type { GPUBuffer } from "../webgpu.ts";
import { checkImage, checkRows, checkSizes, KeptBuffers, modelParams, Parts, Plans, scratchRows } from "./image_parts.ts";
import { resizeGrid } from "./interpolate.ts";
import { planCls, planPatches, planPositions, tokensOf, type VisionCall } from "./vision_steps.ts";
import type { ModelWeights } from "./with_shapes.ts";

/** Sizes of a {@link HomVision}. */
export interface HomVisionConfig {
  readonly classes: number;
  readonly dim: number;
  readonly layers: number;
  readonly order: number;
  readonly orderExpand: number;
  readonly ffwExpand: number;
  /** Side of the images that the model was trained on. */
  readonly imageSize: number;
  /** Side of a patch. */
  readonly patchSize: number;
  /** Default 3. */
  readonly channels?: number;
  /** `"cls"`: logits of an image, read from the token before its patches; `"none"`: logits of every patch. Default `"cls"`. */
  readonly pooling?: "cls" | "none";
}

/** Options of {@link HomVision.forward}. */
export interface HomVisionForwardOptions {
  /** `[B·n]`, n the number of patches: 0 for patches that no token sees; floats are weights. */
  readonly mask?: Uint8Array | Float32Array | undefined;
}

const SIZES = ["classes", "dim", "layers", "order", "orderExpand", "ffwExpand", "imageSize", "patchSize", "channels"];
const KEPT_PLANS = 32;

/** What a {@link HomVision} is made of. @internal */
export interface HomVisionParts {
  readonly conv: LinearLayer;
  readonly blocks: readonly HomBlock[];
  readonly output: LinearLayer;
  readonly cls: GPUBuffer;
  /** As trained, `[n, D]`. */
  readonly position: Float32Array;
  readonly owned: Parts;
}

/** A checked call. @internal */
export interface HomVisionCall {
  readonly sizes: VisionCall;
  readonly shape: MaskShape;
  readonly resolved: ResolvedMask;
  /** The tokens that are read: the first, and how many of an image. */
  readonly read: { readonly at: number; readonly count: number };
  readonly outShape: Shape;
}

/**
 * The HoM image classifier: patches by a convolution whose stride is its kernel, learned positions, a `cls` token before them, HoM blocks, a dense layer. Checkpoint keys:
 * `conv.{weight,bias}`, `position [1, n, D]`, `cls [1, 1, D]`, `layers.i.{hom.*, ffw.1.*, ffw.3.*}`, `out_proj.{weight,bias}`. Images of another size have their positions
 * resized bicubically, if their patches make a square.
 *
 * That of `homm-webgpu/train` adds `forwardForTraining`.
 *
 * @example
 * const model = await HomVision.create(gpu, config, parseSafetensors(bytes));
 * const logits = model.forward(Tensor.from(gpu, pixels, [1, 3, 224, 224]));
 */
export class HomVision {
  readonly gpu: Gpu;
  readonly config: Readonly<Required<HomVisionConfig>>;
  /** @internal */
  protected readonly parts: HomVisionParts;
  readonly #positions = new KeptBuffers();
  readonly #plans: Plans;
  #destroyed = false;

  /** @internal */
  protected constructor(gpu: Gpu, config: Required<HomVisionConfig>, parts: HomVisionParts) {
    this.gpu = gpu;
    this.config = Object.freeze(config);
    this.parts = parts;
    this.#plans = new Plans(gpu, KEPT_PLANS);
  }

  /** @throws TypeError, RangeError for the configuration, WeightsError for the checkpoint, GpuLostError, GpuOutOfMemoryError */
  static create(gpu: Gpu, config: HomVisionConfig, weights: ModelWeights): Promise<HomVision> {
    return HomVision.make((...parts) => new HomVision(...parts), gpu, config, weights);
  }

  /** @internal */
  protected static async make<Model extends HomVision>(
    create: (gpu: Gpu, config: Required<HomVisionConfig>, parts: HomVisionParts) => Model,
    gpu: Gpu,
    config: HomVisionConfig,
    weights: ModelWeights,
  ): Promise<Model> {
    const where = "HomVision.create";
    checkGpu(where, gpu);
    checkObject(where, "config", config, [...SIZES, "pooling"]);
    const full = { ...config, channels: config.channels ?? 3, pooling: config.pooling ?? ("cls" as const) };
    checkSizes(where, full, SIZES);
    checkOneOf(where, "pooling", full.pooling, ["cls", "none"]);
    const { dim, layers, order, orderExpand, ffwExpand, imageSize, patchSize, channels, classes } = full;
    if (imageSize < patchSize) throw rangeError(where, "imageSize", `be at least the patchSize ${patchSize}`, imageSize);
    gpu.checkUsable(where);
    const inner = channels * patchSize * patchSize;
    const shapes: Record<string, number[]> = {
      position: [1, Math.floor(imageSize / patchSize) ** 2, dim],
      cls: [1, 1, dim],
      "conv.weight": [dim, channels, patchSize, patchSize],
      "conv.bias": [dim],
      "out_proj.weight": [classes, dim],
      "out_proj.bias": [classes],
    };
    for (let i = 0; i < layers; i++) Object.assign(shapes, blockShapes(`layers.${i}.`, { dim, order, orderExpand, ffwExpand }, ["ffw.1", "ffw.3"]));
    const params = modelParams(where, weights, shapes, {});
    const parts = new Parts();
    try {
      const { result, status } = gpu.guard(where, () => ({
        conv: parts.linear(gpu, params, "conv", { inner, outer: dim }),
        output: parts.linear(gpu, params, "out_proj", { inner: dim, outer: classes }),
        cls: parts.keep(gpu.upload("hom.vision.cls", params["cls"] ?? new Float32Array())),
      }));
      const blocks: HomBlock[] = [];
      for (let i = 0; i < layers; i++) {
        const prefix = `layers.${i}.`;
        const own = Object.fromEntries(
          Object.entries(params).flatMap(([key, value]) => (key.startsWith(prefix) ? [[key.slice(prefix.length), value]] : [])),
        );
        blocks.push(parts.keep(await HomBlock.create(gpu, { dim, order, orderExpand, ffwExpand }, own)));
      }
      const failure = await status;
      if (failure) throw failure;
      const kernels = [gpu.prepare(patchify, {}), gpu.prepare(addRows, { activation: "identity" })];
      await Promise.all([result.conv.prepare(), result.output.prepare(), ...kernels]);
      return create(gpu, full, { ...result, blocks, position: params["position"] ?? new Float32Array(), owned: parts });
    } catch (error) {
      parts.destroy();
      throw error;
    }
  }

  /** Images `[B, C, H, W]` in f32 -> logits `[B, classes]`, or `[B, n, classes]` without pooling. @throws TypeError, RangeError, GpuLostError */
  forward(image: Tensor, options: HomVisionForwardOptions = {}): Tensor {
    const where = "HomVision.forward";
    return this.run(where, image, this.check(where, image, options));
  }

  /** @internal */
  protected check(where: string, image: Tensor, options: HomVisionForwardOptions): HomVisionCall {
    checkObject(where, "options", options, ["mask"]);
    this.checkUsable(where);
    const { gpu } = this;
    const { dim, classes, channels, patchSize: patch, pooling } = this.config;
    const { batch, height, width } = checkImage(where, image, gpu, channels, patch);
    const n = Math.floor(height / patch) * Math.floor(width / patch);
    const tokens = n + 1;
    checkRows(where, gpu, batch * tokens, Math.max(dim, channels * patch * patch));
    const known = this.parts.position.length / dim;
    if (n !== known && Math.floor(Math.sqrt(n)) ** 2 !== n) {
      const hint = "the positions of another size are a resized square";
      throw rangeError(where, "image", `have ${known} patches, or a square number of them`, raw(`${n} patches`), hint);
    }
    const shape = { batch, queryLength: tokens, contextLength: tokens };
    const mask = options.mask && { padding: withCls(where, options.mask, batch, n) };
    const resolved = resolveMask(where, mask, shape, 1, MASK_EPSILON);
    const read = pooling === "cls" ? { at: 0, count: 1 } : { at: 1, count: n };
    const outShape = pooling === "cls" ? [batch, classes] : [batch, n, classes];
    return { sizes: { batch, height, width, n, channels, patch, dim }, shape, resolved, read, outShape };
  }

  /** The positions of n patches, `[n, D]`. @internal */
  protected positions(where: string, n: number): GPUBuffer {
    const { dim } = this.config;
    const { position } = this.parts;
    return this.#positions.get(String(n), () => {
      const rows = n === position.length / dim ? position : resizeGrid(where, position, dim, Math.floor(Math.sqrt(n)), false);
      return this.gpu.upload("hom.vision.position", rows);
    });
  }

  /** @internal */
  protected run(where: string, image: Tensor, { sizes, shape, resolved, read, outShape }: HomVisionCall): Tensor {
    const { gpu } = this;
    const { conv, blocks, output, cls } = this.parts;
    const { batch, height, width, n, channels, patch, dim } = sizes;
    const rows = batch * (n + 1);
    const positions = this.positions(where, n);
    const free: (() => void)[] = [];
    const { result, status } = gpu.guard(where, () => {
      const logits = Tensor.allocate(where, gpu, "hom.logits", outShape);
      const patches = scratchRows(gpu, "image_patches", batch * n, channels * patch * patch);
      const embedded = scratchRows(gpu, "image_embedded", batch * n, dim);
      const between = scratchRows(gpu, "image_between", rows, dim);
      let x = scratchRows(gpu, "image_x", rows, dim);
      let spare = scratchRows(gpu, "image_spare", rows, dim);
      gpu.submit("vision", (pass) => {
        const key = [batch, height, width].join();
        const offset = planOffset(image);
        this.#plans.record(pass, `patches ${key} ${offset}`, { image, patches }, (most) => planPatches(sizes, offset, most));
        conv.record(pass, { x: patches, y: embedded, rows: batch * n });
        this.#plans.record(pass, `positions ${key}`, { positions, embedded, x }, (most) => planPositions(sizes, most));
        this.#plans.record(pass, `cls ${key}`, { cls_token: cls, x }, (most) => planCls(sizes, most));
        for (const block of blocks) {
          free.push(...block.record(pass, { shape, resolved, query: x }, between, spare, rows));
          [x, spare] = [spare, x];
        }
        this.#plans.record(pass, `read ${key}`, { x, rows: embedded }, (maxWorkgroups) => {
          const size = batch * read.count * dim * 4;
          const to = { slot: { buffer: "rows", offset: 0, size }, batch: read.count * dim, token: dim };
          return planAddRows({ a: tokensOf(sizes, read.at), y: to, batch, tokens: read.count, dim, maxWorkgroups });
        });
        output.record(pass, { x: embedded, y: { buffer: logits, byteOffset: 0 }, rows: batch * read.count });
      });
      return logits;
    });
    for (const f of free) f();
    return Tensor.adopt(gpu, result, outShape, allOf([status, image.status]));
  }

  /** Frees the weights. Results already returned stay valid. */
  destroy(): void {
    if (this.#destroyed) return;
    this.#destroyed = true;
    this.parts.owned.destroy();
    this.#positions.destroy();
    this.#plans.destroy();
  }

  [Symbol.dispose](): void {
    this.destroy();
  }

  /** @internal */
  protected checkUsable(where: string): void {
    if (this.#destroyed) throw typeError(where, "model", "be alive", raw("a destroyed model"));
    this.gpu.checkUsable(where);
  }
}

/** Shapes of a residual block's parameters. */
export function blockShapes(
  prefix: string,
  { dim, order, orderExpand, ffwExpand }: { dim: number; order: number; orderExpand: number; ffwExpand: number },
  [up, down]: readonly [string, string],
): Record<string, number[]> {
  const M = order * orderExpand * dim;
  const hidden = ffwExpand * dim;
  return {
    [`${prefix}hom.ho_proj.weight`]: [M, dim],
    [`${prefix}hom.ho_proj.bias`]: [M],
    [`${prefix}hom.se_proj.weight`]: [M, dim],
    [`${prefix}hom.se_proj.bias`]: [M],
    [`${prefix}hom.ag_proj.weight`]: [dim, M],
    [`${prefix}hom.ag_proj.bias`]: [dim],
    [`${prefix}${up}.weight`]: [hidden, dim],
    [`${prefix}${up}.bias`]: [hidden],
    [`${prefix}${down}.weight`]: [dim, hidden],
    [`${prefix}${down}.bias`]: [dim],
  };
}

/** The patches' mask behind a 1 for the token before them. */
function withCls(where: string, mask: Uint8Array | Float32Array, batch: number, n: number): Float32Array {
  if (!(mask instanceof Uint8Array) && !(mask instanceof Float32Array)) throw typeError(where, "mask", "be a Uint8Array or a Float32Array", mask);
  if (mask.length !== batch * n) throw rangeError(where, "mask", `have ${batch * n} elements ([${batch}, ${n}])`, raw(`${mask.length}`));
  const weights = new Float32Array(batch * (n + 1)).fill(1);
  for (let i = 0; i < mask.length; i++) {
    const value = mask[i] ?? 0;
    weights[i + Math.floor(i / n) + 1] = mask instanceof Uint8Array && value !== 0 ? 1 : value;
  }
  return weights;
}
