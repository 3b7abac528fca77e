import { existsSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { GpuUnavailableError } from "./errors.ts";
import { type Gpu, openAdapter } from "./runtime/gpu.ts";
import type { Tuning } from "./runtime/tuning.ts";
import type { GPUAdapter } from "./webgpu.ts";

export interface RequestNodeGpuOptions {
  readonly powerPreference?: "high-performance" | "low-power";
  /** Dawn's own options, for example `"backend=vulkan"`. */
  readonly dawn?: readonly string[];
  readonly tuning?: Partial<Tuning>;
}

/** Folders in which Chromium and its relatives keep the software adapter SwiftShader. */
const BROWSER_FOLDERS = [
  "/usr/lib/chromium",
  "/usr/lib/chromium-browser",
  "/opt/google/chrome",
  "/opt/chromium.org/chromium",
  "/opt/microsoft/msedge",
  "/opt/brave.com/brave",
];

// Dawn's instances must outlive their devices: once collected, Node crashes. Dawn lets the process exit all the same.
const instances = new Set<object>();

/**
 * A GPU in Node, through Dawn (the npm package `webgpu`, an optional peer dependency).
 *
 * Where the system has no GPU it falls back to a software adapter: the driver that VK_ICD_FILENAMES names, or the SwiftShader of an installed
 * browser. `gpu.info` says which it is (`software`, `from`).
 * @throws GpuUnavailableError where nothing computes
 */
export async function requestNodeGpu(options: RequestNodeGpuOptions = {}): Promise<Gpu> {
  const dawn = await loadDawn();
  const found = (await firstAdapter(dawn, options, "the system's driver")) ?? (await softwareAdapter(dawn, options));
  if (!found) {
    throw new GpuUnavailableError(
      "requestNodeGpu: no WebGPU adapter was found; install a Vulkan, Metal or D3D12 driver, or Chrome or Chromium for its software adapter, or name a Vulkan driver's manifest in VK_ICD_FILENAMES",
    );
  }
  return openAdapter(found.adapter, { ...(options.tuning && { tuning: options.tuning }), from: found.from });
}

type Dawn = typeof import("webgpu");

async function loadDawn(): Promise<Dawn> {
  try {
    const dawn = await import("webgpu");
    Object.assign(globalThis, dawn.globals);
    return dawn;
  } catch (error) {
    throw new GpuUnavailableError(
      `requestNodeGpu: Dawn, the optional peer dependency, could not be loaded; run npm install webgpu (${(error as Error).message})`,
      {
        cause: error,
      },
    );
  }
}

async function firstAdapter(dawn: Dawn, options: RequestNodeGpuOptions, from: string): Promise<{ adapter: GPUAdapter; from: string } | undefined> {
  const instance = dawn.create(["disable-dawn-features=timestamp_quantization", ...(options.dawn ?? [])]);
  const adapter = await instance.requestAdapter({ powerPreference: options.powerPreference ?? "high-performance" });
  if (!adapter) return undefined;
  instances.add(instance);
  return { adapter, from: process.env["VK_ICD_FILENAMES"] ?? from };
}

async function softwareAdapter(dawn: Dawn, options: RequestNodeGpuOptions): Promise<{ adapter: GPUAdapter; from: string } | undefined> {
  if (process.platform !== "linux" || process.env["VK_ICD_FILENAMES"]) return undefined;
  const manifest = BROWSER_FOLDERS.map((folder) => join(folder, "vk_swiftshader_icd.json")).find((file) => existsSync(file));
  if (!manifest) return undefined;
  process.env["VK_ICD_FILENAMES"] = manifest;
  return firstAdapter(dawn, options, manifest);
}
