// Imports every entry in a process where touching a browser or GPU global throws, and lists what each exports, and globals that are new.
const globals = [
  "navigator",
  "window",
  "document",
  "self",
  "GPUBufferUsage",
  "GPUMapMode",
  "GPUShaderStage",
  "GPUTextureUsage",
  "GPUDevice",
  "GPUBuffer",
];
for (const name of globals) {
  Object.defineProperty(globalThis, name, {
    configurable: true,
    get() {
      throw new Error(`${name} was touched at import time`);
    },
  });
}
const before = new Set(Reflect.ownKeys(globalThis));
/** @type {Record<string, string[]>} */
const exported = {};
for (const entry of [
  "homm-webgpu",
  "homm-webgpu/models",
  "homm-webgpu/train",
  "homm-webgpu/pom",
  "homm-webgpu/inference",
  "homm-webgpu/minimal",
  "homm-webgpu/baselines",
  "homm-webgpu/reference",
  "homm-webgpu/node",
])
  exported[entry] = Object.keys(await import(entry));
const added = Reflect.ownKeys(globalThis).filter((key) => !before.has(key));
console.log(JSON.stringify({ exported, globals: added.map(String) }));
