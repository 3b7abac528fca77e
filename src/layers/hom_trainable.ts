import { checkObject, checkOneOf, raw, typeError } from "../checks.ts";
import type { Gpu } from "../runtime/gpu.ts";
import type { Tensor } from "../runtime/tensor.ts";
import { type HomForwardOptions, HomLayer as InferenceLayer } from "./hom.ts";
import type { HomConfig, HomParams } from "./hom_config.ts";
import { type HomGradients, type HomTrainingPass, runBackward, type TrainingCall } from "./hom_training.ts";
import { checkTensor } from "./tensor_checks.ts";

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
    const where = "HomLayer.forwardForTraining";
    checkObject(where, "options", options, TRAINING_KEYS);
    const call = this.check(where, query, options);
    const { dtype, weightDtype } = this.config;
    if (dtype !== "f32" || weightDtype !== "f32") {
      const got = raw(`dtype "${dtype}" and weightDtype "${weightDtype}"`);
      throw typeError(where, "layer", "have weights and output in f32", got, 'create it with dtype "f32"');
    }
    checkOneOf(where, "query's dtype", query.dtype, ["f32"]);
    checkOneOf(where, "context's dtype", call.context.dtype, ["f32"]);
    const { resolved, prepared, shape, queryMask = false } = call;
    const given = { ...(prepared ? {} : resolved.uploads), ...call.uploads };
    const uploads = Object.fromEntries(Object.entries(given).map(([name, data]) => [name, data.slice()]));
    const kept = { query, context: options.context, shape, resolved, prepared, uploads, queryMask };
    const output = this.run(where, call);
    return { output, backward: (gradOutput) => this.#backward(kept, gradOutput) };
  }

  #backward(call: TrainingCall, gradOutput: Tensor): HomGradients {
    const where = "HomLayer.forwardForTraining's backward";
    const { query, context, shape, prepared } = call;
    this.checkUsable(where);
    const likeQuery = (s: readonly number[]) => s.join() === query.shape.join();
    this.checkTensor(where, "gradOutput", gradOutput, `[${query.shape.join(", ")}]`, likeQuery);
    checkOneOf(where, "gradOutput's dtype", gradOutput.dtype, ["f32"]);
    checkTensor(where, "query", query, this.gpu);
    if (context) checkTensor(where, "context", context, this.gpu);
    prepared?.check(where, this.gpu, shape, this.blockTokens, this.parts.epsilon);
    const { buffers, status } = this.parts;
    const layer = { gpu: this.gpu, config: this.config, weights: buffers, programs: this.programs, status };
    return runBackward(where, layer, call, gradOutput);
  }
}
