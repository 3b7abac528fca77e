import { GpuLostError } from "../errors.ts";
import type { GPUBuffer, GPUCommandEncoder } from "../webgpu.ts";
import type { Gpu } from "./gpu.ts";
import { MAP_READ, USAGE } from "./usage.ts";

/** Reads a few bytes back while later work is already running; small buffers take turns. */
export class Readback {
  readonly #gpu: Gpu;
  readonly #label: string;
  readonly #size: number;
  readonly #free: GPUBuffer[] = [];
  #destroyed = false;

  /** @param size bytes of every read, a multiple of 4 */
  constructor(gpu: Gpu, label: string, size: number) {
    this.#gpu = gpu;
    this.#label = label;
    this.#size = size;
  }

  /** Records the copy of the first bytes of `source`; once that is submitted, the answer reads them. `what` is named where it cannot. */
  record(encoder: GPUCommandEncoder, source: GPUBuffer, what: string): (where: string) => Promise<ArrayBuffer> {
    const staging =
      this.#free.pop() ?? this.#gpu.createBuffer(`hom.${this.#label}.staging`, Math.max(16, this.#size), USAGE.MAP_READ | USAGE.COPY_DST);
    encoder.copyBufferToBuffer(source, 0, staging, 0, this.#size);
    return async (where) => {
      try {
        await staging.mapAsync(MAP_READ);
      } catch (error) {
        throw new GpuLostError(`${where}: the GPU device was lost before ${what} could be read (${(error as Error).message})`, { cause: error });
      }
      const bytes = staging.getMappedRange(0, this.#size).slice(0);
      staging.unmap();
      if (this.#destroyed) staging.destroy();
      else this.#free.push(staging);
      return bytes;
    };
  }

  /** Reads that are under way still end. */
  destroy(): void {
    this.#destroyed = true;
    for (const buffer of this.#free.splice(0)) buffer.destroy();
  }
}
