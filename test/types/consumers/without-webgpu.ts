// Compiles whether or not the program has WebGPU types.
import { GpuUnavailableError, HomLayer, parseSafetensors, requestGpu } from "homm-webgpu";
import { Hlm } from "homm-webgpu/models";
import { requestNodeGpu } from "homm-webgpu/node";
import * as reference from "homm-webgpu/reference";
import { HlmTrainer } from "homm-webgpu/train";

export const names: object[] = [GpuUnavailableError, HomLayer, Hlm, HlmTrainer, reference];

export async function main(): Promise<void> {
  const gpu = await requestGpu();
  const nodeGpu: typeof gpu = await requestNodeGpu();
  nodeGpu.destroy();
  const device: object = gpu.device;
  const label: string = gpu.device.label;
  parseSafetensors(new ArrayBuffer(8));
  // @ts-expect-error a number is no device
  await requestGpu({ device: 5 });
  console.log(device, label);
}
