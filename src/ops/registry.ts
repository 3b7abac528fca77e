import type { Kernel, Variant } from "../runtime/kernel.ts";
import { activateBackward } from "./activate_backward.ts";
import { adamw } from "./adamw.ts";
import { addRows } from "./add_rows.ts";
import { addRowsBackward } from "./add_rows_backward.ts";
import { appendOnes } from "./append_ones.ts";
import { applyGates } from "./apply_gates.ts";
import { applyGatesBackward } from "./apply_gates_backward.ts";
import { attention, attentionQuads } from "./attention.ts";
import { attentionBackwardKv, attentionBackwardQ } from "./attention_backward.ts";
import { attentionRows } from "./attention_rows.ts";
import { combineStates } from "./combine_states.ts";
import { crossEntropy } from "./cross_entropy.ts";
import { decayBackward } from "./decay_backward.ts";
import { decayMoments } from "./decay_moments.ts";
import { embed } from "./embed.ts";
import { embedBackward } from "./embed_backward.ts";
import { POLYNOMIAL, ROTARY } from "./expand_pom.ts";
import { featureAttention } from "./feature_attention.ts";
import { featureAttentionBackward } from "./feature_attention_backward.ts";
import { featureProducts } from "./feature_products.ts";
import { featureScores } from "./feature_scores.ts";
import { featureSums } from "./feature_sums.ts";
import { gate } from "./gate.ts";
import { gateBackward } from "./gate_backward.ts";
import { gatesBackward } from "./gates_backward.ts";
import { gradientNorm } from "./gradient_norm.ts";
import { gradientStatus } from "./gradient_status.ts";
import { linear } from "./linear.ts";
import { maskMoments } from "./mask_moments.ts";
import { mergeGradients } from "./merge_gradients.ts";
import { mergeMoments } from "./merge_moments.ts";
import { modulate } from "./modulate.ts";
import { modulateBackward } from "./modulate_backward.ts";
import { moments } from "./moments.ts";
import { momentsBackward } from "./moments_backward.ts";
import { type Choices, SPLITS, variantsOf } from "./op.ts";
import { patchify } from "./patchify.ts";
import { polynomialBackward } from "./polynomial_backward.ts";
import { prefixMoments } from "./prefix_moments.ts";
import { randomFeatures } from "./random_features.ts";
import { randomFeaturesBackward } from "./random_features_backward.ts";
import { randomVectorsBackward } from "./random_vectors_backward.ts";
import { sample } from "./sample.ts";
import { scanGradients } from "./scan_gradients.ts";
import { scanMoments } from "./scan_moments.ts";
import { scanSegments } from "./scan_segments.ts";
import { select } from "./select.ts";
import { shift } from "./shift.ts";
import { shiftBackward } from "./shift_backward.ts";
import { shiftState } from "./shift_state.ts";
import { stateTotals } from "./state_totals.ts";
import { step } from "./step.ts";
import { sumGradients } from "./sum_gradients.ts";
import { sumLoss } from "./sum_loss.ts";
import { sumRows } from "./sum_rows.ts";
import { transpose } from "./transpose.ts";
import { unpackLinear } from "./unpack_linear.ts";
import { unpatchify } from "./unpatchify.ts";
import { updateState } from "./update_state.ts";
import { weightGradient } from "./weight_gradient.ts";

/** A kernel with the variants that the polynomial mixer asks for: kept apart, so that layers without it do not carry its shaders. */
function andPom(kernel: Kernel, ...choices: Choices[]): Kernel {
  return { ...kernel, variants: [...kernel.variants, ...variantsOf(...choices)] };
}

/** That of a kernel which the polynomial mixer alone has, and whose expansion its own file does not know. */
function ofPom(kernel: Kernel): Kernel {
  return { ...kernel, variants: [POLYNOMIAL, ROTARY].flatMap((expand) => kernel.variants.map((variant) => ({ ...variant, expand }))) };
}

const splits = { tile: ["1x4", "8x4"], split: SPLITS } as const satisfies Choices;
const storages = { w: ["f32", "f16", "i8", "i4"], x: ["vec4", "scalar", "half"] } as const satisfies Choices;
const expansions = { ...storages, activation: ["leaky_clamp"], expand: [POLYNOMIAL, ROTARY] } as const satisfies Choices;
const largest: readonly NonNullable<Variant["tile"]>[] = ["8x4", "16x8", "16x8_quads"];

/** Every kernel, in the order of the forward pass, then those of streaming, of the baselines and of training; the compile test and the bench walk this list. */
export const kernels: readonly Kernel[] = [
  embed,
  andPom(moments, { ...expansions, tile: largest }),
  mergeMoments,
  andPom(prefixMoments, { ...expansions, tile: largest }),
  scanMoments,
  scanSegments,
  decayMoments,
  maskMoments,
  andPom(gate, { ...storages, tile: ["1x4", ...largest], gate: ["hard_sigmoid"] }),
  applyGates,
  andPom(select, { x: ["vec4", "scalar", "half"], y: ["vec4", "scalar", "half"], lanes: [16, 32, 64], gate: ["hard_sigmoid"] }),
  andPom(
    linear,
    { ...storages, y: ["vec4"], activation: ["hard_sigmoid"], tile: ["1x4", ...largest] },
    { ...storages, y: ["vec4"], activation: ["hard_sigmoid"], ...splits },
  ),
  shift,
  andPom(step, { ...expansions, gate: ["hard_sigmoid", "none"], tile: ["1x4", "8x4"] }, { ...expansions, gate: ["hard_sigmoid", "none"], ...splits }),
  updateState,
  stateTotals,
  combineStates,
  shiftState,
  sample,
  patchify,
  unpatchify,
  modulate,
  addRows,
  attention,
  attentionQuads,
  randomFeatures,
  featureSums,
  featureScores,
  featureAttention,
  activateBackward,
  transpose,
  weightGradient,
  mergeGradients,
  crossEntropy,
  sumLoss,
  embedBackward,
  gradientNorm,
  gradientStatus,
  adamw,
  andPom(gateBackward, { x: ["vec4", "scalar"], tile: ["1x4", ...largest], gate: ["hard_sigmoid"] }),
  applyGatesBackward,
  gatesBackward,
  sumGradients,
  scanGradients,
  momentsBackward,
  ofPom(polynomialBackward),
  unpackLinear,
  shiftBackward,
  decayBackward,
  attentionRows,
  attentionBackwardQ,
  attentionBackwardKv,
  appendOnes,
  featureProducts,
  featureAttentionBackward,
  randomFeaturesBackward,
  randomVectorsBackward,
  modulateBackward,
  addRowsBackward,
  sumRows,
];
