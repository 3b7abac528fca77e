import { checkInteger, checkObject, rangeError, typeError } from "../checks.ts";

/** The learning rate of a step, counted from 0. */
export type Schedule = (step: number) => number;

/** Options of {@link warmupCosine}: rates, and numbers of steps. */
export interface WarmupCosineOptions {
  /** The highest rate, reached after the warm-up. */
  readonly peak: number;
  /** The rate at the end and afterwards. Default 0. */
  readonly floor?: number;
  /** Steps of the linear rise; the first one has peak / warmup. Default 0. */
  readonly warmup?: number;
  /** Steps in all. */
  readonly steps: number;
}

/** A linear rise, then half a cosine from `peak` down to `floor`. */
export function warmupCosine(options: WarmupCosineOptions): Schedule {
  const where = "warmupCosine";
  checkObject(where, "options", options, ["peak", "floor", "warmup", "steps"]);
  const { peak, floor = 0, warmup = 0, steps } = options;
  checkRate(where, "peak", peak);
  checkRate(where, "floor", floor);
  checkInteger(where, "steps", steps, 1);
  checkInteger(where, "warmup", warmup, 0, steps);
  return (step) => {
    if (step < warmup) return (peak * (step + 1)) / warmup;
    const progress = Math.min(1, (step - warmup) / Math.max(1, steps - warmup));
    return floor + (peak - floor) * 0.5 * (1 + Math.cos(Math.PI * progress));
  };
}

/** A finite number >= 0. @internal */
export function checkRate(where: string, argument: string, value: unknown): number {
  if (typeof value !== "number") throw typeError(where, argument, "be a number", value);
  if (!(value >= 0 && value < Infinity)) throw rangeError(where, argument, "be a finite number >= 0", value);
  return value;
}
