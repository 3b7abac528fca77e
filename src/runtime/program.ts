import type { GPUBindGroup, GPUBuffer, GPUComputePassEncoder } from "../webgpu.ts";
import type { Gpu } from "./gpu.ts";
import { BIND_ALIGNMENT, type Dtype, packUniforms, type Step } from "./kernel.ts";
import { USAGE } from "./usage.ts";

/** Memory that a kernel reads or writes. @internal */
export interface BufferView {
  readonly buffer: GPUBuffer;
  readonly byteOffset: number;
  /** Default f32. */
  readonly dtype?: Dtype;
}

/** The part of an offset that a plan depends on: the rest is where its slots are bound from. */
export function planOffset(view: BufferView): number {
  return view.byteOffset % BIND_ALIGNMENT;
}

export type BoundBuffers = Readonly<Record<string, GPUBuffer | BufferView | undefined>>;

/**
 * A list of dispatches with its uniforms on the GPU, written once: recording it again costs bind groups only, and those of the last
 * buffers are kept. Buffers named in `scratch` come from the device's pool, the others from the caller.
 */
export class Program {
  readonly steps: readonly Step[];
  readonly #gpu: Gpu;
  readonly #scratch: ReadonlyMap<string, number>;
  readonly #uniforms: GPUBuffer;
  readonly #offsets: readonly number[];
  readonly #madeAfter: number;
  readonly #groups: { buffers: BufferView[]; group: GPUBindGroup }[] = [];

  constructor(gpu: Gpu, steps: readonly Step[], scratch: ReadonlyMap<string, number>) {
    this.#gpu = gpu;
    this.#madeAfter = gpu.failedAllocations;
    this.steps = steps;
    this.#scratch = scratch;
    const offsets: number[] = [];
    let size = 0;
    for (const step of steps) {
      offsets.push(size);
      size += Math.ceil(step.kernel.uniformBytes / BIND_ALIGNMENT) * BIND_ALIGNMENT;
    }
    this.#offsets = offsets;
    this.#uniforms = gpu.createBuffer("hom.program.uniforms", Math.max(16, size), USAGE.UNIFORM | USAGE.COPY_DST, true);
    const bytes = this.#uniforms.getMappedRange();
    steps.forEach((step, i) => {
      new Uint32Array(bytes, offsets[i]).set(packUniforms(step.kernel, step.uniforms));
    });
    this.#uniforms.unmap();
  }

  /** An allocation has failed since this was made, perhaps one of its own. */
  get stale(): boolean {
    return this.#gpu.failedAllocations !== this.#madeAfter;
  }

  /** Records every dispatch; does not submit. */
  record(pass: GPUComputePassEncoder, buffers: BoundBuffers): void {
    this.steps.forEach((step, i) => {
      const { pipeline, layout } = this.#gpu.pipeline(step.kernel, step.variant);
      pass.setPipeline(pipeline);
      pass.setBindGroup(0, this.#bindGroup(step, i, layout, buffers));
      pass.dispatchWorkgroups(...step.workgroups);
    });
  }

  destroy(): void {
    this.#uniforms.destroy();
    this.#groups.length = 0;
  }

  #bindGroup(step: Step, i: number, layout: ReturnType<Gpu["pipeline"]>["layout"], buffers: BoundBuffers): GPUBindGroup {
    const storage = step.kernel.bindings.filter(({ type }) => type !== "uniform");
    const used = storage.map(({ name }) => {
      const slot = step.slots[name];
      if (!slot) throw new Error(`${step.kernel.name}: nothing is bound to ${name}`);
      const given = buffers[slot.buffer] ?? this.#gpu.scratch(slot.buffer, this.#scratch.get(slot.buffer) ?? 16);
      const { buffer, byteOffset } = "byteOffset" in given ? given : { buffer: given, byteOffset: 0 };
      return { name, slot, buffer, byteOffset: byteOffset - (byteOffset % BIND_ALIGNMENT) };
    });
    const cached = this.#groups[i];
    if (cached?.buffers.every(({ buffer, byteOffset }, j) => buffer === used[j]?.buffer && byteOffset === used[j]?.byteOffset)) return cached.group;
    const binding = (name: string): number => step.kernel.bindings.find((b) => b.name === name)?.binding ?? 0;
    const uniform = step.kernel.bindings.find(({ type }) => type === "uniform");
    const group = this.#gpu.device.createBindGroup({
      label: `hom.${step.kernel.name}.bind_group`,
      layout,
      entries: [
        ...(uniform
          ? [{ binding: uniform.binding, resource: { buffer: this.#uniforms, offset: this.#offsets[i] ?? 0, size: step.kernel.uniformBytes } }]
          : []),
        ...used.map(({ name, slot, buffer, byteOffset }) => ({
          binding: binding(name),
          resource: { buffer, offset: byteOffset + slot.offset, size: slot.size },
        })),
      ],
    });
    this.#groups[i] = { buffers: used, group };
    return group;
  }
}
