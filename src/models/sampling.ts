import { checkInteger, rangeError, typeError } from "../checks.ts";

export interface SamplingOptions {
  /** 0 takes the likeliest token; 1 samples from the model's distribution. Default 1. */
  readonly temperature?: number;
  /** Sample among the k likeliest tokens only; those as likely as the last of them stay in. */
  readonly topK?: number;
  /** The same seed gives the same tokens. Default 0. */
  readonly seed?: number;
}

export interface Sampling {
  readonly temperature: number;
  readonly topK: number;
  readonly seed: number;
}

export function checkSampling(where: string, options: SamplingOptions, vocabSize: number): Sampling {
  const { temperature = 1, topK = vocabSize, seed = 0 } = options;
  if (typeof temperature !== "number") throw typeError(where, "temperature", "be a number", temperature);
  if (!(temperature >= 0 && temperature < Infinity)) throw rangeError(where, "temperature", "be a finite number >= 0", temperature);
  checkInteger(where, "topK", topK, 1);
  checkInteger(where, "seed", seed, 0, 0xffffffff);
  return { temperature, topK, seed };
}
