import { afterEach, describe, expect, it, vi } from "vitest";
import { WeightsError } from "../../src/errors.ts";
import { type FetchProgress, fetchSafetensors, parseSafetensors, type WeightsCache, writeSafetensors } from "../../src/weights/index.ts";
import { concat, fileOf, firstDifference } from "./support.ts";

const URL_ = "https://example.org/model.safetensors";
const values = Float32Array.from({ length: 50_000 }, (_, i) => Math.sin(i));
const FILE = writeSafetensors(
  { w: { shape: [50, 1000], data: values }, b: { dtype: "BF16", shape: [1000], data: values.subarray(0, 1000) } },
  { note: "x" },
);
const headerEnd = (file: Uint8Array): number => 8 + new DataView(file.buffer, file.byteOffset).getUint32(0, true);

interface Served {
  response: Response;
  /** Pieces that were asked for. */
  pulled: () => number;
  cancelled: () => unknown[];
}

/** A response whose body comes in pieces of the given sizes, repeated; nothing is produced before it is asked for. */
function serve(
  bytes: Uint8Array,
  options: { sizes?: number[]; headers?: Record<string, string>; status?: number; fail?: unknown; onPull?: (n: number) => void } = {},
): Served {
  const sizes = options.sizes ?? [1 << 14];
  let at = 0;
  let pulled = 0;
  const cancelled: unknown[] = [];
  const body = new ReadableStream<Uint8Array>(
    {
      pull(controller) {
        options.onPull?.(pulled);
        const piece = bytes.slice(at, at + sizes[pulled++ % sizes.length]!);
        at += piece.length;
        if (piece.length > 0) controller.enqueue(piece);
        else if (options.fail !== undefined) controller.error(options.fail);
        else controller.close();
      },
      cancel(reason) {
        cancelled.push(reason);
      },
    },
    { highWaterMark: 0 },
  );
  const headers = options.headers ?? { "content-length": String(bytes.length) };
  return { response: new Response(body, { status: options.status ?? 200, headers }), pulled: () => pulled, cancelled: () => cancelled };
}

const fetchOf = (response: Response | (() => Response)) =>
  vi.fn(async (_url: string, _init: RequestInit) => (typeof response === "function" ? response() : response));

function expectWhole(weights: ReturnType<typeof parseSafetensors>) {
  expect(weights.names).toEqual(["w", "b"]);
  expect({ ...weights.metadata }).toEqual({ note: "x" });
  expect(weights.get("w").toFloat32()).toEqual(values);
  expect(weights.get("b").bytes).toEqual(parseSafetensors(FILE).get("b").bytes);
}

async function failure(promise: Promise<unknown>): Promise<Error> {
  const outcome = await promise.then(
    () => undefined,
    (error: unknown) => error,
  );
  expect(outcome, "it should have been refused").toBeDefined();
  return outcome as Error;
}

afterEach(() => {
  vi.unstubAllGlobals();
});

