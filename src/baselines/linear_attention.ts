import { rangeError, raw } from "../checks.ts";
import { featureStateStride4 } from "../ops/feature_sums.ts";
import type { Gpu } from "../runtime/gpu.ts";
import { BIND_ALIGNMENT } from "../runtime/kernel.ts";
import { checkGpu, type Tensor } from "../runtime/tensor.ts";
import { type BaselineParams, checkBaselineParams, checkBudget, checkLinearAttentionConfig, type LinearAttentionConfig } from "./config.ts";
import { packFeatures, vectorsOf } from "./feature_weights.ts";
import { flops } from "./flops.ts";
import { type LinearAttentionPlanConfig, minimumLinearAttentionScratch, planLinearAttention } from "./linear_attention_plan.ts";
import { type BaselineForwardOptions, type BaselinePlanOptions, type BaselinePlanReport, packProjections, SelfAttention } from "./self_attention.ts";

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

  private constructor(gpu: Gpu, config: Required<LinearAttentionConfig>, layer: SelfAttention) {
    this.gpu = gpu;
    this.config = Object.freeze(config);
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
    return new LinearAttentionLayer(gpu, full, layer);
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
