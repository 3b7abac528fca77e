export { GpuLostError, GpuOutOfMemoryError, GpuUnavailableError, TrainingDivergedError, WeightsError } from "./errors.ts";
export { type HomForwardOptions, HomLayer, type HomTrainingOptions } from "./layers/hom.ts";
export type { HomConfig, HomParams } from "./layers/hom_config.ts";
export { HomState, type HomStateConfig } from "./layers/hom_state.ts";
export type { HomGradients, HomTrainingPass } from "./layers/hom_training.ts";
export { HomMask, type MaskShape, type MaskSpec } from "./layers/mask.ts";
export type { ForwardOptions, HomPlanOptions, HomPlanReport } from "./layers/moment_layer.ts";
export {
  type PomAppendOptions,
  type PomForwardOptions,
  PomLayer,
  type PomQueryOptions,
  type PomStateOptions,
  type PomStepOptions,
} from "./layers/pom.ts";
export type { PomConfig, PomParams } from "./layers/pom_config.ts";
export type { Positions } from "./layers/pom_positions.ts";
export { PomState, type PomStateConfig } from "./layers/pom_state.ts";
export type { AppendOptions, QueryOptions, StepOptions } from "./layers/stream.ts";
export { type TuneOptions, tune } from "./layers/tune.ts";
export type { Activation } from "./ops/types.ts";
export { Gpu, type GpuInfo, type GpuLimits, type RequestGpuOptions, requestGpu } from "./runtime/gpu.ts";
export type { PlannedDispatch } from "./runtime/kernel.ts";
export { type Shape, Tensor } from "./runtime/tensor.ts";
export type { Tuning } from "./runtime/tuning.ts";
export * from "./weights/index.ts";
