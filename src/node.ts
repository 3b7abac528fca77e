import { createHash, randomUUID } from "node:crypto";
import { createReadStream, createWriteStream, existsSync } from "node:fs";
import { mkdir, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { fileURLToPath } from "node:url";
import { typeError } from "./checks.ts";
import { GpuUnavailableError } from "./errors.ts";
import { type Gpu, openAdapter } from "./runtime/gpu.ts";
import type { Tuning } from "./runtime/tuning.ts";
import type { GPUAdapter } from "./webgpu.ts";
import type { WeightsCache } from "./weights/fetch.ts";

/** Options of {@link requestNodeGpu}. */
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

/**
 * Keeps downloaded files in a folder of the disk, for the `cache` option of `fetchSafetensors`. An entry appears when it is complete: an interrupted write
 * leaves none. Deleting the folder empties it.
 *
 * ```ts
 * const weights = await fetchSafetensors(url, { cache: fileCache(".cache/weights") });
 * ```
 * @param folder made at the first write
 */
export function fileCache(folder: string | URL): WeightsCache {
  if (!(folder instanceof URL) && (typeof folder !== "string" || folder === "")) {
    throw typeError("fileCache", "folder", "be the path of a folder", folder);
  }
  const path = folder instanceof URL ? fileURLToPath(folder) : folder;
  const fileOf = (url: string) => join(path, `${createHash("sha256").update(url).digest("hex")}.safetensors`);
  return {
    async match(url) {
      const file = fileOf(url);
      const size = await stat(file).then(
        ({ size }) => size,
        () => undefined,
      );
      if (size === undefined) return undefined;
      const body = Readable.toWeb(createReadStream(file)) as ReadableStream<Uint8Array>;
      return new Response(body, { headers: { "content-length": String(size) } });
    },
    async put(url, response) {
      await mkdir(path, { recursive: true });
      const part = `${fileOf(url)}.${randomUUID()}.part`;
      try {
        if (!response.body) throw typeError("fileCache.put", "response", "have a body", response);
        await pipeline(response.body, createWriteStream(part));
        await rename(part, fileOf(url));
      } catch (error) {
        await rm(part, { force: true });
        throw error;
      }
    },
  };
}
