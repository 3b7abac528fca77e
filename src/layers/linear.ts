import { rangeError, raw } from "../checks.ts";
import { planLinear } from "../ops/linear.ts";
import type { Gpu } from "../runtime/gpu.ts";
import { type Step, TILES, type WeightDtype } from "../runtime/kernel.ts";
import { type BufferView, Program, planOffset } from "../runtime/program.ts";
import { ProgramCache } from "../runtime/program_cache.ts";
import type { GPUBuffer, GPUComputePassEncoder } from "../webgpu.ts";
import { encodeWeights, packLinear } from "./params.ts";

export interface LinearConfig {
  readonly label: string;
  readonly inner: number;
  readonly outer: number;
  readonly activation?: "identity" | "gelu" | "silu";
  readonly weightDtype?: WeightDtype | undefined;
}

export interface LinearRecord {
  readonly x: BufferView;
  readonly y: BufferView;
  readonly residual?: BufferView | undefined;
  readonly rows: number;
  /** Rows of single tokens: `decodeLanes` of the tuning share their channels. */
  readonly decode?: boolean;
}

const KEPT_PROGRAMS = 16;

/** y = residual + act(x Wᵀ + b), on the GPU; the models' dense layers. */
export class LinearLayer {
  readonly #gpu: Gpu;
  readonly #config: LinearConfig;
  readonly #weights: GPUBuffer;
  readonly #programs = new ProgramCache(KEPT_PROGRAMS);

  /** @param weight `[outer, inner]` @param bias `[outer]` */
  constructor(gpu: Gpu, config: LinearConfig, weight: Float32Array, bias: Float32Array | undefined) {
    this.#gpu = gpu;
    this.#config = config;
    const packed = packLinear([{ weight, bias, outer: { count: 1, width: config.outer } }], { count: 1, width: config.inner });
    const { weightDtype = "f32" } = config;
    const stored = encodeWeights(config.label, packed, Math.ceil(config.outer / 4) * 4, weightDtype);
    const most = Math.min(gpu.limits.maxStorageBufferBindingSize, gpu.limits.maxBufferSize);
    if (stored.byteLength > most) {
      const hint = "use f16, i8 or i4 weights, or another device";
      throw rangeError(
        "LinearLayer",
        `the weights of ${config.label}`,
        `fit in a binding of ${most} bytes on this device`,
        raw(`${stored.byteLength} bytes`),
        hint,
      );
    }
    this.#weights = gpu.upload(`hom.${config.label}.weights`, stored);
  }

  get weightBytes(): number {
    return this.#weights.size;
  }

  /** Packed, `[inner + 1, outer]`. */
  get weights(): GPUBuffer {
    return this.#weights;
  }

  /** Compiles what `record` will use. */
  async prepare(): Promise<void> {
    const calls: readonly [number, boolean][] = [
      [1, false],
      [1, true],
      [TILES[this.#gpu.tuning.tile].rows, false],
    ];
    const steps = calls.flatMap((call) => [0, undefined].flatMap((residual) => this.#plan(...call, 0, 0, residual)));
    await Promise.all(steps.map(({ kernel, variant }) => this.#gpu.prepare(kernel, variant)));
  }

  record(pass: GPUComputePassEncoder, { x, y, residual, rows, decode = false }: LinearRecord): void {
    const offsets = [planOffset(x), planOffset(y), residual && planOffset(residual)] as const;
    const key = [rows, decode, ...offsets].join();
    const program = this.#programs.get(key, false, () => new Program(this.#gpu, this.#plan(rows, decode, ...offsets), new Map()));
    program.record(pass, { x, w: this.#weights, y, residual });
  }

  destroy(): void {
    this.#weights.destroy();
    this.#programs.destroy();
  }

  /** As many dispatches as the device's bindings ask for. */
  #plan(rows: number, decode: boolean, x: number, y: number, residual: number | undefined): Step[] {
    const { inner, outer, activation = "identity", weightDtype = "f32" } = this.#config;
    const { maxComputeWorkgroupsPerDimension, maxStorageBufferBindingSize } = this.#gpu.limits;
    const atOnce = Math.max(1, Math.min(rows, Math.floor((maxStorageBufferBindingSize - 256) / (Math.max(inner, outer) * 4))));
    const steps: Step[] = [];
    for (let first = 0; first < rows; first += atOnce) {
      const count = Math.min(atOnce, rows - first);
      const view = { first, count };
      steps.push(
        planLinear({
          x: { buffer: "x", byteOffset: x, length: inner, stride: inner, ...view },
          w: { buffer: "w", offset: 0, size: this.#weights.size },
          weightDtype,
          y: { buffer: "y", byteOffset: y, length: outer, stride: outer, ...view },
          residual: residual === undefined ? undefined : { buffer: "residual", byteOffset: residual, length: outer, stride: outer, ...view },
          activation,
          tile: this.#gpu.tuning.tile,
          lanes: decode ? this.#gpu.tuning.decodeLanes : 1,
          maxWorkgroups: maxComputeWorkgroupsPerDimension,
        }),
      );
    }
    return steps;
  }
}
