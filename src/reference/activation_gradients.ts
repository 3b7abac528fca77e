/** Derivatives of the pointwise functions in float64. */
import { erf, erfc, type LinearActivation, sigmoid } from "./activations.ts";

const INVERSE_SQRT_2PI = 1 / Math.sqrt(2 * Math.PI);

/** Φ(x) + x·φ(x) */
function geluGradient(x: number): number {
  return 0.5 * erfc(-x * Math.SQRT1_2) + (Math.abs(x) > 40 ? 0 : x * INVERSE_SQRT_2PI * Math.exp(-0.5 * x * x));
}

/** 1 - tanh²(x), without the cancellation */
function tanhGradient(x: number): number {
  const e = Math.exp(-2 * Math.abs(x));
  return (4 * e) / ((1 + e) * (1 + e));
}

/** erf(x) + x·erf'(x) */
function xErfGradient(x: number): number {
  return erf(x) + (Math.abs(x) > 28 ? 0 : (2 / Math.sqrt(Math.PI)) * x * Math.exp(-x * x));
}

/** σ(x)·(1 + x·(1 - σ(x))), with 1 - σ(x) = σ(-x) */
function siluGradient(x: number): number {
  return Math.abs(x) > 745 ? Number(x > 0) : sigmoid(x) * (1 + x * sigmoid(-x));
}

const GRADIENTS: Readonly<Record<LinearActivation, (x: number) => number>> = {
  gelu: geluGradient,
  tanh: tanhGradient,
  identity: () => 1,
  x_erf: xErfGradient,
  silu: siluGradient,
};

/** The derivative of an activation, "gelu" when absent. */
export function activationGradient(name: LinearActivation = "gelu"): (x: number) => number {
  return GRADIENTS[name];
}
