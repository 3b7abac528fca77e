import { afterAll, afterEach, expect } from "vitest";

const features = ["shader-f16", "subgroups", "timestamp-query"] as const satisfies readonly GPUFeatureName[];
const limits = [
  "maxBufferSize",
  "maxStorageBufferBindingSize",
  "maxStorageBuffersPerShaderStage",
  "maxComputeWorkgroupStorageSize",
  "maxComputeInvocationsPerWorkgroup",
  "maxComputeWorkgroupSizeX",
  "maxComputeWorkgroupSizeY",
  "maxComputeWorkgroupSizeZ",
] as const satisfies readonly (keyof GPUSupportedLimits)[];

const watched = new Map<GPUDevice, string[]>();
let shared: Promise<GPUDevice> | undefined;

/**
 * The device of this test file, with every feature and the largest limits that the package can use. An error that no error scope
 * captured fails the test in which it happened.
 */
export function getDevice(): Promise<GPUDevice> {
  shared ??= createDevice();
  return shared;
}

export async function getAdapter(): Promise<GPUAdapter> {
  const adapter = await navigator.gpu?.requestAdapter({ powerPreference: "high-performance" });
  if (!adapter) throw new Error("no WebGPU adapter: `node scripts/adapter.mjs` says what this machine has");
  return adapter;
}

/** A device for this test alone, for example one that is to be lost. The caller destroys it. */
export async function createDevice(descriptor: GPUDeviceDescriptor = {}): Promise<GPUDevice> {
  const adapter = await getAdapter();
  const device = await adapter.requestDevice({
    label: "test.device",
    requiredFeatures: features.filter((feature) => adapter.features.has(feature)),
    requiredLimits: Object.fromEntries(limits.map((name) => [name, adapter.limits[name]])),
    ...descriptor,
  });
  watchDevice(device);
  return device;
}

/** Makes uncaptured errors of a device fail the current test. */
export function watchDevice(device: GPUDevice): void {
  if (watched.has(device)) return;
  const errors: string[] = [];
  watched.set(device, errors);
  device.addEventListener("uncapturederror", (event) => errors.push(event.error.message));
  device.lost.then(() => watched.delete(device));
}

/** The uncaptured errors of a device so far. They are forgotten: a test that expects some takes them. */
export async function takeUncapturedErrors(device: GPUDevice): Promise<string[]> {
  // An error is delivered no later than the answer to a scope that was opened after its cause.
  device.pushErrorScope("validation");
  await device.popErrorScope();
  return watched.get(device)?.splice(0) ?? [];
}

afterEach(async () => {
  for (const device of [...watched.keys()]) {
    expect(await takeUncapturedErrors(device), "uncaptured GPU errors").toEqual([]);
  }
});

afterAll(async () => {
  (await shared)?.destroy();
});
