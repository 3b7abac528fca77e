import { rangeError, raw } from "../checks.ts";
import type { HomTrainingPass } from "../layers/training.ts";
import { featureStateStride4 } from "../ops/feature_sums.ts";
import type { Gpu } from "../runtime/gpu.ts";
import { BIND_ALIGNMENT } from "../runtime/kernel.ts";
import { checkGpu, type Tensor } from "../runtime/tensor.ts";
import { type BaselineParams, checkBaselineParams, checkBudget, checkLinearAttentionConfig, type LinearAttentionConfig } from "./config.ts";
import { packFeatures, vectorsOf } from "./feature_weights.ts";
import { flops } from "./flops.ts";
import { backwardSumBytes, minimumLinearAttentionBackwardScratch, planLinearAttentionBackward } from "./linear_attention_backward_plan.ts";
import { type LinearAttentionPlanConfig, minimumLinearAttentionScratch, planLinearAttention } from "./linear_attention_plan.ts";
import {
  type BaselineForwardOptions,
  type BaselinePlanOptions,
  type BaselinePlanReport,
  type BaselineTrainingOptions,
  packProjections,
  SelfAttention,
} from "./self_attention.ts";
import { projectionTraining } from "./self_attention_backward.ts";

/**
 * Multi-head self-attention that is linear in the number of tokens: y = out_proj(Σ (φ(q)·φ(k)) v / Σ φ(q)·φ(k)), φ random features.
 * A denominator is kept 1e-30 away from 0.
 *
 * @example
 * const config = { dim: 128, heads: 2, featureMap: "favor", features: 128 } as const;
 * const performer = await LinearAttentionLayer.create(gpu, config, { ...projections, ...drawFeatures(config, 1) });
 * const y = performer.forward(x, { causal: true });
 */
export class LinearAttentionLayer {
  readonly gpu: Gpu;
  readonly config: Readonly<Required<LinearAttentionConfig>>;
  readonly #layer: SelfAttention;
  /** Factors of a feature. */
  readonly #levels: number;

  private constructor(gpu: Gpu, config: Required<LinearAttentionConfig>, levels: number, layer: SelfAttention) {
    this.gpu = gpu;
    this.config = Object.freeze(config);
    this.#levels = levels;
    this.#layer = layer;
  }

  /**
   * Checks and uploads the parameters and compiles the kernels; the only slow step.
   * @throws TypeError, RangeError for the configuration, WeightsError for the parameters, GpuLostError, GpuOutOfMemoryError
   */
  static async create(gpu: Gpu, config: LinearAttentionConfig, params: BaselineParams): Promise<LinearAttentionLayer> {
    const where = "LinearAttentionLayer.create";
    checkGpu(where, gpu);
    const full = checkLinearAttentionConfig(where, config, gpu);
    checkBaselineParams(where, full, params);
    const { dim, heads, featureMap, features } = full;
    const { omega, rademacher, degrees } = params;
    const packed = packFeatures({ featureMap, features, heads, headDim: dim / heads }, { omega, rademacher, degrees });
    const planned: LinearAttentionPlanConfig = { ...full, vectors: vectorsOf(full), levels: packed.levels };
    checkBudget(where, full.scratchBudget, minimumLinearAttentionScratch(planned, gpu.tuning));
    const stateBytes = 16 * featureStateStride4({ heads, head4: Math.ceil(dim / heads / 4), features4: packed.features4 });
    const most = gpu.limits.maxStorageBufferBindingSize - BIND_ALIGNMENT;
    const largest = Math.max(2 * stateBytes, packed.w.byteLength);
    if (largest > most)
      throw rangeError(where, "features", `make sums that the device can bind, at most ${most} bytes`, raw(`${features}: ${largest} bytes`));
    const layer = await SelfAttention.create(
      gpu,
      {
        name: "LinearAttentionLayer",
        dim,
        plan: (call) => planLinearAttention(planned, gpu.tuning, gpu.limits, call),
        flops: (shape) => flops({ layer: "linear_attention", dim, heads, featureMap, features }, shape),
      },
      { ...packProjections(full, params, 1), vectors: packed.w, counts: packed.counts },
    );
    return new LinearAttentionLayer(gpu, full, packed.levels, layer);
  }

  /** Bytes of this layer's weights on the GPU, random vectors included. */
  get weightBytes(): number {
    return this.#layer.weightBytes;
  }

  /**
   * Runs the layer: x `[B, N, D]` -> `[B, N, D]`, f32. The result stays on the GPU until it is read; nothing is waited for.
   * @throws TypeError, RangeError for arguments, GpuLostError; what the device refuses later is thrown by `read()` of the result
   */
  forward(x: Tensor, options: BaselineForwardOptions = {}): Tensor {
    return this.#layer.forward(x, options);
  }

  /**
   * Runs the layer and returns, with the output, what computes the gradients: of the tokens, as `query`, and of the projections; the random vectors are constants. Only
   * x is kept; features and sums are computed again, in slabs within `scratchBudget`. Beside the budget are 8 bytes a token and head. A token whose denominator was
   * moved away from 0 has no part in the gradients.
   * @throws TypeError, RangeError for arguments, or a `scratchBudget` too small for gradients, GpuLostError; what the device refuses later is thrown by `read()`
   *
   * @example
   * const { output, backward } = performer.forwardForTraining(x, { causal: true });
   * const { query, params } = backward(gradOutput);
   * console.log(await params["q_proj.weight"].read());
   */
  forwardForTraining(x: Tensor, options: BaselineTrainingOptions = {}): HomTrainingPass {
    const where = "LinearAttentionLayer.forwardForTraining";
    const { gpu, config } = this;
    const { tuning, limits } = gpu;
    const planned = { ...config, vectors: vectorsOf(config), levels: this.#levels };
    checkBudget(where, config.scratchBudget, minimumLinearAttentionBackwardScratch(planned, tuning));
    const [bytes, most] = [backwardSumBytes(planned, tuning), limits.maxStorageBufferBindingSize - BIND_ALIGNMENT];
    if (bytes > most) {
      const { features } = config;
      throw rangeError(where, "features", `make sums that the device can bind, at most ${most} bytes`, raw(`${features}: ${bytes} bytes`));
    }
    const training = projectionTraining(config, gpu, 1, (call) => planLinearAttentionBackward(planned, tuning, limits, call));
    return this.#layer.forwardForTraining(x, options, training);
  }

  /** Dispatches, FLOPs, bytes and scratch of a call; pure, no GPU work. */
  plan(options: BaselinePlanOptions): BaselinePlanReport {
    return this.#layer.plan(options);
  }

  /** Frees the weights. Results already returned stay valid. */
  destroy(): void {
    this.#layer.destroy();
  }

  [Symbol.dispose](): void {
    this.destroy();
  }
}
