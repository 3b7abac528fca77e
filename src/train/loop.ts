import { checkInteger, checkObject, typeError } from "../checks.ts";
import type { RandomState } from "./random.ts";
import type { Schedule } from "./schedule.ts";
import { BatchSampler, type TokenBatch } from "./text.ts";
import { HlmTrainer, type StepResult } from "./trainer.ts";

/** What is known after a step. */
export interface StepReport extends StepResult {
  /** Steps done, this one included. */
  readonly step: number;
  readonly lr: number;
  /** Predictions that the step learnt from. */
  readonly tokens: number;
}

/** What {@link train} tells of an evaluation. */
export interface EvaluationReport {
  readonly step: number;
  /** Mean loss of the evaluation's batches. */
  readonly loss: number;
}

/** Options of {@link train}. */
export interface TrainOptions {
  readonly sampler: BatchSampler;
  /** Until the trainer has done this many steps in all. */
  readonly steps: number;
  /** Default: the trainer's own rate, throughout. */
  readonly schedule?: Schedule;
  /** Micro-batches that a batch is cut into. Default 1. */
  readonly accumulate?: number;
  /** Each row starts at a random position from 0 to this. Default 0. */
  readonly maxPosOffset?: number;
  /** Steps that may be submitted before the first of them has been read back. Default 2. */
  readonly inFlight?: number;
  /** Steps at whose `onStep` no further one is under way: for a sample, or a file, of just this step. Default: none. */
  readonly settleAt?: (step: number) => boolean;
  /** What to evaluate every so many steps, and at the end. */
  readonly evaluation?: { readonly batches: readonly TokenBatch[]; readonly every: number };
  /** Called in order; the next step waits for its promise. */
  readonly onStep?: (report: StepReport) => void | Promise<void>;
  readonly onEvaluation?: (report: EvaluationReport) => void | Promise<void>;
  /** Stops after the steps that have been submitted. */
  readonly signal?: AbortSignal | undefined;
}

const OPTION_KEYS = [
  "sampler",
  "steps",
  "schedule",
  "accumulate",
  "maxPosOffset",
  "inFlight",
  "settleAt",
  "evaluation",
  "onStep",
  "onEvaluation",
  "signal",
];

/**
 * Trains until the trainer has done `steps` steps. Trainer and sampler stand where the last finished step left them, whether it ends, is aborted
 * or diverges: `trainer.save` then and the same call again go on as if nothing had happened.
 * @throws the signal's reason, TrainingDivergedError, GpuLostError, GpuOutOfMemoryError
 *
 * @example
 * await train(trainer, { sampler, steps: 2000, schedule: warmupCosine({ peak: 1e-3, warmup: 100, steps: 2000 }), onStep: ({ loss }) => show(loss) });
 */
export async function train(trainer: HlmTrainer, options: TrainOptions): Promise<void> {
  const where = "train";
  if (!(trainer instanceof HlmTrainer)) throw typeError(where, "trainer", "be an HlmTrainer", trainer);
  checkObject(where, "options", options, OPTION_KEYS);
  const { sampler, schedule, onStep, onEvaluation, evaluation, signal } = options;
  if (!(sampler instanceof BatchSampler)) throw typeError(where, "sampler", "be a BatchSampler", sampler);
  const steps = checkInteger(where, "steps", options.steps, 0);
  const inFlight = checkInteger(where, "inFlight", options.inFlight ?? 2, 1);
  const maxPosOffset = checkInteger(where, "maxPosOffset", options.maxPosOffset ?? 0, 0, 0x7fffffff);
  const accumulate = checkInteger(where, "accumulate", options.accumulate ?? 1, 1);
  const { batch, length } = sampler.state;
  if (evaluation) checkInteger(where, "evaluation.every", evaluation.every, 1);
  signal?.throwIfAborted();

  const pending: { readonly before: RandomState; readonly step: number; readonly lr: number; readonly result: Promise<StepResult> }[] = [];
  const settle = async () => {
    const [first] = pending;
    if (!first) return;
    const { step, lr } = first;
    const result = await first.result;
    pending.shift();
    await onStep?.({ ...result, step, lr, tokens: batch * length });
  };
  try {
    while (trainer.steps < steps && !signal?.aborted) {
      const { state: before } = sampler;
      const step = trainer.steps;
      const lr = schedule?.(step) ?? trainer.settings.lr;
      const tokens = sampler.next();
      const posOffset = maxPosOffset > 0 ? sampler.offsets(maxPosOffset) : 0;
      const result = trainer.step(tokens, { batch, lr, accumulate, posOffset });
      pending.push({ before, step: step + 1, lr, result });
      const due = evaluation && ((step + 1) % evaluation.every === 0 || step + 1 === steps);
      const alone = due || options.settleAt?.(step + 1);
      while (pending.length >= inFlight || (alone && pending.length > 0)) await settle();
      if (due) {
        const { loss } = await trainer.evaluate(evaluation.batches, { signal });
        await onEvaluation?.({ step: step + 1, loss });
      }
    }
    while (pending.length > 0) await settle();
  } catch (error) {
    const results = await Promise.allSettled(pending.map(({ result }) => result));
    // The batches of steps that did not happen are drawn again.
    const lost = pending[results.findIndex(({ status }) => status === "rejected")];
    if (lost) sampler.seek(lost.before);
    throw error;
  }
  if (trainer.steps < steps) signal?.throwIfAborted();
}
