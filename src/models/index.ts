export { HomBlock, type HomBlockConfig } from "../layers/block.ts";
export { Dih, type DihConfig } from "./dih.ts";
export { type Adjacency, HomGnn, type HomGnnConfig } from "./gnn.ts";
export { type GenerateOptions, Hlm, type HlmForwardOptions, type HlmStateOptions } from "./hlm.ts";
export { HlmState } from "./hlm_state.ts";
export { type HlmConfig, type HlmWeights, hlmConfigOf, hlmMetadata } from "./hlm_weights.ts";
export { HomVision, type HomVisionConfig, type HomVisionForwardOptions } from "./vision.ts";
export { byteVocabulary, type CharVocabulary, charVocabulary, charVocabularyOf, type Vocabulary, vocabularyOf } from "./vocabulary.ts";
export type { ModelWeights } from "./with_shapes.ts";
