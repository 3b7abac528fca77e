import { checkInteger, checkObject, rangeError, raw, typeError } from "../checks.ts";
import { Random, type RandomState } from "./random.ts";

/** The last part of a text for validation, what comes before it for training; both are views. */
export function splitTokens(
  tokens: Int32Array<ArrayBuffer>,
  options: { readonly validation?: number } = {},
): { readonly train: Int32Array<ArrayBuffer>; readonly validation: Int32Array<ArrayBuffer> } {
  const where = "splitTokens";
  checkTokens(where, tokens);
  checkObject(where, "options", options, ["validation"]);
  const { validation = 0.1 } = options;
  if (typeof validation !== "number") throw typeError(where, "validation", "be a number", validation);
  if (!(validation >= 0 && validation < 1)) throw rangeError(where, "validation", "be a fraction from 0 to less than 1", validation);
  const at = Math.floor(tokens.length * (1 - validation));
  return { train: tokens.subarray(0, at), validation: tokens.subarray(at) };
}

/** Sizes of a batch of text. */
export interface BatchOptions {
  /** Rows of a batch. */
  readonly batch: number;
  /** n: inputs of a row; a row has n + 1 tokens, its targets being one further. */
  readonly length: number;
}

/** A sampler's position, and what identifies its numbers. */
export interface SamplerState extends RandomState {
  readonly batch: number;
  readonly length: number;
}

/**
 * Batches of random stretches of a text. The same seed gives the same batches, and `state` is enough to go on after a pause.
 *
 * @example
 * const sampler = new BatchSampler(splitTokens(tokens).train, { batch: 12, length: 64, seed: 1 });
 * const { loss } = await trainer.step(sampler.next(), { batch: 12 });
 */
export class BatchSampler {
  readonly #tokens: Int32Array;
  readonly #batch: number;
  readonly #length: number;
  #random: Random;

  constructor(tokens: Int32Array, options: (BatchOptions & { readonly seed?: number }) | SamplerState) {
    const where = "BatchSampler";
    checkTokens(where, tokens);
    checkObject(where, "options", options, ["batch", "length", "seed", "stream", "drawn"]);
    this.#batch = checkInteger(where, "batch", options.batch, 1);
    this.#length = checkInteger(where, "length", options.length, 1);
    if (tokens.length < this.#length + 1) {
      throw rangeError(where, "tokens", `have at least length + 1 = ${this.#length + 1} tokens`, raw(`${tokens.length}`), "use a longer text");
    }
    const { seed = 0, stream = DATA_STREAM, drawn = 0 } = options as Partial<SamplerState>;
    this.#tokens = tokens;
    this.#random = new Random(seed, stream, drawn);
  }

  /** Where the sampler is: `seek` goes back there. */
  get state(): SamplerState {
    return { ...this.#random.state, batch: this.#batch, length: this.#length };
  }

  /** Goes back, or forward, to what `state` was. */
  seek({ seed, stream, drawn }: RandomState): void {
    this.#random = new Random(seed, stream, drawn);
  }

  /** `[B·(n+1)]` */
  next(): Int32Array<ArrayBuffer> {
    const width = this.#length + 1;
    const out = new Int32Array(this.#batch * width);
    for (let row = 0; row < this.#batch; row++) {
      const start = this.#random.below(this.#tokens.length - this.#length);
      out.set(this.#tokens.subarray(start, start + width), row * width);
    }
    return out;
  }

  /** A position for the first token of each row, from 0 to `most`: a model that has met later positions can go on past its context. */
  offsets(most: number): Int32Array<ArrayBuffer> {
    return Int32Array.from({ length: this.#batch }, () => this.#random.below(most + 1));
  }
}

/** Tokens `[B·(n+1)]` with their B. */
export interface TokenBatch {
  readonly tokens: Int32Array<ArrayBuffer>;
  readonly batch: number;
}

/**
 * A text cut into rows of n + 1 tokens, each beginning with the last token of the one before, in batches: every token but the first is
 * predicted once. What is left at the end is left out, and so is a last batch that would not be full, unless there is no other.
 */
export function evaluationBatches(tokens: Int32Array, options: BatchOptions & { readonly limit?: number }): TokenBatch[] {
  const where = "evaluationBatches";
  checkTokens(where, tokens);
  checkObject(where, "options", options, ["batch", "length", "limit"]);
  const batch = checkInteger(where, "batch", options.batch, 1);
  const length = checkInteger(where, "length", options.length, 1);
  const limit = options.limit === undefined ? Infinity : checkInteger(where, "limit", options.limit, 1);
  const rows = Math.floor((tokens.length - 1) / length);
  if (rows < 1) throw rangeError(where, "tokens", `have at least length + 1 = ${length + 1} tokens`, raw(`${tokens.length}`), "use a longer text");
  const count = Math.min(limit, Math.max(1, Math.floor(rows / batch)));
  return Array.from({ length: count }, (_, i) => {
    const some = Math.min(batch, rows - i * batch);
    const out = new Int32Array(some * (length + 1));
    for (let row = 0; row < some; row++) {
      const start = (i * batch + row) * length;
      out.set(tokens.subarray(start, start + length + 1), row * (length + 1));
    }
    return { tokens: out, batch: some };
  });
}

/** Streams of one seed: batches, and what initialises the weights, one stream a tensor from 16 on. */
const DATA_STREAM = 1;

function checkTokens(where: string, tokens: unknown): asserts tokens is Int32Array {
  if (!(tokens instanceof Int32Array)) throw typeError(where, "tokens", "be an Int32Array", tokens, "encode the text with a vocabulary");
}
