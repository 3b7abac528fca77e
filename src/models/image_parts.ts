import { checkInteger, rangeError, raw } from "../checks.ts";
import { LinearLayer } from "../layers/linear.ts";
import { checkTensor } from "../layers/tensor_checks.ts";
import type { Gpu } from "../runtime/gpu.ts";
import type { Step } from "../runtime/kernel.ts";
import { type BoundBuffers, type BufferView, Program } from "../runtime/program.ts";
import { ProgramCache } from "../runtime/program_cache.ts";
import type { Tensor } from "../runtime/tensor.ts";
import type { GPUBuffer, GPUComputePassEncoder } from "../webgpu.ts";
import { collectParams, normaliseKeys, type ShapesByKey } from "../weights/checkpoint.ts";
import { type ModelWeights, withShapes } from "./with_shapes.ts";

/** The parameters of these shapes, found under a training prefix too. @throws WeightsError */
export function modelParams(where: string, weights: ModelWeights, shapes: ShapesByKey, optional: ShapesByKey): Record<string, Float32Array> {
  const expected = { ...shapes, ...optional };
  const named = normaliseKeys(withShapes(weights, expected), { where, expected: Object.keys(expected) });
  return collectParams(named, shapes, { where, optional });
}

/** What a model has made so far, to be destroyed together. */
export class Parts {
  readonly #made: { destroy(): void }[] = [];

  keep<T extends { destroy(): void }>(part: T): T {
    this.#made.push(part);
    return part;
  }

  /** A dense layer with the parameters `<name>.weight`, `<name>.bias`. */
  linear(
    gpu: Gpu,
    params: Readonly<Record<string, Float32Array>>,
    name: string,
    sizes: { readonly inner: number; readonly outer: number; readonly activation?: "identity" | "gelu" | "silu" },
  ): LinearLayer {
    return this.keep(new LinearLayer(gpu, { label: name, ...sizes }, params[`${name}.weight`] ?? new Float32Array(), params[`${name}.bias`]));
  }

  destroy(): void {
    for (const part of this.#made.splice(0)) part.destroy();
  }
}

/** Small plans of a model, kept by what decides them. */
export class Plans {
  readonly #gpu: Gpu;
  readonly #programs: ProgramCache;

  constructor(gpu: Gpu, kept: number) {
    this.#gpu = gpu;
    this.#programs = new ProgramCache(kept);
  }

  record(pass: GPUComputePassEncoder, key: string, buffers: BoundBuffers, plan: (maxWorkgroups: number) => Step): void {
    const { maxComputeWorkgroupsPerDimension } = this.#gpu.limits;
    const program = this.#programs.get(key, false, () => new Program(this.#gpu, [plan(maxComputeWorkgroupsPerDimension)], new Map()));
    program.record(pass, buffers);
  }

  destroy(): void {
    this.#programs.destroy();
  }
}

/** Scratch memory for rows of a model. */
export function scratchRows(gpu: Gpu, role: string, rows: number, width: number): BufferView & { readonly size: number } {
  return { buffer: gpu.scratch(role, rows * width * 4), byteOffset: 0, size: rows * width * 4 };
}

/** An image `[B, C, H, W]` in f32. @throws TypeError, RangeError */
export function checkImage(
  where: string,
  image: Tensor,
  gpu: Gpu,
  channels: number,
  patch: number,
): { batch: number; height: number; width: number } {
  checkTensor(where, "image", image, gpu);
  const { shape, dtype } = image;
  if (dtype !== "f32") throw rangeError(where, "image", "be f32", raw(dtype));
  const [batch = 0, , height = 0, width = 0] = shape;
  if (shape.length !== 4 || shape[1] !== channels || height < patch || width < patch)
    throw rangeError(where, "image", `have shape [B, ${channels}, H, W] with sides of at least ${patch}`, shape);
  return { batch, height, width };
}

/** The tokens of one call must fit in a binding. */
export function checkRows(where: string, gpu: Gpu, rows: number, width: number): void {
  const most = Math.min(gpu.limits.maxStorageBufferBindingSize, gpu.limits.maxBufferSize);
  if (rows * width * 4 > most) {
    throw rangeError(
      where,
      "image",
      `give rows that fit in a binding of ${most} bytes`,
      raw(`${rows} rows of ${width} numbers`),
      "use a smaller batch",
    );
  }
}

/** @throws TypeError, RangeError unless every key is a positive integer */
export function checkSizes(where: string, config: object, keys: readonly string[]): void {
  for (const key of keys) checkInteger(where, key, (config as Record<string, unknown>)[key], 1);
}

/** Buffers that depend on a size, made once: the last few are kept. */
export class KeptBuffers {
  readonly #buffers = new Map<string, GPUBuffer>();

  get(key: string, make: () => GPUBuffer): GPUBuffer {
    const found = this.#buffers.get(key) ?? make();
    this.#buffers.delete(key);
    this.#buffers.set(key, found);
    const [oldest] = this.#buffers;
    if (this.#buffers.size > KEPT_BUFFERS && oldest) {
      oldest[1].destroy();
      this.#buffers.delete(oldest[0]);
    }
    return found;
  }

  destroy(): void {
    for (const buffer of this.#buffers.values()) buffer.destroy();
    this.#buffers.clear();
  }
}

const KEPT_BUFFERS = 8;
