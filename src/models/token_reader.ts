import { GpuLostError } from "../errors.ts";
import type { Gpu } from "../runtime/gpu.ts";
import { MAP_READ, USAGE } from "../runtime/usage.ts";
import type { GPUBuffer, GPUCommandEncoder } from "../webgpu.ts";

/** Reads single token ids back while later steps are already running; a few small buffers take turns. */
export class TokenReader {
  readonly #gpu: Gpu;
  readonly #free: GPUBuffer[] = [];
  readonly #all: GPUBuffer[] = [];

  constructor(gpu: Gpu) {
    this.#gpu = gpu;
  }

  /** Records the copy of the first id of `ids`; once that is submitted, the answer reads it. */
  record(encoder: GPUCommandEncoder, ids: GPUBuffer): (where: string) => Promise<number> {
    let free = this.#free.pop();
    if (!free) {
      free = this.#gpu.createBuffer("hom.token_reader.staging", 16, USAGE.MAP_READ | USAGE.COPY_DST);
      this.#all.push(free);
    }
    const staging = free;
    encoder.copyBufferToBuffer(ids, 0, staging, 0, 4);
    return async (where) => {
      try {
        await staging.mapAsync(MAP_READ);
      } catch (error) {
        throw new GpuLostError(`${where}: the GPU device was lost before the token could be read (${(error as Error).message})`, { cause: error });
      }
      const [token = 0] = new Uint32Array(staging.getMappedRange(0, 4).slice(0));
      staging.unmap();
      this.#free.push(staging);
      return token;
    };
  }

  destroy(): void {
    for (const buffer of this.#all) buffer.destroy();
  }
}
