import type { RowGroups } from "../ops/embed_backward.ts";
import { packRowGroups } from "../ops/embed_backward.ts";
import type { Gpu } from "../runtime/gpu.ts";
import { planOffset } from "../runtime/program.ts";
import { ProgramCache } from "../runtime/program_cache.ts";
import type { Tensor } from "../runtime/tensor.ts";
import type { GPUBuffer } from "../webgpu.ts";
import { type DihConfig, Dih as InferenceDih } from "./dih.ts";
import { DihSteps } from "./dih_steps.ts";
import { KeptBuffers } from "./image_parts.ts";
import { gridWeights } from "./interpolate.ts";
import { checkGradient, type ModelProgram, type ModelTrainingPass, modelGradients } from "./model_training.ts";
import type { ModelWeights } from "./with_shapes.ts";

/** Gradients of one call of a {@link Dih}, on the GPU. They are the caller's to destroy. */
export interface DihGradients {
  /** `[B, C, S, S]` */
  readonly image: Tensor;
  /** By checkpoint name and in the checkpoint's layout; `freqs` is not trained. */
  readonly params: Readonly<Record<string, Tensor>>;
}

const KEPT_PROGRAMS = 8;

/**
 * The HoM diffusion model of `homm-webgpu/models`, DiH and DiH++, with its gradients.
 *
 * @example
 * const { output, backward } = model.forwardForTraining(noisy, [10, 400], [0, 3]);
 * const { image, params } = backward(gradOutput);
 * console.log(await params["out_proj.weight"].read());
 */
export class Dih extends InferenceDih {
  readonly #programs = new ProgramCache<ModelProgram>(KEPT_PROGRAMS);
  readonly #resizes = new KeptBuffers();

  /** @throws TypeError, RangeError for the configuration, WeightsError for the checkpoint, GpuLostError, GpuOutOfMemoryError */
  static override create(gpu: Gpu, config: DihConfig, weights: ModelWeights): Promise<Dih> {
    return InferenceDih.make((...parts) => new Dih(...parts), gpu, config, weights);
  }

  /**
   * As {@link Dih.forward}, and what computes the gradients of the image and of all parameters. Times and classes are what they were at this call, whatever happens to
   * their arrays later. Where a token was clamped its gradient is 0.
   * @throws TypeError, RangeError, GpuLostError
   */
  forwardForTraining(image: Tensor, time: ArrayLike<number>, classes: ArrayLike<number>): ModelTrainingPass<DihGradients> {
    const [times, ids] = [Array.from(time ?? [], Number), Array.from(classes ?? [], Number)];
    const output = this.run("Dih.forwardForTraining", image, time, classes);
    return { output, backward: (gradOutput) => this.#backward(image, times, ids, gradOutput) };
  }

  #backward(image: Tensor, time: readonly number[], classes: readonly number[], gradOutput: Tensor): DihGradients {
    const where = "Dih.forwardForTraining's backward";
    const { gpu, config, made } = this;
    const { batch, side } = this.check(where, image);
    checkGradient(where, gradOutput, image.shape, gpu);
    const [features, rows] = this.conditions(where, time, classes, batch);
    const own = config.imageSize / config.patchSize;
    const uploads = {
      features,
      classes: rows,
      groups: packRowGroups(rowGroups(classes), config.classes + 1),
    };
    const resized = config.registers !== undefined && side !== own;
    const resize = resized ? this.#resizes.get(`${side}`, () => gpu.upload("hom.dih.resize", gridWeights(own, side, true))) : undefined;
    const call = { batch, side, image: planOffset(image), gradOut: planOffset(gradOutput) };
    const { gradImage, ...params } = modelGradients(where, {
      gpu,
      programs: this.#programs,
      key: Object.values(call).join(),
      plan: () => new DihSteps({ config, hom: made.blocks[0]!.hom.config, gpu }, call),
      inputs: {
        image,
        gradOut: gradOutput,
        position: this.grid(where, "pos_emb", side),
        ...(made.registers && { register_rows: made.registers, cond_position: this.grid(where, "cond_pos_emb", side) }),
        resize,
        ...this.#weights(),
      },
      uploads,
      statuses: [image.status, gradOutput.status],
    });
    return { image: gradImage as Tensor, params };
  }

  /** Packed weights by the names that the steps have for them. */
  #weights(): Record<string, GPUBuffer> {
    const { inConv, time, blocks, outMod, output } = this.made;
    const layers: Record<string, { readonly weights: GPUBuffer }> = {
      in_conv: inConv,
      "time_emb.0": time[0],
      "time_emb.2": time[1],
      "out_mod.1": outMod,
      out_proj: output,
    };
    const all: Record<string, GPUBuffer> = {};
    for (const [i, { hom, up, down, cond, gates }] of blocks.entries()) {
      const of = `layers.${i}.`;
      Object.assign(layers, { [`${of}ffw.0`]: up, [`${of}ffw.2`]: down, [`${of}cond_mlp.1`]: cond, [`${of}gate_mlp.1`]: gates });
      for (const [name, buffer] of Object.entries(hom.parts.buffers)) all[`${of}hom.${name}`] = buffer;
    }
    for (const [name, { weights }] of Object.entries(layers)) all[name] = weights;
    return all;
  }

  /** Frees the weights. Results already returned stay valid. */
  override destroy(): void {
    super.destroy();
    this.#programs.destroy();
    this.#resizes.destroy();
  }
}

/** Batch rows by class. */
function rowGroups(classes: readonly number[]): RowGroups {
  const keys = [...new Set(classes)];
  const members = keys.map((key) => classes.flatMap((id, row) => (id === key ? [row] : [])));
  const starts = [0];
  for (const rows of members) starts.push((starts.at(-1) ?? 0) + rows.length);
  return { order: Uint32Array.from(members.flat()), starts: Uint32Array.from(starts), keys: Uint32Array.from(keys) };
}
