import { createHash } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from "vitest";
import { WeightsError } from "../../src/errors.ts";
import {
  type FetchProgress,
  fetchSafetensors,
  parseSafetensors,
  type WeightsCache,
  type WeightTensor,
  writeSafetensors,
} from "../../src/weights/index.ts";
import { firstDifference } from "./support.ts";

const values = Float32Array.from({ length: 50_000 }, (_, i) => Math.sin(i));
const FILE = writeSafetensors({
  w: { shape: [50, 1000], data: values },
  b: { dtype: "BF16", shape: [1000], data: values.subarray(0, 1000) },
  none: { shape: [0], data: new Float32Array(0) },
});
const OTHER = writeSafetensors({
  w: { shape: [50, 1000], data: values.map((x) => -x) },
  b: { dtype: "BF16", shape: [1000], data: values.subarray(0, 1000) },
  none: { shape: [0], data: new Float32Array(0) },
});
const digestOf = (file: Uint8Array, algorithm = "sha256", encoding: "base64" | "hex" = "base64") =>
  `${algorithm}-${createHash(algorithm).update(file).digest(encoding)}`;

/** Answers requests in turn with what is planned for them; the last plan stays. */
let plans: ((request: IncomingMessage, response: ServerResponse) => void)[] = [];
let requests: { range: string | undefined }[] = [];
let server: Server;
let url: string;

