import { typeError } from "../checks.ts";
import type { WeightsCache } from "./fetch.ts";

/**
 * Keeps files in the browser's private file system (OPFS), which unlike `caches` is not emptied file by file and reads large files without copying them first.
 * An entry appears when it is complete: an interrupted write leaves none. It works in pages and workers of secure origins; elsewhere every call
 * rejects, so that `fetchSafetensors` downloads instead.
 *
 * `(await navigator.storage.getDirectory()).removeEntry(folder, { recursive: true })` empties it.
 *
 * ```ts
 * const weights = await fetchSafetensors("model.safetensors", { cache: opfsCache() });
 * ```
 * @param folder in the origin's root; default "homm-webgpu"
 */
export function opfsCache(folder = "homm-webgpu"): WeightsCache {
  if (typeof folder !== "string" || !/^[\w-][\w.-]*$/.test(folder)) {
    throw typeError("opfsCache", "folder", "be a name of letters, digits, '-', '_' and '.'", folder);
  }
  const open = async (create: boolean) => (await navigator.storage.getDirectory()).getDirectoryHandle(folder, { create });
  return {
    async match(url) {
      try {
        const file = await (await (await open(false)).getFileHandle(await nameOf(url))).getFile();
        return new Response(file, { headers: { "content-length": String(file.size) } });
      } catch (error) {
        if ((error as Error).name === "NotFoundError") return undefined;
        throw error;
      }
    },
    async put(url, response) {
      const directory = await open(true);
      const name = await nameOf(url);
      try {
        const writable = await (await directory.getFileHandle(name, { create: true })).createWritable();
        if (response.body) await response.body.pipeTo(writable);
        else await writable.close();
      } catch (error) {
        await directory.removeEntry(name).catch(() => {});
        throw error;
      }
    },
  };
}

/** Addresses may be longer than file names, have other characters, and be relative to the page. */
async function nameOf(url: string): Promise<string> {
  const { href } = new URL(url, globalThis.location?.href);
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(href)));
  return `${Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("")}.safetensors`;
}
