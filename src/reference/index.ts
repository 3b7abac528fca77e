/** Float64 twins of every kernel and layer: slow, plain, and what the GPU results are tested against. */
export { activateBackward } from "./activate_backward.ts";
export { activationGradient } from "./activation_gradients.ts";
export { type Activation, activate, erf, erfc, gelu, identity, type LinearActivation, sigmoid, silu, tanh, x_erf } from "./activations.ts";
export { type AdamwArguments, type AdamwState, adamw } from "./adamw.ts";
export type { AggregateArguments } from "./aggregate.ts";
export { appendOnes } from "./append_ones.ts";
export { type AttentionArguments, type AttentionShape, attention, attentionReference } from "./attention.ts";
export { type AttentionBackwardArguments, type AttentionGradients, attentionBackward, attentionLayerBackward } from "./attention_backward.ts";
export { type FfwKeys, feedForward, homBlock } from "./block.ts";
export { type BlockBackwardArguments, type BlockGradients, homBlockBackward } from "./block_backward.ts";
export { crossEntropy } from "./cross_entropy.ts";
export { type DecaySizes, type DecayState, decayBackward, decayMoments } from "./decay.ts";
export { type DihArguments, type DihShape, dihPositions, dihReference } from "./dih.ts";
export { type DihBackwardArguments, type DihGradients, dihBackward } from "./dih_backward.ts";
export { embed } from "./embed.ts";
export { embedBackward } from "./embed_backward.ts";
export { featureAttentionBackward } from "./feature_attention_backward.ts";
export { featureProducts } from "./feature_products.ts";
export { gate } from "./gate.ts";
export { gateBackward } from "./gate_backward.ts";
export { type GnnArguments, type GnnShape, gnnLayer, gnnReference } from "./gnn.ts";
export { type GnnBackwardArguments, type GnnGradients, gnnBackward, gnnLayerBackward } from "./gnn_backward.ts";
export { gradientNorm } from "./gradient_norm.ts";
export { type GradientStatus, gradientStatus } from "./gradient_status.ts";
export { HLM_LOSS_MAX, type HlmArguments, type HlmConfig, hlmLoss, hlmReference } from "./hlm.ts";
export { type HlmBackwardArguments, type HlmGradients, hlmBackward } from "./hlm_backward.ts";
export { type AdamWSettings, HlmTraining } from "./hlm_training.ts";
export { type HomArguments, homMoments, homReference, MASK_EPSILON } from "./hom.ts";
export { type HomBackwardArguments, type HomGradients, homBackward } from "./hom_backward.ts";
export { bicubicWeights, type ImageSizes, patchify, resizeGrid, unpatchify } from "./images.ts";
export { linear } from "./linear.ts";
export { DENOMINATOR_MIN, type FeatureSizes, featureAttention, featureScores, featureSums, linearAttentionReference } from "./linear_attention.ts";
export { linearAttentionBackward, linearMixBackward, type MixGradients } from "./linear_attention_backward.ts";
export { maskMoments } from "./mask_moments.ts";
export { mergeGradients } from "./merge_gradients.ts";
export { mergeMoments } from "./merge_moments.ts";
export { expandMoments, moments, segmentMoments } from "./moments.ts";
export { momentsBackward } from "./moments_backward.ts";
export { clampedLeakyGradient, polynomialBackward } from "./polynomial_backward.ts";
export {
  clampedLeaky,
  hardSigmoid,
  type PomArguments,
  type PomShape,
  type PositionOf,
  pomReference,
} from "./pom.ts";
export { hardSigmoidGradient, type PomBackwardArguments, type PomGradients, pomBackward } from "./pom_backward.ts";
export { type PomAppendOptions, PomStream, type PomStreamOptions } from "./pom_stream.ts";
export { positionFrequencies, positions } from "./positions.ts";
export { prefixMoments } from "./prefix_moments.ts";
export { FEATURE_MAPS, type FeatureMap, type LinearAttentionShape, randomFeatures } from "./random_features.ts";
export { randomFeaturesBackward } from "./random_features_backward.ts";
export { exponential, type SampleArguments, sample } from "./sample.ts";
export { scanGradients } from "./scan_gradients.ts";
export { scanMoments } from "./scan_moments.ts";
export { select } from "./select.ts";
export { type ShiftSizes, shift, shiftBackward } from "./shift.ts";
export { HomStream } from "./stream.ts";
export { sumGradients } from "./sum_gradients.ts";
export { sumLoss } from "./sum_loss.ts";
export { transpose } from "./transpose.ts";
export type { HomMask, HomParams, HomShape, Weights } from "./types.ts";
export { type Channels, unpackLinear } from "./unpack_linear.ts";
export { type VisionArguments, type VisionShape, visionReference } from "./vision.ts";
export { type VisionBackwardArguments, type VisionGradients, visionBackward } from "./vision_backward.ts";
export { weightGradient } from "./weight_gradient.ts";