beforeAll(async () => {
  server = createServer((request, response) => {
    requests.push({ range: request.headers.range });
    const plan = plans.length > 1 ? plans.shift() : plans[0];
    plan?.(request, response);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/model.safetensors`;
});

afterAll(() => {
  server.closeAllConnections();
  server.close();
});

afterEach(() => {
  vi.unstubAllGlobals();
  plans = [];
  requests = [];
});

interface Answer {
  readonly headers?: Record<string, string>;
  /** Bytes of the body after which the connection breaks. */
  readonly breakAfter?: number;
  readonly ranges?: boolean;
}

function answer(file: Uint8Array, { headers = {}, breakAfter, ranges = true }: Answer = {}) {
  return (request: IncomingMessage, response: ServerResponse): void => {
    const from = ranges ? Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? "")?.[1] ?? Number.NaN) : Number.NaN;
    const whole = Number.isNaN(from);
    const body = whole ? file : file.subarray(from);
    response.writeHead(whole ? 200 : 206, {
      "content-length": body.length,
      ...(!whole && { "content-range": `bytes ${from}-${file.length - 1}/${file.length}` }),
      ...headers,
    });
    if (breakAfter === undefined) response.end(body);
    else response.write(body.subarray(0, breakAfter), () => setTimeout(() => response.destroy(), 20));
  };
}

async function failure(promise: Promise<unknown>): Promise<Error> {
  return promise.then(
    () => expect.fail("it should have been refused"),
    (error: Error) => error,
  );
}

const etag = { etag: '"v1"' };

describe("integrity", () => {
  it.each([
    ["sha256", "base64"],
    ["sha256", "hex"],
    ["sha384", "base64"],
    ["sha512", "base64"],
    ["sha512", "hex"],
  ] as const)("%s in %s lets the file through, and no other", async (algorithm, encoding) => {
    plans = [answer(FILE)];
    const weights = await fetchSafetensors(url, { integrity: digestOf(FILE, algorithm, encoding) });
    expect(weights.get("w").toFloat32()).toEqual(values);
    const error = await failure(fetchSafetensors(url, { integrity: digestOf(OTHER, algorithm, encoding) }));
    expect(error).toBeInstanceOf(WeightsError);
    expect(error.message).toBe(
      `fetchSafetensors: ${url}: the file must have the digest ${digestOf(OTHER, algorithm)}, got ${digestOf(FILE, algorithm)}; it was changed or damaged, or the digest is that of another version`,
    );
  });

  it("finds a single changed bit, which nothing else would", async () => {
    const changed = FILE.slice();
    changed[changed.length - 5]! ^= 1;
    plans = [answer(changed)];
    await fetchSafetensors(url);
    expect(await failure(fetchSafetensors(url, { integrity: digestOf(FILE) }))).toBeInstanceOf(WeightsError);
  });

  it("takes the url-safe alphabet of base64, too", async () => {
    plans = [answer(FILE)];
    await fetchSafetensors(url, { integrity: digestOf(FILE, "sha512").replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "") });
  });

  it.each([
    "",
    "sha256",
    "sha256-",
    "sha1-2jmj7l5rSw0yVb/vlWAYkK/YBwk=",
    "md5-1B2M2Y8AsgTpgAmY7PhCfg==",
    "sha256-AAAA",
    `sha512-${"00".repeat(32)}`,
    `sha256-${"0g".repeat(32)}`,
    `${digestOf(FILE)} ${digestOf(OTHER)}`,
    `SHA256-${"00".repeat(32)}`,
  ])("%j is refused before anything is asked for", async (integrity) => {
    const error = await failure(fetchSafetensors(url, { integrity }));
    expect(error).toBeInstanceOf(RangeError);
    expect(error.message).toMatch(/^fetchSafetensors: integrity must be one digest such as "sha256-…", .*; `sha256sum FILE` prints one$/);
    expect(requests).toEqual([]);
  });

  it("of another kind is a TypeError", async () => {
    expect(await failure(fetchSafetensors(url, { integrity: 3 as unknown as string }))).toBeInstanceOf(TypeError);
  });

  it("is refused where nothing can check it", async () => {
    vi.stubGlobal("crypto", {});
    const error = await failure(fetchSafetensors(url, { integrity: digestOf(FILE) }));
    expect(error.message).toBe(
      "fetchSafetensors: integrity must come where there is crypto.subtle, got a page without it; serve the page over https or from localhost",
    );
    expect(requests).toEqual([]);
  });

  it("keeps a wrong file out of the cache, and replaces a wrong one in it", async () => {
    const entries = new Map<string, Uint8Array<ArrayBuffer>>();
    const cache: WeightsCache = {
      match: async (address) => (entries.has(address) ? new Response(entries.get(address)) : undefined),
      put: async (address, response) => void entries.set(address, new Uint8Array(await response.arrayBuffer())),
    };
    plans = [answer(OTHER)];
    await failure(fetchSafetensors(url, { integrity: digestOf(FILE), cache }));
    expect(entries.size).toBe(0);

    entries.set(url, OTHER);
    plans = [answer(FILE)];
    const progress: FetchProgress[] = [];
    const weights = await fetchSafetensors(url, { integrity: digestOf(FILE), cache, onProgress: (p) => progress.push(p) });
    expect(weights.get("w").toFloat32()).toEqual(values);
    expect(firstDifference(entries.get(url)!, FILE)).toBe(-1);
    expect(progress.filter(({ loaded }) => loaded === FILE.length)).toHaveLength(1);
  });

  it("an abort while it is checked is an abort", async () => {
    plans = [answer(FILE)];
    const controller = new AbortController();
    vi.stubGlobal("crypto", { subtle: { digest: () => new Promise(() => setTimeout(() => controller.abort(), 5)) } });
    expect((await failure(fetchSafetensors(url, { integrity: digestOf(FILE), signal: controller.signal }))).name).toBe("AbortError");
  });
});

describe("retries", () => {
  it("go on where the download broke off", async () => {
    plans = [
      answer(FILE, { headers: etag, breakAfter: 100_000 }),
      answer(FILE, { headers: etag, breakAfter: 30_000 }),
      answer(FILE, { headers: etag }),
    ];
    const loads: number[] = [];
    const weights = await fetchSafetensors(url, { retries: 2, integrity: digestOf(FILE), onProgress: ({ loaded }) => loads.push(loaded) });
    expect(weights.get("w").toFloat32()).toEqual(values);
    expect(requests.map(({ range }) => range)).toEqual([undefined, "bytes=100000-", "bytes=130000-"]);
    expect(loads).toEqual([...new Set(loads)].sort((a, b) => a - b));
    expect(loads.at(-1)).toBe(FILE.length);
  });

  it.each<[string, Answer, Answer, boolean]>([
    ["the ETag", { headers: etag }, { headers: etag }, true],
    [
      "Last-Modified",
      { headers: { "last-modified": "Tue, 01 Sep 2026 00:00:00 GMT" } },
      { headers: { "last-modified": "Tue, 01 Sep 2026 00:00:00 GMT" } },
      true,
    ],
    ["nothing but a weak ETag", { headers: { etag: 'W/"v1"' } }, {}, false],
    ["nothing", {}, {}, false],
  ])("by %s", async (_name, first, second, goesOn) => {
    plans = [answer(FILE, { ...first, breakAfter: 5000 }), answer(FILE, second)];
    const weights = await fetchSafetensors(url, { retries: 1 });
    expect(weights.get("w").toFloat32()).toEqual(values);
    expect(requests.map(({ range }) => range)).toEqual([undefined, goesOn ? "bytes=5000-" : undefined]);
  });

  it("begin anew where the server knows no ranges", async () => {
    plans = [answer(FILE, { headers: etag, breakAfter: 5000, ranges: false }), answer(OTHER, { headers: { etag: '"v2"' }, ranges: false })];
    const weights = await fetchSafetensors(url, { retries: 1 });
    expect(weights.get("w").toFloat32()[1]).toBe(-values[1]!);
    expect(requests).toHaveLength(2);
  });

  it("never join two versions of a file", async () => {
    const changed = { headers: { etag: '"v2"' } };
    plans = [answer(FILE, { headers: etag, breakAfter: 5000 }), answer(OTHER, changed), answer(OTHER, changed)];
    const weights = await fetchSafetensors(url, { retries: 2 });
    expect(weights.get("w").toFloat32().slice(0, 1200)).toEqual(values.slice(0, 1200).map((x) => -x));
    expect(requests.map(({ range }) => range)).toEqual([undefined, "bytes=5000-", undefined]);

    plans = [answer(FILE, { headers: etag, breakAfter: 5000 }), answer(OTHER, changed)];
    const error = await failure(fetchSafetensors(url, { retries: 1 }));
    expect(error.message).toBe(
      `fetchSafetensors: ${url}: the file must stay as it is, got another version; it changed during the download; try again`,
    );
  });

  it("refuse an answer that goes on elsewhere", async () => {
    plans = [answer(FILE, { headers: etag, breakAfter: 5000 }), answer(FILE, { headers: { ...etag, "content-range": "bytes 4999-9/10" } })];
    expect((await failure(fetchSafetensors(url, { retries: 1 }))).message).toContain("the file must stay as it is");
  });

  it.each([408, 429, 500, 503])("ask again after status %i", async (status) => {
    plans = [(_request, response) => response.writeHead(status).end(), answer(FILE)];
    await fetchSafetensors(url, { retries: 1 });
    expect(requests).toHaveLength(2);
  });

  it.each([400, 403, 404, 410])("do not ask again after status %i", async (status) => {
    plans = [(_request, response) => response.writeHead(status).end()];
    expect(await failure(fetchSafetensors(url, { retries: 3 }))).toBeInstanceOf(WeightsError);
    expect(requests).toHaveLength(1);
  });

  it("do not ask again for a file that cannot be used, or after an error of the caller's own", async () => {
    plans = [answer(new Uint8Array(1000))];
    expect(await failure(fetchSafetensors(url, { retries: 3 }))).toBeInstanceOf(WeightsError);
    plans = [answer(FILE)];
    const own = new WeightsError("mine");
    for (const name of ["onProgress", "onTensor"]) {
      const options = {
        retries: 3,
        [name]: () => {
          throw own;
        },
      };
      expect(await failure(fetchSafetensors(url, options))).toBe(own);
    }
    expect(requests).toHaveLength(3);
  });

  it("end with the last error", async () => {
    plans = [answer(FILE, { headers: etag, breakAfter: 5000 }), (_request, response) => response.destroy()];
    const error = await failure(fetchSafetensors(url, { retries: 1 }));
    expect(error).toBeInstanceOf(WeightsError);
    expect(error.message).toContain("the request must be answered");
    expect(requests).toHaveLength(2);
  });

  it("are none unless asked for", async () => {
    plans = [answer(FILE, { headers: etag, breakAfter: 5000 })];
    expect((await failure(fetchSafetensors(url))).message).toContain("the body must arrive whole");
    expect(requests).toHaveLength(1);
  });

  it("end at once when aborted", async () => {
    plans = [(_request, response) => response.writeHead(503).end()];
    const controller = new AbortController();
    const begin = performance.now();
    const promise = failure(fetchSafetensors(url, { retries: 10, signal: controller.signal }));
    await vi.waitFor(() => expect(requests).toHaveLength(2));
    controller.abort();
    expect((await promise).name).toBe("AbortError");
    expect(performance.now() - begin).toBeLessThan(10_000);
  });

  it.each([-1, 1.5, 11, Number.NaN])("of %s are refused", async (retries) => {
    expect(await failure(fetchSafetensors(url, { retries }))).toBeInstanceOf(RangeError);
  });
});

describe("onTensor", () => {
  const check = (tensors: WeightTensor[], file = FILE) => {
    const whole = parseSafetensors(file);
    for (const tensor of tensors) {
      const { dtype, shape, bytes } = whole.get(tensor.name);
      expect([tensor.dtype, tensor.shape]).toEqual([dtype, shape]);
      expect(firstDifference(tensor.bytes, bytes)).toBe(-1);
    }
  };

  it.each([{}, { "content-length": "" }])("gives every tensor once, as soon as it is there (headers %j)", async (headers) => {
    const whole = parseSafetensors(FILE);
    const tensors: WeightTensor[] = [];
    const steps: string[] = [];
    const pieces = new ReadableStream<Uint8Array>({
      async start(controller) {
        for (let at = 0; at < FILE.length; at += 997) controller.enqueue(FILE.slice(at, at + 997));
        controller.close();
      },
    });
    const length = "content-length" in headers ? {} : { "content-length": String(FILE.length) };
    let loaded = 0;
    await fetchSafetensors(url, {
      fetch: async () => new Response(pieces, { headers: length }),
      onProgress: (progress) => {
        loaded = progress.loaded;
      },
      onTensor: (tensor) => {
        tensors.push(tensor);
        steps.push(`${tensor.name} ${loaded < FILE.length - 997 ? "during" : "at the end of"} the download`);
      },
    });
    expect(tensors.map(({ name }) => name)).toEqual([...whole.names].sort((a, b) => whole.get(a).bytes.byteOffset - whole.get(b).bytes.byteOffset));
    check(tensors);
    expect(steps).toContain("w during the download");
    expect(steps).toContain("b at the end of the download");
  });

  it("goes on with a download that goes on, and begins anew with one that does", async () => {
    for (const ranges of [true, false]) {
      plans = [answer(FILE, { headers: etag, ranges, breakAfter: FILE.length - 1000 }), answer(FILE, { headers: etag, ranges })];
      const tensors: WeightTensor[] = [];
      await fetchSafetensors(url, { retries: 1, onTensor: (tensor) => tensors.push(tensor) });
      const names = tensors.map(({ name }) => name);
      expect(names.filter((name) => name === "w")).toHaveLength(ranges ? 1 : 2);
      expect(names.filter((name) => name === "b")).toHaveLength(1);
      check(tensors);
    }
  });
});
