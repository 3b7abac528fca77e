import { createHash } from "node:crypto";
import type { IncomingMessage, ServerResponse } from "node:http";
import { join } from "node:path";
import type { Page } from "playwright-core";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import type * as Core from "../../src/index.ts";
import { writeSafetensors } from "../../src/index.ts";
import { inPage, serveFolder } from "../support/browser.ts";

const page = '<link rel="icon" href="data:,"><script type="module">import * as core from "/dist/index.js"; window.core = core;</script>';

/** 4 MB, so that a body arrives in several pieces. */
const values = Float32Array.from({ length: 1 << 20 }, (_, i) => Math.sin(i));
const FILE = writeSafetensors({ a: { shape: [1 << 20], data: values }, b: { shape: [3], data: Float32Array.of(1, 2, 3) } });
const integrity = `sha256-${createHash("sha256").update(FILE).digest("hex")}`;

let server: Awaited<ReturnType<typeof serveFolder>>;
/** Requests for the file, by what they asked for; a download breaks off after so many bytes while there are some here. */
let asked: (string | undefined)[] = [];
let breaks: number[] = [];

function answer(request: IncomingMessage, response: ServerResponse): boolean {
  if (request.url === "/") {
    response.setHeader("content-type", "text/html").end(page);
    return true;
  }
  if (request.url !== "/model.safetensors") return false;
  const { range } = request.headers;
  asked.push(range);
  const from = Number(/^bytes=(\d+)-$/.exec(range ?? "")?.[1] ?? 0);
  const body = FILE.subarray(from);
  response.writeHead(range ? 206 : 200, {
    etag: '"v1"',
    "content-length": body.length,
    "cache-control": "no-store",
    ...(range && { "content-range": `bytes ${from}-${FILE.length - 1}/${FILE.length}` }),
  });
  const end = breaks.shift();
  if (end === undefined) response.end(body);
  else response.write(body.subarray(0, end), () => setTimeout(() => response.destroy(), 200));
  return true;
}

beforeAll(async () => {
  server = await serveFolder(join(import.meta.dirname, "../.."), answer);
});

afterAll(() => server.close());

beforeEach(() => {
  asked = [];
  breaks = [];
});

/** Loads the file in the page, with a cache of its own making. */
function load(page: Page, options: { cache?: "caches" | "opfs"; integrity?: string; retries?: number }) {
  return page.evaluate(async ({ cache, ...rest }) => {
    const { fetchSafetensors, opfsCache } = (window as unknown as { core: typeof Core }).core;
    const store = { caches: "weights", opfs: opfsCache("weights") };
    const loads: number[] = [];
    const tensors: string[] = [];
    const weights = await fetchSafetensors("model.safetensors", {
      ...rest,
      ...(cache && { cache: store[cache] }),
      onProgress: ({ loaded, total }) => loads.push(loaded / (total ?? 0)),
      onTensor: ({ name }) => tensors.push(name),
    });
    const a = weights.get("a").toFloat32();
    const sum = a.reduce((s, x) => s + Math.abs(x), 0);
    return {
      sum,
      b: [...weights.get("b").toFloat32()],
      tensors,
      rising: loads.every((x, i) => i === 0 || x > (loads[i - 1] ?? 0)),
      last: loads.at(-1),
    };
  }, options);
}

const whole = {
  sum: expect.closeTo(
    values.reduce((s, x) => s + Math.abs(x), 0),
    3,
  ),
  b: [1, 2, 3],
  tensors: ["a", "b"],
  rising: true,
  last: 1,
};

describe("fetchSafetensors in a browser", () => {
  it("goes on where a download broke off", async () => {
    await inPage(
      server.url,
      async (page) => {
        breaks = [1_500_000];
        expect(await load(page, { integrity, retries: 2 })).toEqual(whole);
        // The broken connection is the browser's own message.
      },
      /net::ERR_/,
    );
    expect(asked).toEqual([undefined, "bytes=1500000-"]);
  });

  it("refuses a file with another digest", async () => {
    await inPage(server.url, async (page) => {
      await expect(load(page, { integrity: `sha256-${"0".repeat(64)}`, cache: "caches" })).rejects.toThrow("the file must have the digest");
      expect(await page.evaluate(async () => (await (await caches.open("weights")).keys()).length)).toBe(0);
    });
  });

  it.each(["caches", "opfs"] as const)("%s: asks the server once, and again when the entry is damaged", async (cache) => {
    await inPage(server.url, async (page) => {
      for (let i = 0; i < 2; i++) expect(await load(page, { cache })).toEqual(whole);
      await page.reload();
      expect(await load(page, { cache, integrity })).toEqual(whole);
      expect(asked).toHaveLength(1);

      for (const damage of ["truncated", "changed"] as const) {
        await page.evaluate(damageEntry, { cache, damage });
        const { tensors, ...rest } = await load(page, { cache, integrity });
        expect({ ...rest, tensors: ["a", "b"] }).toEqual(whole);
        expect(tensors.slice(-2), damage).toEqual(["a", "b"]);
      }
      expect(asked).toHaveLength(3);
      expect(await load(page, { cache, integrity })).toEqual(whole);
      expect(asked).toHaveLength(3);
    });
  });
});

/** Runs in the page: cuts the one entry short, or flips a bit of its data. */
async function damageEntry({ cache, damage }: { cache: "caches" | "opfs"; damage: "truncated" | "changed" }): Promise<void> {
  const harm = (bytes: Uint8Array<ArrayBuffer>) => {
    if (damage === "truncated") return bytes.slice(0, -1000);
    bytes[bytes.length - 1_000_000]! ^= 1;
    return bytes;
  };
  if (cache === "caches") {
    const store = await caches.open("weights");
    const [request] = await store.keys();
    const response = request && (await store.match(request));
    if (!response) throw new Error("the cache is empty");
    await store.put(request, new Response(harm(new Uint8Array(await response.arrayBuffer()))));
  } else {
    const folder = await (await navigator.storage.getDirectory()).getDirectoryHandle("weights");
    for await (const handle of folder.values()) {
      const file = handle as FileSystemFileHandle;
      const bytes = harm(new Uint8Array(await (await file.getFile()).arrayBuffer()));
      const writable = await file.createWritable();
      await writable.write(bytes);
      await writable.close();
    }
  }
}
