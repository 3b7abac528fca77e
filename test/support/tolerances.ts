/**
 * Every tolerance of the tests, with its reason. All are bounds on the relative L2 error ‖actual - expected‖ / ‖expected‖ unless said otherwise.
 * The nearest wrong variant measured on the golden cases (GELU in its tanh form) is at 4.2e-5: a bound must stay well below that to tell them apart.
 */

/** One f32 layer or kernel against float64. Inputs are exact in both; what remains is f32 accumulation (1e-7 to 4e-7 measured) and erf (2e-7). */
export const LAYER_F32 = 2e-6;

/**
 * Gradients of one f32 layer against float64, a tensor at a time. They pass through twice as many sums as the output, and those of a weight add up all
 * tokens of all rows: 2e-7 to 6e-7 measured. GELU in its tanh form is at 3e-4.
 */
export const LAYER_GRADIENT_F32 = 5e-6;

/** A whole f32 model against float64: the errors of some layers add up. */
export const MODEL_F32 = 5e-6;

/** An f32 layer after up to 1,000,000 streamed tokens, summed block-wise (a naive running f32 sum is off by 1.7e-5). */
export const STREAM_F32 = 5e-6;

/** A layer with f16 storage and f32 accumulation: f16 rounds to 4.9e-4. */
export const LAYER_F16 = 2e-3;

/**
 * The float64 reference against golden outputs, which were computed in float64 and rounded to f32: 6e-8 an element at most, 2.8e-8 measured.
 * The causal formula has no epsilon where the golden run divides by 1e-7 + (t + 1): another 1e-7 / (t + 1) of row t's moments, 7.6e-8 measured
 * on a single token.
 */
export const REFERENCE_GOLDEN = 1e-7;

/**
 * The float64 backward pass of a model against golden gradients. They carry the same 1e-7 / (t + 1), once forward and once backward in each of two
 * layers: 1.4e-7 measured on nine tokens.
 */
export const REFERENCE_GRADIENT = 4e-7;

/** One gradient of an f32 model against float64: forward and backward through all layers. */
export const GRADIENT_F32 = 1e-5;

/** Losses of 40 optimiser steps in f32 against float64; what a step is off by is carried on. */
export const TRAJECTORY_LOSS = 1e-4;

/** Weights after 40 optimiser steps. Adam divides by the root of squares: where gradients are near 0, rounding decides the direction of a step. */
export const TRAJECTORY_WEIGHTS = 1e-3;

/**
 * A layer with weights in bytes against its original weights. A byte is off by scale / 254 at most, scale / 440 in the root mean square, and the scale of a row of
 * normal weights is 2 to 3 times their size: 0.5 % to 0.7 % a projection, less where biases add to it. 0.2 % to 0.4 % measured at widths of 7 to 36.
 */
export const LAYER_I8 = 1e-2;

/**
 * A layer with 4-bit weights against its original weights: a step is a seventh of the largest of 32 weights, 2.2 times their size for normal ones, and its
 * rounding 1 / sqrt(12) of that: 9 % a projection. 3 % to 9 % measured at widths of 7 to 36.
 */
export const LAYER_I4 = 1.5e-1;

/** Two float64 computations of one formula in another order: 1.1e-16 an operation, some hundred operations, and some cancellation. */
export const REORDERED_F64 = 1e-11;

/** A derivative in float64 against a central difference of step 1e-5: truncation 2e-11 times the third derivative, rounding 1e-11 times the function's size. */
export const FINITE_DIFFERENCE_F64 = 1e-8;

/** The derivative of an activation in f32, absolute: erf is off by 2e-7, x times the density by its own rounding. */
export const ACTIVATION_GRADIENT_F32 = 4e-7;

/** A row's loss in f32, absolute: log may be off by 2^-21 near 1, the sum of exponentials by 4e-7, and a difference of logits rounds to 1e-7 of their size. */
export const LOSS_F32 = 2e-6;

/** Moments with and without the 1e-7 beside a weight of 1 or more: off by 1e-7 relative at most, plus float64 rounding. */
export const MASK_EPSILON_F64 = 1.001e-7;

/**
 * Where everything expected is 0 there is no relative error; |actual| must not exceed this. It is 0 because an exact zero has an exact cause
 * (nothing was seen, so 0 / 1e-7): a test of something else passes its own bound as `absolute`.
 */
export const ZERO_ABSOLUTE = 0;
