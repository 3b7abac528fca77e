// Compiles only where the program has WebGPU types, of lib.dom or of @webgpu/types.
import { requestGpu } from "homm-webgpu";

export async function main(ownDevice: GPUDevice): Promise<void> {
  const gpu = await requestGpu({ device: ownDevice });
  const device: GPUDevice = gpu.device;
  const buffer: GPUBuffer = gpu.device.createBuffer({ size: 16, usage: 0x80 });
  // @ts-expect-error the size is a number
  gpu.device.createBuffer({ size: "16", usage: 0x80 });
  // @ts-expect-error the device is not `any`
  gpu.device.noSuchMember;
  // @ts-expect-error a buffer is no device
  await requestGpu({ device: buffer });
  console.log(device);
}
