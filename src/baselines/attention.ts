import type { HomTrainingPass } from "../layers/training.ts";
import type { Gpu } from "../runtime/gpu.ts";
import { checkGpu, type Tensor } from "../runtime/tensor.ts";
import { minimumAttentionBackwardScratch, planAttentionBackward } from "./attention_backward_plan.ts";
import { minimumAttentionScratch, planAttention } from "./attention_plan.ts";
import { type AttentionConfig, type BaselineParams, checkAttentionConfig, checkBaselineParams, checkBudget } from "./config.ts";
import { flops } from "./flops.ts";
import {
  type BaselineForwardOptions,
  type BaselinePlanOptions,
  type BaselinePlanReport,
  type BaselineTrainingOptions,
  packProjections,
  SelfAttention,
} from "./self_attention.ts";
import { projectionTraining } from "./self_attention_backward.ts";

/** What the queries are multiplied by: the kernels take powers of 2. */
function queryScale({ dim, heads }: Required<AttentionConfig>): number {
  return Math.LOG2E / Math.sqrt(dim / heads);
}

/**
 * Multi-head softmax self-attention, y = out_proj(softmax(q kᵀ / √d) v), without a matrix of queries by keys in memory.
 *
 * @example
 * const attention = await AttentionLayer.create(gpu, { dim: 128, heads: 2 }, params);
 * const y = attention.forward(x, { causal: true });
 */
export class AttentionLayer {
  readonly gpu: Gpu;
  readonly config: Readonly<Required<AttentionConfig>>;
  readonly #layer: SelfAttention;

  private constructor(gpu: Gpu, config: Required<AttentionConfig>, layer: SelfAttention) {
    this.gpu = gpu;
    this.config = Object.freeze(config);
    this.#layer = layer;
  }

  /**
   * Checks and uploads the parameters and compiles the kernels; the only slow step.
   * @throws TypeError, RangeError for the configuration, WeightsError for the parameters, GpuLostError, GpuOutOfMemoryError
   */
  static async create(gpu: Gpu, config: AttentionConfig, params: BaselineParams): Promise<AttentionLayer> {
    const where = "AttentionLayer.create";
    checkGpu(where, gpu);
    const full = checkAttentionConfig(where, config, gpu);
    checkBudget(where, full.scratchBudget, minimumAttentionScratch(full));
    checkBaselineParams(where, full, params);
    const { dim, heads } = full;
    const weights = packProjections(full, params, queryScale(full));
    const layer = await SelfAttention.create(
      gpu,
      {
        name: "AttentionLayer",
        dim,
        plan: (call) => planAttention(full, gpu.tuning, gpu.limits, call),
        flops: (shape) => flops({ layer: "attention", dim, heads }, shape),
      },
      weights,
    );
    return new AttentionLayer(gpu, full, layer);
  }

  /** Bytes of this layer's weights on the GPU. */
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
   * Runs the layer and returns, with the output, what computes the gradients: of the tokens, as `query`, and of the parameters. Only x is kept; attention is
   * computed again, in slabs within `scratchBudget`, and no matrix of queries by keys reaches memory. Beside the budget are 12 bytes a token and head.
   * @throws TypeError, RangeError for arguments, or a `scratchBudget` too small for gradients, GpuLostError; what the device refuses later is thrown by `read()`
   *
   * @example
   * const { output, backward } = attention.forwardForTraining(x, { causal: true });
   * const { query, params } = backward(gradOutput);
   * console.log(await params["q_proj.weight"].read());
   */
  forwardForTraining(x: Tensor, options: BaselineTrainingOptions = {}): HomTrainingPass {
    const { gpu, config } = this;
    checkBudget("AttentionLayer.forwardForTraining", config.scratchBudget, minimumAttentionBackwardScratch(config));
    const training = projectionTraining(config, gpu, queryScale(config), (call) => planAttentionBackward(config, gpu.tuning, gpu.limits, call));
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
