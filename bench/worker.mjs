// A contender in a process of its own, on Dawn: `node worker.mjs BUNDLE`, driven by messages.
import { pathToFileURL } from "node:url";
import { create, globals } from "webgpu";

Object.assign(globalThis, globals);
// Node 20 has no navigator, 21 has; libraries also look for one in `self`.
if (!globalThis.navigator) {
  const value = { userAgent: `Node.js/${process.versions.node.split(".")[0]}` };
  Object.defineProperty(globalThis, "navigator", { value, configurable: true });
}
// Dawn crashes once its instance is collected; this keeps it.
const gpu = create(["disable-dawn-features=timestamp_quantization"]);
Object.defineProperty(globalThis.navigator, "gpu", { value: gpu, configurable: true });
Object.defineProperty(globalThis, "self", { value: globalThis, configurable: true });

// Browsers copy from shared memory, as that of a threaded WebAssembly module; Dawn for Node refuses it ("Invalid argument").
const { writeBuffer } = GPUQueue.prototype;
GPUQueue.prototype.writeBuffer = function (buffer, offset, data, from, size) {
  const isShared = data instanceof Uint8Array && typeof SharedArrayBuffer === "function" && data.buffer instanceof SharedArrayBuffer;
  return writeBuffer.call(this, buffer, offset, isShared ? data.slice() : data, from, size);
};

process.on("message", async (/** @type {{ id: number, name: keyof import("./types.ts").Driver, args: unknown[] }} */ { id, name, args }) => {
  try {
    const method = /** @type {(...args: unknown[]) => Promise<unknown>} */ (globalThis.contender[name]);
    process.send?.({ id, result: await method(...args) });
  } catch (error) {
    process.send?.({ id, error: String(/** @type {Error} */ (error)?.message ?? error) });
  }
});
process.on("disconnect", () => process.exit(0));

try {
  await import(pathToFileURL(process.argv[2] ?? "").href);
  process.send?.({ ready: true });
} catch (error) {
  process.send?.({ ready: false, error: String(/** @type {Error} */ (error)?.message ?? error) });
}