describe("a download", () => {
  it.each([
    ["in one piece", [1 << 20]],
    ["byte by byte through the header, then at once", [...Array<number>(headerEnd(FILE) + 1).fill(1), 1 << 20]],
    ["in odd pieces", [1, 7, 8, 9, 1023, 4097]],
    ["in very unequal pieces", [5, 3, 40_001]],
    ["up to the end of the header, then the data", [headerEnd(FILE), 1 << 20]],
  ])("%s gives the file", async (_name, sizes) => {
    for (const headers of [{ "content-length": String(FILE.length) }, {}]) {
      const progress: FetchProgress[] = [];
      const served = serve(FILE, { sizes, headers: headers as Record<string, string> });
      expectWhole(await fetchSafetensors(URL_, { fetch: fetchOf(served.response), onProgress: (p) => progress.push(p) }));

      let before = 0;
      for (const { loaded } of progress) {
        expect(loaded).toBeGreaterThan(before);
        before = loaded;
      }
      expect(progress.at(-1)).toEqual({ loaded: FILE.length, total: FILE.length });
      for (const { loaded, total } of progress) {
        expect(total).toBe("content-length" in headers || loaded >= headerEnd(FILE) ? FILE.length : undefined);
      }
      expect(progress).toHaveLength(served.pulled() - 1);
    }
  });

  it("asks once, for the address it is given, and hands the signal on", async () => {
    const fetch = fetchOf(() => serve(FILE).response);
    const { signal } = new AbortController();
    await fetchSafetensors(new URL(URL_), { fetch, signal });
    await fetchSafetensors("relative/path.safetensors", { fetch });
    expect(fetch.mock.calls).toEqual([
      [URL_, { signal }],
      ["relative/path.safetensors", {}],
    ]);
  });

  it("uses the global fetch, called as the global's own", async () => {
    vi.stubGlobal("fetch", function (this: unknown, url: string) {
      expect([undefined, globalThis]).toContain(this);
      expect(url).toBe(URL_);
      return Promise.resolve(serve(FILE).response);
    });
    expectWhole(await fetchSafetensors(URL_));
    vi.stubGlobal("fetch", undefined);
    await expect(fetchSafetensors(URL_)).rejects.toThrow(/^fetchSafetensors: fetch must be given where there is no global fetch/);
  });

  it("keeps no more memory than the file, and aligns its values", async () => {
    for (const headers of [undefined, {}]) {
      const { response } = serve(FILE, { sizes: [999], ...(headers && { headers }) });
      const weights = await fetchSafetensors(URL_, { fetch: fetchOf(response) });
      expect(weights.get("w").bytes.buffer.byteLength).toBe(FILE.length);
      expect(weights.get("w").toFloat32().buffer).toBe(weights.get("b").bytes.buffer);
    }
  });

  it("believes no Content-Length of a compressed body", async () => {
    const progress: FetchProgress[] = [];
    const { response } = serve(FILE, { headers: { "content-length": "1234", "content-encoding": "gzip" }, sizes: [20, 1 << 20] });
    expectWhole(await fetchSafetensors(URL_, { fetch: fetchOf(response), onProgress: (p) => progress.push(p) }));
    expect(progress.map((p) => p.total)).toEqual([undefined, FILE.length]);
  });

  it("works with a fetch that has no streams", async () => {
    const response = {
      ok: true,
      status: 200,
      headers: new Headers(),
      body: null,
      arrayBuffer: async () => FILE.slice().buffer,
    } as unknown as Response;
    const progress: FetchProgress[] = [];
    expectWhole(await fetchSafetensors(URL_, { fetch: fetchOf(response), onProgress: (p) => progress.push(p) }));
    expect(progress).toEqual([{ loaded: FILE.length, total: FILE.length }]);
  });

  it("reads from a real server's answer (a data: address)", async () => {
    const small = writeSafetensors({ a: { shape: [2], data: Float32Array.of(1, 2) } });
    const weights = await fetchSafetensors(`data:application/octet-stream;base64,${btoa(String.fromCharCode(...small))}`);
    expect(weights.get("a").toFloat32()).toEqual(Float32Array.of(1, 2));
  });
});

