// Imports every entry in a process where touching a browser or GPU global throws, and lists what each exports.
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
/** @type {Record<string, string[]>} */
const exported = {};
for (const entry of [
  "homm-webgpu",
  "homm-webgpu/models",
  "homm-webgpu/train",
  "homm-webgpu/pom",
  "homm-webgpu/inference",
  "homm-webgpu/baselines",
  "homm-webgpu/reference",
  "homm-webgpu/node",
])
  exported[entry] = Object.keys(await import(entry));
console.log(JSON.stringify(exported));
