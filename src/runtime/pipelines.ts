import type { GPUBindGroupLayout, GPUComputePipeline, GPUDevice } from "../webgpu.ts";
import type { Kernel, Variant } from "./kernel.ts";
import { STAGE_COMPUTE } from "./usage.ts";

export interface CompiledKernel {
  readonly pipeline: GPUComputePipeline;
  readonly layout: GPUBindGroupLayout;
}

const ofDevice = new WeakMap<GPUDevice, Pipelines>();

/** Compiled kernels of one device. Browsers compile an identical pipeline anew each time, so the cache is ours. */
export class Pipelines {
  readonly #device: GPUDevice;
  readonly #layouts = new Map<string, { bindGroup: GPUBindGroupLayout; pipeline: ReturnType<GPUDevice["createPipelineLayout"]> }>();
  readonly #compiled = new Map<string, CompiledKernel>();
  readonly #pending = new Map<string, Promise<void>>();

  private constructor(device: GPUDevice) {
    this.#device = device;
  }

  /** Every `Gpu` on a device shares what was compiled for it. */
  static of(device: GPUDevice): Pipelines {
    let pipelines = ofDevice.get(device);
    if (!pipelines) {
      pipelines = new Pipelines(device);
      ofDevice.set(device, pipelines);
    }
    return pipelines;
  }

  /** Compiles in the background; a shader that the device refuses rejects with the compiler's own lines. */
  prepare(kernel: Kernel, variant: Variant): Promise<void> {
    const key = kernel.key(variant);
    if (this.#compiled.has(key)) return Promise.resolve();
    let pending = this.#pending.get(key);
    if (!pending) {
      pending = this.#compile(kernel, variant, key).finally(() => this.#pending.delete(key));
      this.#pending.set(key, pending);
    }
    return pending;
  }

  /** Compiles on the spot where `prepare` has not: the driver works while the caller goes on. */
  get(kernel: Kernel, variant: Variant): CompiledKernel {
    const key = kernel.key(variant);
    let compiled = this.#compiled.get(key);
    if (!compiled) {
      const { descriptor, layout } = this.#describe(kernel, variant, key);
      compiled = { pipeline: this.#device.createComputePipeline(descriptor), layout };
      this.#compiled.set(key, compiled);
    }
    return compiled;
  }

  async #compile(kernel: Kernel, variant: Variant, key: string): Promise<void> {
    const { descriptor, layout } = this.#describe(kernel, variant, key);
    let pipeline: GPUComputePipeline;
    try {
      pipeline = await this.#device.createComputePipelineAsync(descriptor);
    } catch (error) {
      const info = await descriptor.compute.module.getCompilationInfo();
      const lines = info.messages.map((m) => `${kernel.name}.wgsl:${m.lineNum}:${m.linePos} ${m.type}: ${m.message}`);
      throw new Error(`${key}: the device refused the shader: ${lines.join("\n") || (error as Error).message}`, { cause: error });
    }
    // A synchronous call may have been quicker; all callers then share its pipeline.
    if (!this.#compiled.has(key)) this.#compiled.set(key, { pipeline, layout });
  }

  #describe(kernel: Kernel, variant: Variant, key: string) {
    let layouts = this.#layouts.get(kernel.name);
    if (!layouts) {
      const bindGroup = this.#device.createBindGroupLayout({
        label: `hom.${kernel.name}.bind_group_layout`,
        entries: kernel.bindings.map(({ binding, type }) => ({ binding, visibility: STAGE_COMPUTE, buffer: { type } })),
      });
      const pipeline = this.#device.createPipelineLayout({ label: `hom.${kernel.name}.layout`, bindGroupLayouts: [bindGroup] });
      layouts = { bindGroup, pipeline };
      this.#layouts.set(kernel.name, layouts);
    }
    const module = this.#device.createShaderModule({ label: `hom.${key}.module`, code: kernel.code(variant) });
    return {
      layout: layouts.bindGroup,
      descriptor: { label: `hom.${key}.pipeline`, layout: layouts.pipeline, compute: { module, entryPoint: "main" } },
    };
  }
}
