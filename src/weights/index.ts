export { type CollectParamsOptions, collectParams, type NormaliseKeysOptions, normaliseKeys, type ShapesByKey } from "./checkpoint.ts";
export { type FetchProgress, type FetchSafetensorsOptions, fetchSafetensors, type WeightsCache } from "./fetch.ts";
export { opfsCache } from "./opfs.ts";
export {
  parseSafetensors,
  type TensorSource,
  type WeightArray,
  type WeightDtype,
  Weights,
  type WeightsSource,
  type WeightTensor,
  writeSafetensors,
} from "./safetensors.ts";
