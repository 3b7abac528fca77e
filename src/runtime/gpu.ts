import { checkObject, typeError } from "../checks.ts";
import { GpuLostError, GpuOutOfMemoryError, GpuUnavailableError } from "../errors.ts";
import type { GPUAdapter, GPUBuffer, GPUComputePassEncoder, GPUDevice } from "../webgpu.ts";
import type { Kernel, Variant } from "./kernel.ts";
import { Pipelines } from "./pipelines.ts";
import { ScratchPool } from "./scratch.ts";
import { checkedTuning, type Tuning } from "./tuning.ts";
import { USAGE } from "./usage.ts";

/** Features that kernels can use; each is asked for where the adapter has it and none is needed. */
const USEFUL_FEATURES = ["shader-f16", "subgroups", "timestamp-query"] as const;

const USEFUL_LIMITS = [
  "maxBufferSize",
  "maxStorageBufferBindingSize",
  "maxComputeWorkgroupStorageSize",
  "maxComputeInvocationsPerWorkgroup",
  "maxComputeWorkgroupSizeX",
  "maxStorageBuffersPerShaderStage",
] as const;

/** What the adapter says of itself. */
export interface GpuInfo {
  readonly vendor: string;
  readonly architecture: string;
  readonly device: string;
  readonly description: string;
  /** The adapter computes on the CPU (SwiftShader, lavapipe, Basic Render Driver). */
  readonly software: boolean;
  /** Where the adapter came from, when it was searched for. */
  readonly from?: string;
}

/** The device's limits that decide what fits, in bytes and workgroups. */
export interface GpuLimits {
  readonly maxBufferSize: number;
  readonly maxStorageBufferBindingSize: number;
  readonly maxComputeWorkgroupsPerDimension: number;
}

/** Options of {@link requestGpu}. With `device` or `adapter` nothing is searched for. */
export interface RequestGpuOptions {
  /** A device of the caller's own; it is never destroyed by this package. */
  readonly device?: GPUDevice;
  /** An adapter of the caller's own, from which a device is requested. */
  readonly adapter?: GPUAdapter;
  readonly powerPreference?: "high-performance" | "low-power";
  /** Overrides what was chosen for this class of adapter. */
  readonly tuning?: Partial<Tuning>;
}

/**
 * A device with what this package keeps on it: compiled kernels and scratch memory. Made by {@link requestGpu}.
 */
export class Gpu {
  readonly device: GPUDevice;
  readonly info: GpuInfo;
  readonly features: ReadonlySet<string>;
  readonly limits: GpuLimits;
  readonly tuning: Tuning;
  /** Resolves when the device is lost; calls after that throw or reject with {@link GpuLostError}. */
  readonly lost: Promise<{ readonly reason: string; readonly message: string }>;
  readonly #ownsDevice: boolean;
  readonly #pipelines: Pipelines;
  readonly #scratch: ScratchPool;
  readonly #empty: GPUBuffer;
  #lostBecause: string | undefined;
  #failedAllocations = 0;

  /** @internal */
  constructor(device: GPUDevice, ownsDevice: boolean, info: GpuInfo, tuning?: Partial<Tuning>) {
    this.device = device;
    this.#ownsDevice = ownsDevice;
    this.info = info;
    this.features = new Set(device.features);
    this.limits = {
      maxBufferSize: device.limits.maxBufferSize,
      maxStorageBufferBindingSize: device.limits.maxStorageBufferBindingSize,
      maxComputeWorkgroupsPerDimension: device.limits.maxComputeWorkgroupsPerDimension,
    };
    this.tuning = checkedTuning("requestGpu", info, this.features, tuning);
    this.lost = device.lost.then(({ reason, message }) => {
      this.#lostBecause ??= message || reason;
      return { reason, message };
    });
    this.#pipelines = Pipelines.of(device);
    this.#scratch = new ScratchPool((label, size) => this.createBuffer(label, size, USAGE.STORAGE | USAGE.COPY_SRC | USAGE.COPY_DST));
    this.#empty = this.createBuffer("hom.empty", 256, USAGE.STORAGE | USAGE.COPY_DST);
  }

