// Compiles whether or not the program has WebGPU types.
import { fetchSafetensors, GpuUnavailableError, HomLayer, opfsCache, parseSafetensors, requestGpu, type WeightsCache } from "homm-webgpu";
import * as baselines from "homm-webgpu/baselines";
import { HomLayer as InferenceLayer } from "homm-webgpu/inference";
import * as minimal from "homm-webgpu/minimal";
import { Hlm } from "homm-webgpu/models";
import { fileCache, requestNodeGpu } from "homm-webgpu/node";
import * as pom from "homm-webgpu/pom";
import * as reference from "homm-webgpu/reference";
import { HlmTrainer } from "homm-webgpu/train";

export const names: object[] = [GpuUnavailableError, HomLayer, Hlm, HlmTrainer, reference, baselines, pom, minimal];
export const caches: WeightsCache[] = [opfsCache(), fileCache("folder"), { match: async () => undefined, put: async () => {} }];

export async function main(): Promise<void> {
  const gpu = await requestGpu();
  const nodeGpu: typeof gpu = await requestNodeGpu();
  nodeGpu.destroy();
  const device: object = gpu.device;
  const label: string = gpu.device.label;
  parseSafetensors(new ArrayBuffer(8));
  // @ts-expect-error a number is no device
  await requestGpu({ device: 5 });
  await fetchSafetensors("model.safetensors", { cache: caches[0], integrity: "sha256-…", retries: 1, onTensor: ({ name }) => console.log(name) });
  const config = { dim: 2, order: 1, orderExpand: 1 };
  const layer: HomLayer = await HomLayer.create(gpu, config, {});
  const small: InferenceLayer = await InferenceLayer.create(gpu, config, {});
  const alsoSmall: InferenceLayer = layer;
  // @ts-expect-error it has no gradients
  const notLarge: HomLayer = small;
  console.log(device, label, alsoSmall, notLarge);
}
