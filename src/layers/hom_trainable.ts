import type { Gpu } from "../runtime/gpu.ts";
import type { Tensor } from "../runtime/tensor.ts";
import { type HomForwardOptions, HomLayer as InferenceLayer } from "./hom.ts";
import type { HomConfig, HomParams } from "./hom_config.ts";
import { homTraining } from "./hom_training.ts";
import { type HomTrainingPass, type TrainedLayer, trainingPass } from "./training.ts";

/** Options of {@link HomLayer.forwardForTraining}. */
export interface HomTrainingOptions extends Pick<HomForwardOptions, "context" | "mask" | "queryMask"> {}

const TRAINING_KEYS = ["context", "mask", "queryMask"];

/**
 * The high-order moment layer: y = ag_proj(σ(se_proj(xq)) ⊙ h), h the mean over context tokens of the products
 * m₁ = z₁, m_i = z_i ⊙ m_(i-1), z = act(ho_proj(xc)) cut into k chunks. Linear in the number of tokens; no normalisation, no residual.
 *
 * @example
 * const hom = await HomLayer.create(gpu, { dim: 64, order: 2, orderExpand: 2 }, params);
 * const y = hom.forward(Tensor.from(gpu, data, [1, 100, 64]), { mask: "causal" });
 * console.log(await y.read());
 */
export class HomLayer extends InferenceLayer {
  /**
   * Checks and uploads the parameters and compiles the kernels; the only slow step.
   * @throws TypeError, RangeError for the configuration, WeightsError for the parameters, GpuLostError, GpuOutOfMemoryError
   */
  static override create(gpu: Gpu, config: HomConfig, params: HomParams): Promise<HomLayer> {
    return InferenceLayer.make((...parts) => new HomLayer(...parts), gpu, config, params);
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
    const { buffers: weights, name, status, epsilon } = this.parts;
    const layer: TrainedLayer = {
      ...homTraining(this.config, this.gpu),
      name,
      gpu: this.gpu,
      dtypes: this.config,
      weights,
      programs: this.programs,
      status,
      checkUsable: (where) => this.checkUsable(where),
      checkMask: (where, mask, shape) => mask.check(where, this.gpu, shape, this.blockTokens, epsilon),
      run: (where, call) => this.run(where, call),
    };
    return trainingPass(layer, options, TRAINING_KEYS, (where) => this.check(where, query, options));
  }
}