describe("an answer that is no file", () => {
  it.each([
    [404, "Not Found"],
    [500, "Internal Server Error"],
    [403, ""],
    [304, ""],
  ])("status %i", async (status, statusText) => {
    const cancelled: unknown[] = [];
    const body = status === 304 ? null : new ReadableStream({ cancel: (reason) => void cancelled.push(reason) });
    const error = await failure(fetchSafetensors(URL_, { fetch: fetchOf(new Response(body, { status, statusText })) }));
    expect(error).toBeInstanceOf(WeightsError);
    expect(error.message).toContain(
      `fetchSafetensors: ${URL_}: the answer must have a status from 200 to 299, got ${status}${statusText && ` ${statusText}`};`,
    );
    expect(cancelled).toHaveLength(status === 304 ? 0 : 1);
  });

  it("a request that fails", async () => {
    const cause = new TypeError("fetch failed");
    const error = await failure(fetchSafetensors(URL_, { fetch: () => Promise.reject(cause) }));
    expect(error).toBeInstanceOf(WeightsError);
    expect(error.message).toContain(`${URL_}: the request must be answered, got TypeError: fetch failed; check the address and the network`);
    expect(error.cause).toBe(cause);
  });

  it("a connection that breaks in the middle", async () => {
    const cause = new TypeError("terminated");
    const { response } = serve(FILE.subarray(0, 100_000), { fail: cause, headers: { "content-length": String(FILE.length) } });
    const error = await failure(fetchSafetensors(URL_, { fetch: fetchOf(response) }));
    expect(error).toBeInstanceOf(WeightsError);
    expect(error.message).toContain(`${URL_}: the body must arrive whole, got TypeError: terminated`);
    expect(error.cause).toBe(cause);
  });

  it.each([
    ["in the data", FILE.length - 1, `the body must have the ${FILE.length} bytes that its header promises, got ${FILE.length - 1} bytes`],
    ["before the data", headerEnd(FILE), `the body must have the ${FILE.length} bytes that its header promises, got ${headerEnd(FILE)} bytes`],
    ["in the header", headerEnd(FILE) - 1, `the body must have at least ${headerEnd(FILE)} bytes, its header, got ${headerEnd(FILE) - 1} bytes`],
    ["after 8 bytes", 8, `the body must have at least ${headerEnd(FILE)} bytes, its header, got 8 bytes`],
    ["after 7 bytes", 7, "the body must have at least 8 bytes, its header, got 7 bytes"],
    ["at once", 0, "the body must have at least 8 bytes, its header, got 0 bytes"],
  ])("a body that ends %s", async (_name, length, fragment) => {
    for (const headers of [{}, { "content-length": String(FILE.length) }]) {
      const { response } = serve(FILE.subarray(0, length), { headers: headers as Record<string, string> });
      const error = await failure(fetchSafetensors(URL_, { fetch: fetchOf(response) }));
      expect(error).toBeInstanceOf(WeightsError);
      expect(error.message).toContain(`fetchSafetensors: ${URL_}: ${fragment}; `);
    }
  });

  it("names even a megabyte-long address in few words", async () => {
    const error = await failure(fetchSafetensors(`data:,${"x".repeat(1e6)}`, { fetch: fetchOf(new Response("", { status: 500 })) }));
    expect(error.message.length).toBeLessThan(400);
    expect(error.message).toContain("data:,xxx");
  });
});

describe("a file that cannot be used is given up early", () => {
  const big = new Uint8Array(1 << 20);
  const entry = (bytes: number) => ({ a: { dtype: "U8", shape: [bytes], data_offsets: [0, bytes] } });
  const html = concat(new TextEncoder().encode("<!doctype html>"), big);
  const lyingLength = fileOf(entry(big.length), big, { length: 99_999_999n });
  const badHeader = fileOf({ a: { dtype: "F31", shape: [big.length], data_offsets: [0, big.length] } }, big);
  const tooLong = fileOf(entry(2 * big.length), big);
  const tooShort = fileOf(entry(big.length - 5), big);

  it.each<[string, Uint8Array, boolean, string]>([
    ["a web page", html, true, "the header length (bytes 0 to 7) must be from 1 to 100000000"],
    ["a web page of unknown length", html, false, "the header length (bytes 0 to 7) must be from 1 to 100000000"],
    [
      "a header longer than the file",
      lyingLength,
      true,
      `the header must lie within the file, got a header of 99999999 bytes in a file of ${lyingLength.length} (its Content-Length)`,
    ],
    ["a bad header", badHeader, true, 'the dtype of tensor "a" must be one of'],
    ["a bad header, unknown length", badHeader, false, 'the dtype of tensor "a" must be one of'],
    [
      "data beyond the Content-Length",
      tooLong,
      true,
      `the file, by its Content-Length, must have the ${tooLong.length + big.length} bytes that its header promises, where tensor "a" ends, got ${tooLong.length} bytes`,
    ],
    [
      "a Content-Length beyond the data",
      tooShort,
      true,
      `the file, by its Content-Length, must end with the last tensor, after ${tooShort.length - 5} bytes, got ${tooShort.length} bytes`,
    ],
  ])("%s", async (_name, bytes, lengthKnown, fragment) => {
    const served = serve(bytes, { sizes: [64], ...(!lengthKnown && { headers: {} }) });
    const progress: FetchProgress[] = [];
    const error = await failure(fetchSafetensors(URL_, { fetch: fetchOf(served.response), onProgress: (p) => progress.push(p) }));
    expect(error).toBeInstanceOf(WeightsError);
    expect(error.message).toContain(`fetchSafetensors: ${URL_}: ${fragment}`);
    // of 16384 pieces
    expect(served.pulled()).toBeLessThanOrEqual(3);
    expect(served.cancelled()).toHaveLength(1);
  });

  it("a body that goes on after the last tensor", async () => {
    const endless = serve(concat(fileOf(entry(1000), big.subarray(0, 1000)), big), { sizes: [300], headers: {} });
    const error = await failure(fetchSafetensors(URL_, { fetch: fetchOf(endless.response) }));
    expect(error.message).toContain("the body must end with the last tensor");
    expect(endless.pulled()).toBeLessThan(6);
    expect(endless.cancelled()).toHaveLength(1);
  });

  it("a body that goes on after the last tensor, all in one piece", async () => {
    const served = serve(concat(FILE, Uint8Array.of(0)), { sizes: [1 << 20], headers: {} });
    const error = await failure(fetchSafetensors(URL_, { fetch: fetchOf(served.response) }));
    expect(error).toBeInstanceOf(WeightsError);
    expect(error.message).toContain(`the body must end with the last tensor, after ${FILE.length} bytes, got ${FILE.length + 1} bytes`);
  });

  it("reserves no memory on the word of a header alone", async () => {
    // 2^50 bytes are promised, 100 KB come
    const served = serve(fileOf(entry(2 ** 49), big.subarray(0, 100_000)), { headers: {} });
    const error = await failure(fetchSafetensors(URL_, { fetch: fetchOf(served.response) }));
    expect(error).toBeInstanceOf(WeightsError);
    expect(error.message).toContain("bytes that its header promises, got");
  });

  it("says so where the file cannot be held in memory", async () => {
    const bytes = fileOf(entry(2 ** 49), big);
    const length = headerEnd(bytes) + 2 ** 49;
    const served = serve(bytes, { sizes: [headerEnd(bytes), 100], headers: { "content-length": String(length) } });
    const error = await failure(fetchSafetensors(URL_, { fetch: fetchOf(served.response) }));
    expect(error).toBeInstanceOf(WeightsError);
    expect(error.message).toContain(`the file must fit into memory in one piece, got ${length} bytes`);
    expect(error.cause).toBeInstanceOf(RangeError);
    expect(served.cancelled()).toHaveLength(1);
  });
});

