import { planSample } from "../ops/sample.ts";
import type { Gpu } from "../runtime/gpu.ts";
import { Program } from "../runtime/program.ts";
import { Readback } from "../runtime/readback.ts";
import { USAGE } from "../runtime/usage.ts";
import type { GPUBuffer, GPUCommandEncoder, GPUComputePassEncoder } from "../webgpu.ts";
import type { Sampling } from "./sampling.ts";

/** Logits, the token sampled from them, and its way back to the host. */
export class Decoder {
  readonly logits: GPUBuffer;
  readonly ids: GPUBuffer;
  readonly #gpu: Gpu;
  readonly #entry: GPUBuffer;
  readonly #program: Program;
  readonly #reader: Readback;
  #step = 0;
  #recorded: ((where: string) => Promise<ArrayBuffer>) | undefined;

  constructor(gpu: Gpu, vocabulary: number, sampling: Sampling) {
    const usage = USAGE.STORAGE | USAGE.COPY_SRC | USAGE.COPY_DST;
    this.#gpu = gpu;
    this.logits = gpu.createBuffer("hom.decoder.logits", Math.max(16, vocabulary * 4), usage);
    this.ids = gpu.createBuffer("hom.decoder.ids", 16, usage);
    this.#entry = gpu.createBuffer("hom.decoder.entry", 16, usage);
    const slot = (buffer: string, size: number) => ({ buffer, offset: 0, size });
    const slots = { logits: slot("logits", this.logits.size), entry: slot("entry", 16), ids: slot("ids", 16) };
    this.#program = new Program(gpu, [planSample({ ...slots, batch: 1, vocabulary, ...sampling })], new Map());
    this.#reader = new Readback(gpu, "decoder", 4);
  }

  /** Draws the next token from the logits. */
  record(pass: GPUComputePassEncoder): void {
    this.#gpu.device.queue.writeBuffer(this.#entry, 0, Uint32Array.of(this.#step++));
    this.#program.record(pass, { logits: this.logits, entry: this.#entry, ids: this.ids });
  }

  recordRead(encoder: GPUCommandEncoder): void {
    this.#recorded = this.#reader.record(encoder, this.ids, "the token");
  }

  /** The token whose copy was recorded last, and has been submitted. */
  async read(where: string): Promise<number> {
    if (!this.#recorded) throw new Error("Hlm: no token was drawn");
    const [token = 0] = new Uint32Array(await this.#recorded(where));
    return token;
  }

  destroy(): void {
    for (const part of [this.logits, this.ids, this.#entry, this.#program, this.#reader]) part.destroy();
  }
}
