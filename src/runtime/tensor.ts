import { checkInteger, checkObject, checkOneOf, FULL, leftOut, rangeError, raw, typeError } from "../checks.ts";
import { GpuOutOfMemoryError } from "../errors.ts";
import { decodeF16, encodeF16 } from "../half.ts";
import type { GPUBuffer } from "../webgpu.ts";
import { Gpu } from "./gpu.ts";
import { BYTES, type Dtype } from "./kernel.ts";
import { USAGE } from "./usage.ts";

/** Dimensions, the slowest first: row-major. */
export type Shape = readonly number[];

/**
 * A row-major array of numbers in GPU memory.
 *
 * Results stay on the GPU until {@link Tensor.read}. `destroy()` (or `using`) frees a tensor's buffer unless it was borrowed.
 */
export class Tensor {
  readonly gpu: Gpu;
  readonly buffer: GPUBuffer;
  readonly byteOffset: number;
  readonly shape: Shape;
  readonly dtype: Dtype;
  readonly #owned: boolean;
  #status: Promise<Error | undefined> | undefined;
  #destroyed = false;

  private constructor(
    gpu: Gpu,
    buffer: GPUBuffer,
    byteOffset: number,
    shape: Shape,
    dtype: Dtype,
    owned: boolean,
    status: Promise<Error | undefined> | undefined,
  ) {
    this.gpu = gpu;
    this.buffer = buffer;
    this.byteOffset = byteOffset;
    this.shape = Object.freeze([...shape]);
    this.dtype = dtype;
    this.#owned = owned;
    this.#status = status;
  }

  /**
   * Uploads `data`, whose length must be the product of `shape`. With `dtype: "f16"` it is rounded to half precision, on any adapter.
   * @throws TypeError, RangeError, GpuLostError
   */
  static from(gpu: Gpu, data: Float32Array, shape: Shape, options: { readonly dtype?: Dtype } = {}): Tensor {
    const where = "Tensor.from";
    checkGpu(where, gpu);
    if (!(data instanceof Float32Array)) throw typeError(where, "data", "be a Float32Array", data);
    const size = checkShape(where, shape);
    if (data.length !== size) throw rangeError(where, "data", `have ${size} elements for shape [${shape.join(", ")}]`, raw(`${data.length}`));
    checkObject(where, "options", options, ["dtype"]);
    const dtype = checkDtype(where, options.dtype);
    checkBytes(where, gpu, size * BYTES[dtype]);
    gpu.checkUsable(where);
    const { result, status } = gpu.guard(where, () => gpu.upload("hom.tensor.buffer", FULL && dtype === "f16" ? encodeF16(data) : data));
    return new Tensor(gpu, result, 0, shape, dtype, true, status);
  }

  /**
   * Borrows a buffer with STORAGE usage; it is never destroyed here. `byteOffset` is a multiple of 4; 16-byte alignment keeps the
   * faster loads.
   */
  static wrap(gpu: Gpu, buffer: GPUBuffer, shape: Shape, options: { readonly byteOffset?: number; readonly dtype?: Dtype } = {}): Tensor {
    const where = "Tensor.wrap";
    checkGpu(where, gpu);
    checkObject(where, "options", options, ["byteOffset", "dtype"]);
    const { byteOffset = 0 } = options;
    const dtype = checkDtype(where, options.dtype);
    if (typeof buffer !== "object" || typeof buffer?.size !== "number" || typeof buffer.usage !== "number") {
      throw typeError(where, "buffer", "be a GPUBuffer", buffer);
    }
    if ((buffer.usage & USAGE.STORAGE) === 0) {
      throw typeError(where, "buffer", "have STORAGE usage", raw(`usage 0x${buffer.usage.toString(16)}`), "create it with GPUBufferUsage.STORAGE");
    }
    checkInteger(where, "byteOffset", byteOffset, 0);
    if (byteOffset % 4 !== 0) throw rangeError(where, "byteOffset", "be a multiple of 4", byteOffset);
    const bytes = checkShape(where, shape) * BYTES[dtype];
    if (byteOffset + bytes > buffer.size) {
      throw rangeError(
        where,
        "buffer",
        `hold ${bytes} bytes from byte ${byteOffset} on for shape [${shape.join(", ")}]`,
        raw(`a buffer of ${buffer.size} bytes`),
      );
    }
    gpu.checkUsable(where);
    return new Tensor(gpu, buffer, byteOffset, shape, dtype, false, undefined);
  }