describe("an abort", () => {
  it("before it begins asks for nothing", async () => {
    const fetch = fetchOf(() => serve(FILE).response);
    const error = await failure(fetchSafetensors(URL_, { fetch, signal: AbortSignal.abort() }));
    expect(error.name).toBe("AbortError");
    expect(fetch).not.toHaveBeenCalled();
  });

  it("during the request rejects at once, even where fetch ignores the signal", async () => {
    const controller = new AbortController();
    const promise = failure(fetchSafetensors(URL_, { fetch: () => new Promise(() => {}), signal: controller.signal }));
    setTimeout(() => controller.abort(), 5);
    expect((await promise).name).toBe("AbortError");
  });

  it("during the request comes through with the caller's own reason", async () => {
    const controller = new AbortController();
    const reason = new Error("enough");
    const fetch = (_url: string, { signal }: RequestInit) =>
      new Promise<Response>((_resolve, reject) => signal!.addEventListener("abort", () => reject(signal!.reason)));
    const promise = failure(fetchSafetensors(URL_, { fetch, signal: controller.signal }));
    setTimeout(() => controller.abort(reason), 5);
    expect(await promise).toBe(reason);
  });

  it("in the middle stops the body, and the reason comes through as it is", async () => {
    for (const reason of [undefined, new Error("enough"), "a text"]) {
      const controller = new AbortController();
      const served = serve(FILE, { sizes: [1000] });
      const loads: number[] = [];
      const promise = fetchSafetensors(URL_, {
        fetch: fetchOf(served.response),
        signal: controller.signal,
        onProgress: ({ loaded }) => {
          loads.push(loaded);
          if (loaded === 5000) controller.abort(reason);
        },
      });
      const error = await failure(promise);
      if (reason === undefined) {
        expect(error).toBeInstanceOf(DOMException);
        expect(error.name).toBe("AbortError");
      } else expect(error).toBe(reason);
      expect(loads.at(-1)).toBe(5000);
      expect(served.pulled()).toBeLessThanOrEqual(6);
      expect(served.cancelled()).toHaveLength(1);
    }
  });

  it("while a piece is awaited does not wait for it", async () => {
    const controller = new AbortController();
    const cancelled: unknown[] = [];
    const body = new ReadableStream({
      start: (c) => c.enqueue(FILE.slice(0, 1000)),
      cancel: (reason) => void cancelled.push(reason),
    });
    const promise = failure(fetchSafetensors(URL_, { fetch: fetchOf(new Response(body)), signal: controller.signal }));
    setTimeout(() => controller.abort(), 5);
    expect((await promise).name).toBe("AbortError");
    expect(cancelled).toEqual([controller.signal.reason]);
  });

  it("leaves no listener behind, after success or failure", async () => {
    const { signal } = new AbortController();
    const add = vi.spyOn(signal, "addEventListener");
    const remove = vi.spyOn(signal, "removeEventListener");
    await fetchSafetensors(URL_, { fetch: fetchOf(serve(FILE).response), signal });
    await failure(fetchSafetensors(URL_, { fetch: fetchOf(serve(FILE.subarray(0, 500)).response), signal }));
    const key = (call: unknown[]) => call[1];
    expect(add.mock.calls.length).toBeGreaterThan(0);
    for (const call of add.mock.calls) expect(remove.mock.calls.map(key)).toContain(key(call));
  });

  it("an AbortError of the caller's own fetch is no error of the file", async () => {
    const error = await failure(fetchSafetensors(URL_, { fetch: () => Promise.reject(new DOMException("stopped", "AbortError")) }));
    expect(error.name).toBe("AbortError");
  });
});

