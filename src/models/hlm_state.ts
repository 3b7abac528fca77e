import { raw, typeError } from "../checks.ts";
import type { HomState } from "../layers/state.ts";
import type { Gpu } from "../runtime/gpu.ts";
import { USAGE } from "../runtime/usage.ts";
import type { GPUBuffer } from "../webgpu.ts";

/** Positions whose embeddings are computed at once while decoding. */
export const POSITION_CHUNK = 64;

/**
 * A language model's memory of a text: one {@link HomState} a layer, and the position of the next token. Its size does not depend on the
 * length of the text. Made by `Hlm.createState`; `clone` it to continue a text in two ways.
 */
export class HlmState {
  readonly gpu: Gpu;
  readonly layers: readonly HomState[];
  readonly batch: number;
  readonly window: number | undefined;
  /** Embeddings `[POSITION_CHUNK, D]` of positions from `cachedFrom` on. @internal */
  readonly positions: GPUBuffer;
  /** @internal */
  cachedFrom: number | undefined;
  #position: number;
  #destroyed = false;

  /** @internal */
  constructor(gpu: Gpu, layers: readonly HomState[], batch: number, window: number | undefined, position: number, dim: number) {
    this.gpu = gpu;
    this.layers = layers;
    this.batch = batch;
    this.window = window;
    this.#position = position;
    this.positions = gpu.createBuffer("hom.hlm_state.positions", Math.max(16, POSITION_CHUNK * dim * 4), USAGE.STORAGE | USAGE.COPY_DST);
  }

  /** Tokens taken in so far, and so the position of the next one. */
  get position(): number {
    return this.#position;
  }

  /** GPU memory of the state. */
  get bytes(): number {
    return this.layers.reduce((sum, state) => sum + state.bytes, this.positions.size);
  }

  /** An independent copy. */
  clone(): HlmState {
    this.checkUsable("HlmState.clone");
    const copies = this.layers.map((state) => state.clone());
    return new HlmState(this.gpu, copies, this.batch, this.window, this.#position, this.positions.size / (POSITION_CHUNK * 4));
  }

  /** Forgets everything and starts at position 0. */
  reset(): void {
    this.checkUsable("HlmState.reset");
    for (const state of this.layers) state.reset();
    this.#position = 0;
  }

  destroy(): void {
    if (this.#destroyed) return;
    this.#destroyed = true;
    for (const state of this.layers) state.destroy();
    this.positions.destroy();
  }

  [Symbol.dispose](): void {
    this.destroy();
  }

  /** @internal */
  checkUsable(where: string): void {
    if (this.#destroyed) throw typeError(where, "state", "be alive", raw("a destroyed state"));
    this.gpu.checkUsable(where);
  }

  /** @internal */
  advance(tokens: number): void {
    this.#position += tokens;
  }
}
