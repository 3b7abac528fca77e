import type { Activation, Gpu, MaskSpec } from "../../src/index.ts";
import { Tensor } from "../../src/index.ts";
import { type HomArguments, homReference } from "../../src/reference/hom.ts";
import { normals, randomParams, uniforms } from "../reference/inputs.ts";

export interface LayerShape {
  readonly dim: number;
  readonly order: number;
  readonly orderExpand: number;
  readonly activation?: Activation;
}

/** Seeded parameters of a layer as a checkpoint holds them. */
export function layerParams(seed: number, shape: LayerShape, bias = true): Record<string, Float32Array> {
  return Object.fromEntries(Object.entries(randomParams(seed, shape, bias)).map(([key, values]) => [key, Float32Array.from(values as Float64Array)]));
}

export const normals32 = (seed: number, length: number): Float32Array<ArrayBuffer> => Float32Array.from(normals(seed, length));

/** The float64 twin on the layer's own arguments. */
export function reference(
  shape: LayerShape,
  params: Record<string, Float32Array>,
  args: Omit<HomArguments, "mask"> & { mask?: MaskSpec | undefined },
): Float64Array {
  return homReference(shape, params as unknown as Parameters<typeof homReference>[1], args as HomArguments);
}

/** Choices drawn from a seed. */
export function chooser(seed: number) {
  const next = uniforms(seed);
  return {
    next,
    integer: (min: number, max: number): number => min + Math.floor(next() * (max - min + 1)),
    chance: (p: number): boolean => next() < p,
    of: <T>(values: readonly T[]): T => values[Math.floor(next() * values.length)] as T,
  };
}

const STORAGE = 0x80 | 0x8 | 0x4;

/** A tensor that borrows the middle of a buffer of the test's own, which holds NaN all around it. */
export interface Borrowed {
  readonly tensor: Tensor;
  readonly buffer: GPUBuffer;
  /** Writes NaN into the whole buffer. */
  poison(): void;
  /** The tensor's values; fails when anything beside it was written. */
  readInside(): Promise<Float32Array>;
  destroy(): void;
}

const AFTER = 64;

export function borrow(gpu: Gpu, shape: readonly number[], byteOffset: number, data?: Float32Array<ArrayBuffer>): Borrowed {
  const size = shape.reduce((a, b) => a * b, 1);
  const before = byteOffset / 4;
  const total = before + size + AFTER;
  const buffer = gpu.device.createBuffer({ label: "test.borrowed", size: total * 4, usage: STORAGE });
  const nan = new Float32Array(total).fill(Number.NaN);
  const poison = () => gpu.device.queue.writeBuffer(buffer, 0, nan);
  poison();
  if (data) gpu.device.queue.writeBuffer(buffer, byteOffset, data);
  const whole = Tensor.wrap(gpu, buffer, [total]);
  const tensor = Tensor.wrap(gpu, buffer, shape, { byteOffset });
  return {
    tensor,
    buffer,
    poison,
    readInside: async () => {
      // Errors of the call that wrote the tensor are its own; the copy sees the whole buffer.
      await tensor.status.then((error) => {
        if (error) throw error;
      });
      const all = await whole.read();
      for (const [from, to] of [
        [0, before],
        [before + size, total],
      ] as const) {
        const written = all.subarray(from, to).findIndex((value) => !Number.isNaN(value));
        if (written !== -1)
          throw new Error(`element ${from + written - before} was written, beside a tensor of ${size} elements at byte ${byteOffset}`);
      }
      return all.slice(before, before + size);
    },
    destroy: () => buffer.destroy(),
  };
}

/** Fills all scratch memory of a device with NaN. `live` lists its scratch buffers. */
export function poisonScratch(device: GPUDevice, live: readonly { readonly buffer: GPUBuffer; readonly size: number }[]): void {
  for (const { buffer, size } of live) {
    for (let at = 0; at < size; at += NAN_BYTES) device.queue.writeBuffer(buffer, at, NAN.buffer, 0, Math.min(NAN_BYTES, size - at));
  }
}

const NAN = new Float32Array(1 << 16).fill(Number.NaN);
const NAN_BYTES = NAN.byteLength;

/** Fails at the first value that differs, -0 from 0 included. */
export function expectSameBits(actual: Float32Array, expected: Float32Array, what: string): void {
  if (actual.length !== expected.length) throw new Error(`${what}: ${actual.length} values where ${expected.length} were expected`);
  const different = actual.findIndex((value, i) => !Object.is(value, expected[i]));
  if (different !== -1)
    throw new Error(`${what}: other bits at ${different} of ${expected.length}, got ${actual[different]}, expected ${expected[different]}`);
}