describe("onProgress", () => {
  it("that throws stops the download with its own error", async () => {
    const served = serve(FILE, { sizes: [1000] });
    const mine = new Error("mine");
    const error = await failure(
      fetchSafetensors(URL_, {
        fetch: fetchOf(served.response),
        onProgress: () => {
          throw mine;
        },
      }),
    );
    expect(error).toBe(mine);
    expect(served.cancelled()).toHaveLength(1);
  });
});

describe("the cache", () => {
  class MemoryCache implements WeightsCache {
    readonly entries = new Map<string, Uint8Array<ArrayBuffer>>();
    readonly headers = new Map<string, Headers>();
    async match(url: string) {
      const entry = this.entries.get(url);
      return entry && serve(entry, { sizes: [10_000] }).response;
    }
    async put(url: string, response: Response) {
      this.headers.set(url, response.headers);
      this.entries.set(url, new Uint8Array(await response.arrayBuffer()));
    }
  }
  const noFetch = () => Promise.reject(new Error("it must not be called"));

  it("is filled by the first load and serves the second without a request, with progress", async () => {
    const cache = new MemoryCache();
    expectWhole(await fetchSafetensors(URL_, { fetch: fetchOf(serve(FILE).response), cache }));
    expect(firstDifference(cache.entries.get(URL_)!, FILE)).toBe(-1);
    expect(cache.headers.get(URL_)!.get("content-length")).toBe(String(FILE.length));

    const fetch = vi.fn(noFetch);
    const progress: FetchProgress[] = [];
    expectWhole(await fetchSafetensors(URL_, { fetch, cache, onProgress: (p) => progress.push(p) }));
    expect(fetch).not.toHaveBeenCalled();
    expect(progress.length).toBeGreaterThan(5);
    expect(progress.at(-1)).toEqual({ loaded: FILE.length, total: FILE.length });
  });

  it("is asked for another address in vain", async () => {
    const cache = new MemoryCache();
    cache.entries.set(URL_, FILE);
    await expect(fetchSafetensors(`${URL_}?v=2`, { fetch: noFetch, cache })).rejects.toThrow("it must not be called");
  });

  it.each([
    ["a truncated file", FILE.subarray(0, -1)],
    ["no bytes", FILE.subarray(0, 0)],
    ["anything else", serveBytes("<html></html>")],
    ["a bad header", fileOf("[]")],
  ])("a damaged entry, %s, is fetched again and replaced; progress never falls", async (_name, entry) => {
    const cache = new MemoryCache();
    cache.entries.set(URL_, entry as Uint8Array<ArrayBuffer>);
    // without a Content-Length, so that damage at the end shows at the end
    cache.match = async () => serve(entry, { headers: {} }).response;
    const fetch = fetchOf(serve(FILE, { sizes: [300] }).response);
    const loads: number[] = [];
    expectWhole(await fetchSafetensors(URL_, { fetch, cache, onProgress: ({ loaded }) => loads.push(loaded) }));
    expect(fetch).toHaveBeenCalledOnce();
    expect(firstDifference(cache.entries.get(URL_)!, FILE)).toBe(-1);
    expect(loads).toEqual([...new Set(loads)].sort((a, b) => a - b));
    expect(loads.at(-1)).toBe(FILE.length);
  });

  it("keeps nothing that is incomplete, invalid or refused", async () => {
    const cache = new MemoryCache();
    await failure(fetchSafetensors(URL_, { fetch: fetchOf(serve(FILE.subarray(0, -1)).response), cache }));
    await failure(fetchSafetensors(URL_, { fetch: fetchOf(serve(fileOf("[]")).response), cache }));
    await failure(fetchSafetensors(URL_, { fetch: fetchOf(new Response(FILE, { status: 404 })), cache }));
    expect(cache.entries.size).toBe(0);
  });

  it("that fails fails no load", async () => {
    const cache = { match: () => Promise.reject(new Error("forbidden")), put: () => Promise.reject(new DOMException("full", "QuotaExceededError")) };
    expectWhole(await fetchSafetensors(URL_, { fetch: fetchOf(serve(FILE).response), cache }));
    const throwing = {
      match: () => {
        throw new Error("no");
      },
      put: () => {
        throw new Error("no");
      },
    };
    expectWhole(await fetchSafetensors(URL_, { fetch: fetchOf(serve(FILE).response), cache: throwing }));
  });

  it("an abort while a cached file is read is an abort, not a reason to fetch", async () => {
    const cache = new MemoryCache();
    cache.entries.set(URL_, FILE);
    const controller = new AbortController();
    const fetch = vi.fn(noFetch);
    const error = await failure(fetchSafetensors(URL_, { fetch, cache, signal: controller.signal, onProgress: () => controller.abort() }));
    expect(error.name).toBe("AbortError");
    expect(fetch).not.toHaveBeenCalled();
  });

  it("by name is the platform's, where there is one", async () => {
    const cache = new MemoryCache();
    const open = vi.fn(async (_name: string) => cache);
    vi.stubGlobal("caches", { open });
    expectWhole(await fetchSafetensors(URL_, { fetch: fetchOf(serve(FILE).response), cache: "weights" }));
    expectWhole(await fetchSafetensors(URL_, { fetch: noFetch, cache: "weights" }));
    expect(open.mock.calls).toEqual([["weights"], ["weights"]]);

    vi.stubGlobal("caches", undefined);
    const fetch = fetchOf(() => serve(FILE).response);
    expectWhole(await fetchSafetensors(URL_, { fetch, cache: "weights" }));
    expect(fetch).toHaveBeenCalledOnce();
  });

  function serveBytes(text: string): Uint8Array<ArrayBuffer> {
    return new TextEncoder().encode(text);
  }
});

