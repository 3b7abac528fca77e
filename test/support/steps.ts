import type { Gpu } from "../../src/index.ts";
import type { Step } from "../../src/runtime/kernel.ts";
import { Program } from "../../src/runtime/program.ts";

const STORAGE = 0x80 | 0x8 | 0x4;

/** Numbers that a buffer starts with; a number makes that many NaN, so that what a kernel forgets to write cannot pass for a result. */
export type BufferStart = Float32Array<ArrayBuffer> | Uint32Array<ArrayBuffer> | number;

/** Runs dispatches on buffers of the given contents, and returns the words of all of them afterwards. */
export async function runSteps<K extends string>(
  gpu: Gpu,
  steps: readonly Step[],
  contents: Readonly<Record<K, BufferStart>>,
): Promise<Record<K, Float32Array<ArrayBuffer>>> {
  const buffers: Record<string, GPUBuffer> = {};
  const sizes: Record<string, number> = {};
  for (const [name, start] of Object.entries<BufferStart>(contents)) {
    const data = typeof start === "number" ? new Float32Array(start).fill(Number.NaN) : start;
    // Bindings hold whole vec4s.
    const size = Math.max(16, Math.ceil(data.byteLength / 16) * 16);
    const buffer = gpu.device.createBuffer({ label: `test.${name}`, size, usage: STORAGE });
    gpu.device.queue.writeBuffer(buffer, 0, new Float32Array(size / 4).fill(Number.NaN));
    gpu.device.queue.writeBuffer(buffer, 0, data);
    buffers[name] = buffer;
    sizes[name] = data.byteLength;
  }
  const program = new Program(gpu, steps, new Map());
  try {
    const { status } = gpu.guard("test", () => gpu.submit("test", (pass) => program.record(pass, buffers)));
    const results: Record<string, Float32Array<ArrayBuffer>> = {};
    for (const [name, buffer] of Object.entries(buffers)) {
      const bytes = await gpu.readBytes("test", buffer, 0, Math.max(4, sizes[name] ?? 0));
      results[name] = new Float32Array(bytes).subarray(0, (sizes[name] ?? 0) / 4);
    }
    const refused = await status;
    if (refused) throw refused;
    return results as Record<K, Float32Array<ArrayBuffer>>;
  } finally {
    program.destroy();
    for (const buffer of Object.values(buffers)) buffer.destroy();
  }
}

/** A whole buffer as a binding. */
export const slotOf = (buffer: string, elements: number) => ({ buffer, offset: 0, size: Math.max(16, Math.ceil(elements / 4) * 16) });
