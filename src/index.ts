export { GpuLostError, GpuOutOfMemoryError, GpuUnavailableError, WeightsError } from "./errors.ts";
export { type HomConfig, type HomForwardOptions, HomLayer, type HomParams, type HomPlanOptions, type HomPlanReport } from "./layers/hom.ts";
export { HomMask, type MaskShape, type MaskSpec } from "./layers/mask.ts";
export type { Activation } from "./ops/types.ts";
export { Gpu, type GpuInfo, type GpuLimits, type RequestGpuOptions, requestGpu } from "./runtime/gpu.ts";
export { type Shape, Tensor } from "./runtime/tensor.ts";
export type { Tuning } from "./runtime/tuning.ts";
export * from "./weights/index.ts";