  /** A tensor of whatever the memory holds, to be written by a kernel. @internal */
  static allocate(where: string, gpu: Gpu, label: string, shape: Shape, dtype: Dtype = "f32"): GPUBuffer {
    const bytes = Math.ceil((shape.reduce((a, b) => a * b, 1) * BYTES[dtype]) / 4) * 4;
    checkBytes(where, gpu, bytes);
    return gpu.createBuffer(label, Math.max(16, bytes), USAGE.STORAGE | USAGE.COPY_SRC | USAGE.COPY_DST);
  }

  /** @internal */
  static adopt(gpu: Gpu, buffer: GPUBuffer, shape: Shape, status: Promise<Error | undefined>, dtype: Dtype = "f32"): Tensor {
    return new Tensor(gpu, buffer, 0, shape, dtype, true, status);
  }

  /** New contents: what to wait for before they are read. @internal */
  overwritten(status: Promise<Error | undefined>): this {
    this.#status = status;
    return this;
  }

  /** How many numbers there are. */
  get size(): number {
    return this.shape.reduce((a, b) => a * b, 1);
  }

  /** Whether `destroy` was called. */
  get destroyed(): boolean {
    return this.#destroyed;
  }

  /** Whether the device accepted everything that this tensor depends on. @internal */
  get status(): Promise<Error | undefined> {
    return this.#status ?? Promise.resolve(undefined);
  }

  /** Copies the values back, as f32 whatever the storage. @throws GpuLostError, GpuOutOfMemoryError when the device failed to compute them */
  async read(): Promise<Float32Array<ArrayBuffer>> {
    const where = "Tensor.read";
    if (this.#destroyed) throw typeError(where, "tensor", "be alive", raw("a destroyed tensor"));
    this.gpu.checkUsable(where);
    if ((this.buffer.usage & USAGE.COPY_SRC) === 0) {
      throw typeError(
        where,
        "buffer",
        "have COPY_SRC usage",
        raw(`usage 0x${this.buffer.usage.toString(16)}`),
        "create it with GPUBufferUsage.COPY_SRC",
      );
    }
    const size = this.size * BYTES[this.dtype];
    // The copy is submitted before anything is waited for: the caller may destroy the tensor meanwhile, as `using` does.
    const [failure, bytes] = await Promise.all([
      this.status,
      this.gpu.readBytes(where, this.buffer, this.byteOffset, Math.ceil(size / 4) * 4).catch((error: Error) => error),
    ]);
    if (failure) throw failure;
    if (bytes instanceof Error) throw bytes;
    return FULL && this.dtype === "f16" ? decodeF16(new Uint16Array(bytes, 0, this.size)) : new Float32Array(bytes);
  }

  /** Frees the buffer, unless it was borrowed. Work already submitted still completes. */
  destroy(): void {
    if (this.#destroyed) return;
    this.#destroyed = true;
    if (this.#owned) this.buffer.destroy();
  }

  [Symbol.dispose](): void {
    this.destroy();
  }
}

/** The first failure among several, if any; a lack of memory first, for other failures follow from it. */
export async function allOf(statuses: readonly (Promise<Error | undefined> | undefined)[]): Promise<Error | undefined> {
  const failures = (await Promise.all(statuses)).filter((status) => status !== undefined);
  return failures.find((failure) => failure instanceof GpuOutOfMemoryError) ?? failures[0];
}

export function checkGpu(where: string, gpu: unknown): asserts gpu is Gpu {
  if (!(gpu instanceof Gpu)) throw typeError(where, "gpu", "be what requestGpu() returned", gpu);
}

function checkDtype(where: string, dtype: Dtype = "f32"): Dtype {
  if (!FULL && dtype !== "f32") throw leftOut(where);
  return checkOneOf(where, "dtype", dtype, ["f32", "f16"]);
}

function checkShape(where: string, shape: Shape): number {
  if (!Array.isArray(shape) || shape.length === 0) throw typeError(where, "shape", "be an array of dimensions", shape);
  for (const n of shape) {
    if (!Number.isInteger(n) || n < 1) throw rangeError(where, "shape", "have only positive integers", shape);
  }
  return shape.reduce((a, b) => a * b, 1);
}

function checkBytes(where: string, gpu: Gpu, bytes: number): void {
  if (bytes > gpu.limits.maxBufferSize) {
    throw rangeError(
      where,
      "size",
      `be at most the device's maxBufferSize of ${gpu.limits.maxBufferSize} bytes`,
      raw(`${bytes} bytes`),
      "use a smaller batch",
    );
  }
}
