import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from "vitest";
import { fileCache } from "../../src/node.ts";
import { fetchSafetensors, opfsCache, type WeightsCache, writeSafetensors } from "../../src/weights/index.ts";
import { firstDifference } from "./support.ts";

const FILE = writeSafetensors({ w: { shape: [100_000], data: new Float32Array(100_000).fill(3) } });
const url = "https://example.org/model.safetensors";

/** The part of the origin's private file system that is used: writes show when they are closed, as the standard wants it. */
class Folder {
  readonly files = new Map<string, Uint8Array<ArrayBuffer>>();
  readonly folders = new Map<string, Folder>();
  quota = Number.POSITIVE_INFINITY;

  async getDirectoryHandle(name: string, { create }: { create: boolean }): Promise<Folder> {
    const found = this.folders.get(name) ?? (create ? new Folder() : undefined);
    if (!found) throw new DOMException(`no folder ${name}`, "NotFoundError");
    this.folders.set(name, found);
    return found;
  }

  async removeEntry(name: string): Promise<void> {
    this.files.delete(name);
  }

  async getFileHandle(name: string, { create = false } = {}) {
    if (!this.files.has(name) && !create) throw new DOMException(`no file ${name}`, "NotFoundError");
    if (!this.files.has(name)) this.files.set(name, new Uint8Array(0));
    return {
      getFile: async () => new Blob([this.files.get(name)!]),
      createWritable: async () => {
        const pieces: Uint8Array<ArrayBuffer>[] = [];
        return new WritableStream<Uint8Array<ArrayBuffer>>({
          write: (piece) => {
            pieces.push(piece);
            if (pieces.reduce((n, { length }) => n + length, 0) > this.quota) throw new DOMException("full", "QuotaExceededError");
          },
          close: async () => void this.files.set(name, new Uint8Array(await new Blob(pieces).arrayBuffer())),
        });
      },
    };
  }
}

let root: Folder;
let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "homm-webgpu-cache-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));
beforeEach(() => {
  root = new Folder();
  vi.stubGlobal("navigator", { storage: { getDirectory: async () => root } });
});
afterEach(() => {
  vi.unstubAllGlobals();
});

/** A cache with a look behind it: the bytes of its files. */
const caches: Record<string, () => { cache: WeightsCache; files: () => Uint8Array[]; damage: (bytes: Uint8Array<ArrayBuffer>) => void }> = {
  opfsCache: () => ({
    cache: opfsCache("weights"),
    files: () => [...(root.folders.get("weights")?.files.values() ?? [])],
    damage: (bytes) => {
      const { files } = root.folders.get("weights")!;
      for (const name of files.keys()) files.set(name, bytes);
    },
  }),
  fileCache: () => {
    const path = mkdtempSync(join(folder, "cache-"));
    const inside = join(path, "made", "when", "needed");
    const list = () => readdirSync(inside, { recursive: false }).map((name) => join(inside, String(name)));
    return {
      cache: fileCache(inside),
      files: () => list().map((file) => new Uint8Array(readFileSync(file))),
      damage: (bytes) => {
        for (const file of list()) writeFileSync(file, bytes);
      },
    };
  },
};

describe.each(Object.keys(caches))("%s", (name) => {
  const serve = () => vi.fn(async () => new Response(FILE, { headers: { "content-length": String(FILE.length) } }));
  const never = () => Promise.reject(new Error("it must not be called"));

  it("has nothing at first, then the file", async () => {
    const { cache, files } = caches[name]!();
    expect(await cache.match(url)).toBeUndefined();
    const fetch = serve();
    await fetchSafetensors(url, { fetch, cache });
    expect(files()).toHaveLength(1);
    expect(firstDifference(files()[0]!, FILE)).toBe(-1);
    const loads: unknown[] = [];
    const weights = await fetchSafetensors(url, { fetch: never, cache, onProgress: (progress) => loads.push(progress) });
    expect(weights.get("w").toFloat32()[99_999]).toBe(3);
    expect(loads.at(-1)).toEqual({ loaded: FILE.length, total: FILE.length });
    expect(await cache.match(`${url}?other`)).toBeUndefined();
  });

  it.each([
    ["cut short", FILE.slice(0, -1)],
    ["emptied", new Uint8Array(0)],
    ["overwritten", new Uint8Array(FILE.length)],
  ])("replaces an entry that was %s", async (_name, bytes) => {
    const { cache, files, damage } = caches[name]!();
    await fetchSafetensors(url, { fetch: serve(), cache });
    damage(bytes);
    const fetch = serve();
    await fetchSafetensors(url, { fetch, cache });
    expect(fetch).toHaveBeenCalledOnce();
    expect(files()).toHaveLength(1);
    expect(firstDifference(files()[0]!, FILE)).toBe(-1);
  });

  it("keeps nothing of a write that breaks off", async () => {
    const { cache, files } = caches[name]!();
    await fetchSafetensors(url, { fetch: serve(), cache });
    const broken = new ReadableStream({
      start: (controller) => controller.enqueue(FILE.slice(0, 1000)),
      pull: (controller) => controller.error(new Error("broken")),
    });
    await expect(cache.put(`${url}?broken`, new Response(broken))).rejects.toThrow();
    expect(await cache.match(`${url}?broken`)).toBeUndefined();
    expect(files()).toHaveLength(1);
  });
});

describe("opfsCache", () => {
  it("that is full fails no load, and keeps nothing", async () => {
    const directory = await root.getDirectoryHandle("weights", { create: true });
    directory.quota = 1000;
    const weights = await fetchSafetensors(url, { fetch: async () => new Response(FILE), cache: opfsCache("weights") });
    expect(weights.size).toBe(1);
    expect(directory.files.size).toBe(0);
  });

  it("where there is none fails no load", async () => {
    vi.stubGlobal("navigator", {});
    expect((await fetchSafetensors(url, { fetch: async () => new Response(FILE), cache: opfsCache() })).size).toBe(1);
  });

  it("knows an address that is relative to the page by its whole one", async () => {
    vi.stubGlobal("location", { href: "https://example.org/some/page.html" });
    const cache = opfsCache();
    await cache.put("model.safetensors", new Response(FILE));
    expect(await cache.match("https://example.org/some/model.safetensors")).toBeDefined();
    vi.stubGlobal("location", { href: "https://example.org/other/page.html" });
    expect(await cache.match("model.safetensors")).toBeUndefined();
  });

  it.each(["", "a/b", "..", 3, null])("refuses the folder %j", (name) => {
    expect(() => opfsCache(name as string)).toThrow(/^opfsCache: folder must be a name of letters, digits/);
  });
});

describe("fileCache", () => {
  it("takes a file: address", async () => {
    const path = join(folder, "by url");
    await fileCache(pathToFileURL(path)).put(url, new Response(FILE));
    expect(readdirSync(path)).toEqual([expect.stringMatching(/^[0-9a-f]{64}\.safetensors$/)]);
  });

  it.each(["", 3, undefined])("refuses the folder %j", (path) => {
    expect(() => fileCache(path as string)).toThrow(/^fileCache: folder must be the path of a folder, got /);
  });
});
