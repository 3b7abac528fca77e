import type { Gpu } from "../runtime/gpu.ts";
import type { Tensor } from "../runtime/tensor.ts";
import { PomLayer as InferenceLayer, type PomForwardOptions } from "./pom.ts";
import type { PomConfig, PomParams } from "./pom_config.ts";
import { pomTraining } from "./pom_training.ts";
import { type HomTrainingPass, type TrainedLayer, trainingPass } from "./training.ts";

/** Options of {@link PomLayer.forwardForTraining}. */
export interface PomTrainingOptions extends Pick<PomForwardOptions, "context" | "mask" | "positions" | "contextPositions"> {}

const TRAINING_KEYS = ["context", "mask", "positions", "contextPositions"];

/**
 * The polynomial mixer: y = ag_proj(s ⊙ h), h the mean over context tokens of Σ_j coeff_j a^j with a = min(6, max(-0.1, leaky_relu(x W_poᵀ))), s the hard sigmoid of
 * x W_seᵀ + b, one gate a channel or a head. With a rotation, h's terms and s are turned by their tokens' positions. Linear in the number of tokens. Where a query may
 * see nothing, h is 0 (the formula has 0 / 0 there).
 *
 * @example
 * const pom = await PomLayer.create(gpu, { dim: 64, degree: 2, expand: 2 }, params);
 * const y = pom.forward(Tensor.from(gpu, data, [1, 100, 64]), { mask: "causal" });
 * console.log(await y.read());
 */
export class PomLayer extends InferenceLayer {
  /**
   * Checks and uploads the parameters and compiles the kernels; the only slow step.
   * @throws TypeError, RangeError for the configuration, WeightsError for the parameters, GpuLostError, GpuOutOfMemoryError
   */
  static override create(gpu: Gpu, config: PomConfig, params: PomParams): Promise<PomLayer> {
    return InferenceLayer.make((...parts) => new PomLayer(...parts), gpu, config, params);
  }

  /**
   * Runs the layer and returns, with the output, what computes the gradients: of a layer with f32 weights and output, for query and context in f32. Tables of
   * rotations are constants. Mask and positions are what they were at this call, whatever happens to their arrays later.
   * @throws TypeError, RangeError for arguments, GpuLostError; what the device refuses later is thrown by `read()` of the results
   *
   * @example
   * const { output, backward } = pom.forwardForTraining(x, { mask: "causal" });
   * const { query, params } = backward(gradOutput);
   * console.log(await params["po_coeff"].read());
   */
  forwardForTraining(query: Tensor, options: PomTrainingOptions = {}): HomTrainingPass {
    const { buffers: weights, name, status, epsilon } = this.parts;
    const layer: TrainedLayer = {
      ...pomTraining(this.config, this.gpu),
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