describe("arguments", () => {
  it.each<[string, unknown, unknown, string]>([
    ["a url that is a number", 3, {}, "fetchSafetensors: url must be a string or a URL, got 3"],
    ["no url", undefined, {}, "fetchSafetensors: url must be a string or a URL, got undefined"],
    ["options that are a function", URL_, () => {}, "fetchSafetensors: options must be an object, got function"],
    ["options that are null", URL_, null, "fetchSafetensors: options must be an object, got null"],
    [
      "an unknown option",
      URL_,
      { onprogress: () => {} },
      'fetchSafetensors: options must have only the keys onProgress, onTensor, signal, fetch, cache, integrity, retries, got the unknown key "onprogress"',
    ],
    ["onProgress that is an object", URL_, { onProgress: {} }, "fetchSafetensors: onProgress must be a function, got Object"],
    [
      "a controller as signal",
      URL_,
      { signal: new AbortController() },
      "fetchSafetensors: signal must be an AbortSignal, got AbortController; pass `controller.signal`",
    ],
    ["signal that is null", URL_, { signal: null }, "fetchSafetensors: signal must be an AbortSignal, got null"],
    ["fetch that is a Response", URL_, { fetch: new Response("") }, "fetchSafetensors: fetch must be a function, got Response"],
    [
      "a cache without put",
      URL_,
      { cache: { match() {} } },
      "fetchSafetensors: cache must be a cache name or an object with match and put, got Object",
    ],
    ["a cache that is true", URL_, { cache: true }, "fetchSafetensors: cache must be a cache name or an object with match and put, got true"],
  ])("%s", async (_name, url, options, message) => {
    const error = await failure(fetchSafetensors(url as string, options as object));
    expect(error).toBeInstanceOf(TypeError);
    expect(error.message).toContain(message);
  });
});
