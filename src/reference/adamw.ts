import { checkInteger } from "../checks.ts";
import { checkLength } from "./arrays.ts";

/** The numbers of a step of {@link adamw}. */
export interface AdamwArguments {
  readonly lr: number;
  readonly betas: readonly [number, number];
  readonly eps: number;
  /** 0 for biases and other tensors of one axis. */
  readonly weightDecay: number;
  /** The number of the step, from 1 on. */
  readonly step: number;
  /** Of the gradients; default 1. */
  readonly scale?: number;
}

/** Weights and both moments after a step. */
export interface AdamwState {
  readonly weights: Float64Array;
  readonly first: Float64Array;
  readonly second: Float64Array;
}

/**
 * One step of AdamW (Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019), in the order of operations of torch.optim.AdamW: decay of the
 * weights, moments, then the step with bias-corrected moments, eps added to the root. All arrays are of one length; none is changed.
 */
export function adamw(
  state: { readonly weights: ArrayLike<number>; readonly first: ArrayLike<number>; readonly second: ArrayLike<number> },
  gradients: ArrayLike<number>,
  args: AdamwArguments,
): AdamwState {
  const where = "adamw";
  const n = state.weights.length;
  for (const [name, values] of Object.entries({ gradients, first: state.first, second: state.second })) {
    checkLength(where, name, values, n, "as many as weights");
  }
  const t = checkInteger(where, "step", args.step, 1);
  const { lr, betas, eps, weightDecay, scale = 1 } = args;
  const [beta1, beta2] = betas;
  const weights = Float64Array.from(state.weights);
  const first = Float64Array.from(state.first);
  const second = Float64Array.from(state.second);
  for (let i = 0; i < n; i++) {
    const g = scale * gradients[i]!;
    const decayed = weights[i]! * (1 - lr * weightDecay);
    first[i] = beta1 * first[i]! + (1 - beta1) * g;
    second[i] = beta2 * second[i]! + (1 - beta2) * g * g;
    const denominator = Math.sqrt(second[i]!) / Math.sqrt(1 - beta2 ** t) + eps;
    weights[i] = decayed - ((lr / (1 - beta1 ** t)) * first[i]!) / denominator;
  }
  return { weights, first, second };
}
