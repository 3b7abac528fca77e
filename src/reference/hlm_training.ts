import { checkInteger } from "../checks.ts";
import { toFloat64 } from "./arrays.ts";
import type { HlmConfig } from "./hlm.ts";
import { type HlmBackwardArguments, hlmBackward } from "./hlm_backward.ts";
import type { Weights } from "./types.ts";

/** Settings of AdamW (Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019) and of the clipping by global norm before it. */
export interface AdamWSettings {
  readonly lr: number;
  readonly betas: readonly [number, number];
  readonly eps: number;
  readonly weightDecay: number;
  /** Gradients are scaled by min(1, clipNorm / (norm + 1e-6)), norm the L2 norm over all of them; Infinity leaves them. */
  readonly clipNorm: number;
}

/** A whole training run in float64: what the trainer on the GPU is tested against. */
export class HlmTraining {
  readonly config: HlmConfig;
  readonly settings: AdamWSettings;
  /** By checkpoint name. */
  readonly weights: Record<string, Float64Array> = {};
  readonly #moments = new Map<string, { readonly first: Float64Array; readonly second: Float64Array }>();
  #step = 0;

  constructor(config: HlmConfig, weights: Weights, settings: AdamWSettings) {
    this.config = config;
    this.settings = settings;
    for (const [key, values] of Object.entries(weights)) if (values) this.weights[key] = toFloat64(Array.from(values) as ArrayLike<number>);
  }

  /** One optimiser step on the mean loss of tokens [B, n+1]. Tensors of one axis are not decayed, and `freqs` is not trained. */
  step(tokens: ArrayLike<number>, args: HlmBackwardArguments & { readonly lr?: number } = {}): { loss: number; gradNorm: number } {
    const { lr = this.settings.lr, ...rest } = args;
    const { loss, grads } = hlmBackward(this.config, this.weights, tokens, rest);
    const gradNorm = Math.sqrt(Object.values(grads).reduce((sum, grad) => sum + grad.reduce((s, g) => s + g * g, 0), 0));
    this.update(grads, gradNorm, lr);
    return { loss, gradNorm };
  }

  /** w ← (1 - lr·λ)·w, then w ← w - lr·m̂ / (√v̂ + ε), m̂ and v̂ the bias-corrected moments of the clipped gradients. */
  update(grads: Readonly<Record<string, Float64Array>>, gradNorm: number, lr: number): void {
    const { betas, eps, weightDecay, clipNorm } = this.settings;
    const [beta1, beta2] = betas;
    const scale = Math.min(1, clipNorm / (gradNorm + 1e-6));
    const t = checkInteger("HlmTraining.update", "step", ++this.#step, 1);
    for (const [key, grad] of Object.entries(grads)) {
      const weight = this.weights[key]!;
      const decay = key.endsWith(".bias") || key.endsWith(".mix") ? 0 : weightDecay;
      const { first, second } = this.#moments.get(key) ?? { first: new Float64Array(grad.length), second: new Float64Array(grad.length) };
      this.#moments.set(key, { first, second });
      for (let i = 0; i < grad.length; i++) {
        const g = grad[i]! * scale;
        first[i] = beta1 * first[i]! + (1 - beta1) * g;
        second[i] = beta2 * second[i]! + (1 - beta2) * g * g;
        const m = first[i]! / (1 - beta1 ** t);
        const v = second[i]! / (1 - beta2 ** t);
        weight[i] = weight[i]! * (1 - lr * decay) - (lr * m) / (Math.sqrt(v) + eps);
      }
    }
  }
}
