export { HomBlock, type HomBlockConfig } from "../layers/block.ts";
export { type GenerateOptions, Hlm, type HlmConfig, type HlmForwardOptions, hlmConfigOf } from "./hlm.ts";
export { type CharVocabulary, charVocabulary } from "./vocabulary.ts";