  /** Frees what this object owns: compiled kernels, scratch memory and, unless it was brought along, the device. */
  destroy(): void {
    if (this.#lostBecause !== undefined) return;
    this.#lostBecause = "Gpu.destroy() was called";
    this.#scratch.destroy();
    this.#empty.destroy();
    if (this.#ownsDevice) this.device.destroy();
  }

  [Symbol.dispose](): void {
    this.destroy();
  }

  /** Throws {@link GpuLostError} when the device is gone. @internal */
  checkUsable(where: string): void {
    if (this.#lostBecause !== undefined) throw this.#lostError(where, this.#lostBecause);
  }

  #lostError(where: string, because: string): GpuLostError {
    return new GpuLostError(`${where}: the GPU device is lost (${because}); request a new one and upload again`);
  }

  /** Objects made before the last failed allocation may hold buffers that do not exist. @internal */
  get failedAllocations(): number {
    return this.#failedAllocations;
  }

  /** @internal */
  createBuffer(label: string, size: number, usage: number, mappedAtCreation = false): GPUBuffer {
    return this.device.createBuffer({ label, size, usage, mappedAtCreation });
  }

  /** A storage buffer with these contents. @internal */
  upload(label: string, data: Float32Array | Uint32Array | Uint16Array | Uint8Array): GPUBuffer {
    const buffer = this.createBuffer(label, Math.max(16, Math.ceil(data.byteLength / 4) * 4), USAGE.STORAGE | USAGE.COPY_SRC | USAGE.COPY_DST, true);
    new Uint8Array(buffer.getMappedRange()).set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
    buffer.unmap();
    return buffer;
  }

  /** @internal */
  scratch(role: string, size: number): GPUBuffer {
    return role === "empty" ? this.#empty : this.#scratch.get(role, size);
  }

  /** @internal */
  prepare(kernel: Kernel, variant: Variant): Promise<void> {
    return this.#pipelines.prepare(kernel, variant);
  }

  /** @internal */
  pipeline(kernel: Kernel, variant: Variant) {
    return this.#pipelines.get(kernel, variant);
  }

  /**
   * Runs `work` and reports, later, whether the device refused any of it. The answer is a value and not a rejection: nobody has to
   * wait for it, and whoever reads a result does. @internal
   */
  guard<T>(where: string, work: () => T): { result: T; status: Promise<Error | undefined> } {
    this.checkUsable(where);
    const { device } = this;
    device.pushErrorScope("out-of-memory");
    device.pushErrorScope("validation");
    const pop = () => [device.popErrorScope(), device.popErrorScope()] as const;
    const made = this.#scratch.watch();
    let result: T;
    try {
      result = work();
    } catch (error) {
      for (const scope of pop()) scope.catch(() => {});
      throw error;
    }
    const scratch = made();
    const scopes = pop();
    const status = Promise.all(scopes).then(
      ([validation, memory]) => {
        if (memory) {
          // What this call allocated is of no use; the next one allocates anew.
          this.#scratch.drop(scratch);
          this.#failedAllocations++;
          return new GpuOutOfMemoryError(`${where}: the device is out of memory; free tensors or use a smaller batch (${memory.message})`);
        }
        // Freed by destroy() before the device got to it.
        if (validation && this.#lostBecause !== undefined) return this.#lostError(where, this.#lostBecause);
        if (validation) return new Error(`${where}: the device refused the work: ${validation.message}`);
        return undefined;
      },
      (error: Error) => this.#lostError(where, error.message),
    );
    return { result, status };
  }

  /** Records a compute pass with `work` and submits it. @internal */
  submit(label: string, work: (pass: GPUComputePassEncoder) => void): void {
    const encoder = this.device.createCommandEncoder({ label: `hom.${label}.encoder` });
    const pass = encoder.beginComputePass({ label: `hom.${label}.pass` });
    work(pass);
    pass.end();
    this.device.queue.submit([encoder.finish({ label: `hom.${label}.commands` })]);
  }

  /** Copies bytes back from the GPU. @internal */
  async readBytes(where: string, buffer: GPUBuffer, byteOffset: number, size: number): Promise<ArrayBuffer> {
    this.checkUsable(where);
    const { result: staging, status } = this.guard(where, () => {
      const staging = this.createBuffer("hom.readback.staging", size, USAGE.MAP_READ | USAGE.COPY_DST);
      const encoder = this.device.createCommandEncoder({ label: "hom.readback.encoder" });
      encoder.copyBufferToBuffer(buffer, byteOffset, staging, 0, size);
      this.device.queue.submit([encoder.finish({ label: "hom.readback.commands" })]);
      return staging;
    });
    try {
      const refused = await status;
      if (refused) throw refused;
      try {
        await staging.mapAsync(USAGE.MAP_READ);
      } catch (error) {
        throw new GpuLostError(`${where}: the GPU device was lost before the result could be read (${(error as Error).message})`, { cause: error });
      }
      return staging.getMappedRange().slice(0);
    } finally {
      staging.destroy();
    }
  }
}

/**
 * Acquires a GPU in the browser, or takes the caller's device.
 *
 * The features `shader-f16`, `subgroups`, `timestamp-query` and the largest limits are requested where the adapter has them.
 * @throws GpuUnavailableError where there is no WebGPU or no adapter
 */
export async function requestGpu(options: RequestGpuOptions = {}): Promise<Gpu> {
  checkObject("requestGpu", "options", options, ["device", "adapter", "powerPreference", "tuning"]);
  if (options.device !== undefined) {
    const { device } = options;
    if (typeof device !== "object" || typeof device?.createBuffer !== "function") throw typeError("requestGpu", "device", "be a GPUDevice", device);
    return new Gpu(device, false, describe(device.adapterInfo), options.tuning);
  }
  let { adapter } = options;
  if (!adapter) {
    const gpu = globalThis.navigator?.gpu;
    if (!gpu) {
      throw new GpuUnavailableError(
        "requestGpu: this environment has no WebGPU (navigator.gpu is missing); use a browser with WebGPU over https or localhost, or requestNodeGpu from homm-webgpu/node in Node",
      );
    }
    adapter = (await gpu.requestAdapter({ powerPreference: options.powerPreference ?? "high-performance" })) ?? undefined;
    if (!adapter)
      throw new GpuUnavailableError("requestGpu: WebGPU found no adapter; update the GPU driver or enable hardware acceleration in the browser");
  }
  return openAdapter(adapter, options);
}

/** A device with every feature and limit that the kernels can use. @internal */
export async function openAdapter(adapter: GPUAdapter, options: { readonly tuning?: Partial<Tuning>; readonly from?: string } = {}): Promise<Gpu> {
  let device: GPUDevice;
  try {
    device = await adapter.requestDevice({
      label: "hom.device",
      requiredFeatures: USEFUL_FEATURES.filter((feature) => adapter.features.has(feature)),
      requiredLimits: Object.fromEntries(USEFUL_LIMITS.map((limit) => [limit, adapter.limits[limit]])),
    });
  } catch (error) {
    throw new GpuUnavailableError(
      `requestGpu: the adapter ${adapter.info.description || adapter.info.vendor} gave no device: ${(error as Error).message}`,
      {
        cause: error,
      },
    );
  }
  try {
    return new Gpu(device, true, describe(adapter.info, options.from), options.tuning);
  } catch (error) {
    device.destroy();
    throw error;
  }
}

function describe(info: GPUAdapter["info"] | undefined, from?: string): GpuInfo {
  const { vendor = "", architecture = "", device = "", description = "" } = info ?? {};
  const software = info?.isFallbackAdapter === true || /swiftshader|llvmpipe|lavapipe|basic render/i.test(`${architecture} ${description}`);
  return { vendor, architecture, device, description, software, ...(from !== undefined && { from }) };
}
