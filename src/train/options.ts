import { checkInteger, checkObject, rangeError, typeError } from "../checks.ts";
import { checkRate } from "./schedule.ts";

/** How an {@link HlmTrainer} learns: rate, AdamW, clipping, memory. */
export interface TrainerOptions {
  /** Learning rate of a step that is not told another. Default 1e-3. */
  readonly lr?: number;
  /** How slowly AdamW forgets a gradient, and its square. Default [0.9, 0.99]. */
  readonly betas?: readonly [number, number];
  /** Added to the root of the second moment. Default 1e-8. */
  readonly eps?: number;
  /** Decoupled decay of weights, not of biases: w shrinks by lr·weightDecay of itself in a step. Default 0.1. */
  readonly weightDecay?: number;
  /** Gradients are scaled down to this norm where they exceed it; Infinity never does. Default 1. */
  readonly clipNorm?: number;
  /** Bytes of scratch memory beside the kept activations. Default 64 MiB. */
  readonly scratchBudget?: number;
}

/** The options with their defaults. */
export type TrainerSettings = Required<TrainerOptions>;

const OPTION_KEYS: readonly (keyof TrainerOptions)[] = ["lr", "betas", "eps", "weightDecay", "clipNorm", "scratchBudget"];

/** The options with their defaults. @throws TypeError, RangeError */
export function checkTrainerOptions(where: string, options: TrainerOptions): TrainerSettings {
  checkObject(where, "options", options, OPTION_KEYS);
  const { lr = 1e-3, betas = [0.9, 0.99], eps = 1e-8, weightDecay = 0.1, clipNorm = 1, scratchBudget = 64 << 20 } = options;
  checkRate(where, "lr", lr);
  if (!Array.isArray(betas) || betas.length !== 2) throw typeError(where, "betas", "be an array of two numbers", betas);
  for (const [i, beta] of betas.entries()) {
    if (typeof beta !== "number") throw typeError(where, `betas[${i}]`, "be a number", beta);
    if (!(beta >= 0 && beta < 1)) throw rangeError(where, `betas[${i}]`, "be from 0 to less than 1", beta);
  }
  if (checkRate(where, "eps", eps) === 0) throw rangeError(where, "eps", "be greater than 0", eps);
  checkRate(where, "weightDecay", weightDecay);
  if (typeof clipNorm !== "number") throw typeError(where, "clipNorm", "be a number", clipNorm);
  if (!(clipNorm > 0)) throw rangeError(where, "clipNorm", "be greater than 0", clipNorm, "Infinity turns clipping off");
  checkInteger(where, "scratchBudget", scratchBudget, 1);
  return Object.freeze({ lr, betas: [...betas] as [number, number], eps, weightDecay, clipNorm, scratchBudget });
}
