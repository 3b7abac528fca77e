import { checkInteger } from "../checks.ts";

/** All there is of a generator: two numbers. */
export interface RandomState {
  readonly seed: number;
  readonly stream: number;
  /** How many numbers have been drawn. */
  readonly drawn: number;
}

/**
 * Random numbers that are a function of seed, stream and index: the same everywhere, and saved as an index.
 * Philox 2x32-10 of J. Salmon and others, "Parallel random numbers: as easy as 1, 2, 3" (2011).
 */
export class Random {
  readonly #seed: number;
  readonly #stream: number;
  #drawn: number;
  /** The block of two that was computed last: index and its numbers. */
  #block = -1;
  #even = 0;
  #odd = 0;

  /** @param stream independent sequences of one seed */
  constructor(seed: number, stream = 0, drawn = 0) {
    const where = "Random";
    this.#seed = checkInteger(where, "seed", seed, 0, 0xffffffff);
    this.#stream = checkInteger(where, "stream", stream, 0, 0xffffffff);
    this.#drawn = checkInteger(where, "drawn", drawn, 0);
  }

  get state(): RandomState {
    return { seed: this.#seed, stream: this.#stream, drawn: this.#drawn };
  }

  /** An integer from 0 to 2³² - 1. */
  uint32(): number {
    const index = this.#drawn++;
    const block = Math.floor(index / 2);
    if (block !== this.#block) this.#fill(block);
    return index % 2 === 0 ? this.#even : this.#odd;
  }

  /** A number in [0, 1), in steps of 2⁻⁵³. */
  uniform(): number {
    return ((this.uint32() >>> 5) * 67108864 + (this.uint32() >>> 6)) / 9007199254740992;
  }

  /** An integer from 0 to `count` - 1. */
  below(count: number): number {
    return Math.floor(this.uniform() * count);
  }

  /** A standard normal number. */
  normal(): number {
    return Math.sqrt(-2 * Math.log(1 - this.uniform())) * Math.cos(2 * Math.PI * this.uniform());
  }

  /** The counter is the block's number, its upper half the stream's. */
  #fill(block: number): void {
    let left = block >>> 0;
    let right = (this.#stream ^ Math.imul(Math.floor(block / 2 ** 32), 0x9e3779b9)) >>> 0;
    let key = this.#seed;
    for (let round = 0; round < 10; round++) {
      // left · 0xd256d193 in 64 bits: halves of 16 bits keep the partial products exact.
      const high = Math.floor((0xd256d193 * (left >>> 16) + Math.floor((0xd256d193 * (left & 0xffff)) / 65536)) / 65536);
      const low = Math.imul(0xd256d193, left) >>> 0;
      left = (high ^ key ^ right) >>> 0;
      right = low;
      key = (key + 0x9e3779b9) >>> 0;
    }
    this.#block = block;
    this.#even = left;
    this.#odd = right;
  }
}
