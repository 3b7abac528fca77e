import { checkOneOf } from "../checks.ts";
import { activationGradient } from "./activation_gradients.ts";
import { activationFunction, LINEAR_ACTIVATION_NAMES, type LinearActivation } from "./activations.ts";
import { checkLength } from "./arrays.ts";

/** h = act(u) and du = dh ⊙ act'(u): u and dh of one length -> h and du of that length. */
export function activateBackward(u: ArrayLike<number>, dh: ArrayLike<number>, activation: LinearActivation): { h: Float64Array; du: Float64Array } {
  const where = "activateBackward";
  checkOneOf(where, "activation", activation, LINEAR_ACTIVATION_NAMES);
  checkLength(where, "dh", dh, u.length, "as many as u");
  const act = activationFunction(activation);
  const gradient = activationGradient(activation);
  return { h: Float64Array.from(u, act), du: Float64Array.from(u, (value, i) => dh[i]! * gradient(value)) };
}
