import type { GPUBuffer } from "../webgpu.ts";

/**
 * Scratch memory shared by every call on a device. The queue runs recorded work in order and each program writes what it reads, so two
 * programs may use the same bytes, even when neither has been submitted yet. Buffers are kept until `destroy`: a command buffer
 * that the caller has not submitted may still name them.
 */
export class ScratchPool {
  readonly #create: (label: string, size: number) => GPUBuffer;
  readonly #buffers = new Map<string, GPUBuffer>();
  #made: string[] | undefined;

  constructor(create: (label: string, size: number) => GPUBuffer) {
    this.#create = create;
  }

  /** A buffer for this role of at least `size` bytes, in steps of a factor of two so that growing work does not hoard. */
  get(role: string, size: number): GPUBuffer {
    const rounded = Math.max(256, 2 ** Math.ceil(Math.log2(size)));
    const key = `${role}/${rounded}`;
    let buffer = this.#buffers.get(key);
    if (!buffer) {
      buffer = this.#create(`hom.scratch.${role}`, rounded);
      this.#buffers.set(key, buffer);
      this.#made?.push(key);
    }
    return buffer;
  }

  /** Starts to note which buffers are made; the answer ends it and lists them, for `drop`. */
  watch(): () => readonly string[] {
    const made: string[] = [];
    const outer = this.#made;
    this.#made = made;
    return () => {
      this.#made = outer;
      return made;
    };
  }

  /** Forgets buffers whose allocation failed. */
  drop(keys: readonly string[]): void {
    for (const key of keys) {
      (this.#buffers.get(key) as { destroy(): void } | undefined)?.destroy();
      this.#buffers.delete(key);
    }
  }

  destroy(): void {
    for (const buffer of this.#buffers.values()) (buffer as { destroy(): void }).destroy();
    this.#buffers.clear();
  }
}
