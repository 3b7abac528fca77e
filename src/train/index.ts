export { TrainingDivergedError } from "../errors.ts";
export { Dih, type DihGradients } from "../models/dih_trainable.ts";
export type { ModelTrainingPass } from "../models/model_training.ts";
export { type EvaluationReport, type StepReport, type TrainOptions, train } from "./loop.ts";
export type { TrainerOptions, TrainerSettings } from "./options.ts";
export type { RandomState } from "./random.ts";
export { type Schedule, type WarmupCosineOptions, warmupCosine } from "./schedule.ts";
export { type BatchOptions, BatchSampler, evaluationBatches, type SamplerState, splitTokens, type TokenBatch } from "./text.ts";
export { type EvaluateOptions, type EvaluationResult, type ExportedWeights, HlmTrainer, type StepOptions, type StepResult } from "./trainer.ts";
