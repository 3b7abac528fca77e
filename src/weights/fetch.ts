import { checkObject, typeError } from "../checks.ts";
import { WeightsError } from "../errors.ts";
import { checkFileLength, type Header, parseHeader, parseHeaderLength, readTensors, type Weights, weightsError } from "./safetensors.ts";

export interface FetchProgress {
  /** Bytes that have arrived; it never falls, and ends at `total`. */
  loaded: number;
  /** Bytes of the whole file: from Content-Length, and from the file's own header once that is there; undefined before either. */
  total: number | undefined;
}

/** The part of the browser's `Cache` that is used, so that any store can stand in for it. */
export interface WeightsCache {
  match(url: string): Promise<Response | undefined>;
  put(url: string, response: Response): Promise<unknown>;
}

export interface FetchSafetensorsOptions {
  /** Called after every piece that arrives. */
  onProgress?: ((progress: FetchProgress) => void) | undefined;
  /** Aborting rejects with the signal's own reason (an AbortError by default) and drops the connection. */
  signal?: AbortSignal | undefined;
  /** Stands in for the global `fetch`: for headers, credentials, retries or a test. */
  fetch?: ((url: string, init: RequestInit) => Promise<Response>) | undefined;
  /**
   * Where complete, valid files are kept: a cache, or the name of one in `globalThis.caches` (where there is no such thing, in Node or on a page without
   * https, the file is fetched every time). A cached file that does not parse is fetched again, and a cache that fails (full, forbidden) fails no load.
   */
  cache?: WeightsCache | string | undefined;
}

const WHERE = "fetchSafetensors";

/**
 * Downloads a safetensors file piece by piece and reads it. The header is checked as soon as it has arrived: a file that cannot be used, or whose header
 * promises another length than the server announces, is given up before its data is downloaded. Everything wrong with the answer or the file is a
 * `WeightsError` that names the address; an abort is not an error of the file and keeps the signal's reason.
 *
 * ```ts
 * const weights = await fetchSafetensors("model.safetensors", {
 *   onProgress: ({ loaded, total }) => (bar.value = total ? loaded / total : 0),
 *   signal: controller.signal,
 *   cache: "homm-weights",
 * });
 * ```
 */
export async function fetchSafetensors(url: string | URL, options: FetchSafetensorsOptions = {}): Promise<Weights> {
  const address = checkUrl(url);
  checkOptions(options);
  const { signal } = options;
  signal?.throwIfAborted();

  let reached = 0;
  // A damaged cache entry makes the bytes start again; what the caller sees does not.
  const report = ({ loaded, total }: FetchProgress): void => {
    if (loaded <= reached) return;
    reached = loaded;
    options.onProgress?.({ loaded, total });
  };

  const cache = await openCache(options.cache);
  if (cache) {
    const cached = await abortable(
      ignoreFailure(() => cache.match(address)),
      signal,
    );
    if (cached?.ok) {
      try {
        return (await receive(address, cached, report, signal)).weights;
      } catch (error) {
        // Only a damaged entry is worth a download: an abort is not, nor what the caller's own onProgress throws.
        if (!(error instanceof WeightsError)) throw error;
      }
    }
  }

  const response = await request(address, options);
  if (!response.ok) {
    void ignoreFailure(() => response.body?.cancel());
    const status = `${response.status}${response.statusText ? ` ${response.statusText}` : ""}`;
    throw weightsError(place(address), "the answer", "have a status from 200 to 299", status, "check the address and the access rights");
  }
  const { weights, file } = await receive(address, response, report, signal);
  if (cache) {
    const headers = { "content-type": "application/octet-stream", "content-length": String(file.byteLength) };
    await ignoreFailure(() => cache.put(address, new Response(file, { headers })));
  }
  return weights;
}

/** Function and address, the head of every message; a data: address can be megabytes long. */
function place(address: string): string {
  return `${WHERE}: ${address.length > 200 ? `${address.slice(0, 197)}...` : address}`;
}

function checkUrl(url: unknown): string {
  if (typeof url === "string") return url;
  const href = (url as { href?: unknown } | null | undefined)?.href;
  if (typeof href !== "string") throw typeError(WHERE, "url", "be a string or a URL", url);
  return href;
}

function checkOptions(options: FetchSafetensorsOptions): void {
  checkObject(WHERE, "options", options, ["onProgress", "signal", "fetch", "cache"]);
  const { onProgress, signal, cache } = options;
  if (onProgress !== undefined && typeof onProgress !== "function") throw typeError(WHERE, "onProgress", "be a function", onProgress);
  if (options.fetch !== undefined && typeof options.fetch !== "function") throw typeError(WHERE, "fetch", "be a function", options.fetch);
  if (signal !== undefined && (typeof signal?.throwIfAborted !== "function" || typeof signal.addEventListener !== "function")) {
    throw typeError(WHERE, "signal", "be an AbortSignal", signal, "pass `controller.signal`");
  }
  if (cache !== undefined && typeof cache !== "string" && (typeof cache?.match !== "function" || typeof cache.put !== "function")) {
    throw typeError(WHERE, "cache", "be a cache name or an object with match and put", cache);
  }
}

async function openCache(cache: WeightsCache | string | undefined): Promise<WeightsCache | undefined> {
  if (typeof cache !== "string") return cache;
  return ignoreFailure(() => globalThis.caches?.open(cache));
}

async function request(address: string, { fetch, signal }: FetchSafetensorsOptions): Promise<Response> {
  if (!fetch && typeof globalThis.fetch !== "function") {
    throw typeError(
      WHERE,
      "fetch",
      "be given where there is no global fetch",
      undefined,
      "pass { fetch }, or read the file and call parseSafetensors",
    );
  }
  const init: RequestInit = signal ? { signal } : {};
  try {
    return await abortable(fetch ? fetch(address, init) : globalThis.fetch(address, init), signal);
  } catch (error) {
    throw asTransferError(address, "the request", "be answered", error, signal);
  }
}

/** What a failing request or body means: an abort stays what it is, anything else is a `WeightsError` with the failure as its cause. */
function asTransferError(address: string, subject: string, rule: string, error: unknown, signal: AbortSignal | undefined): unknown {
  if (signal?.aborted || (error as { name?: unknown } | null | undefined)?.name === "AbortError") return error;
  return weightsError(place(address), subject, rule, String(error), "check the address and the network (and CORS, across origins), and try again", {
    cause: error,
  });
}

/** Bytes of the body if the server says so. With a Content-Encoding the number counts the compressed bytes, which are not what arrives here. */
function announcedBytes(response: Response): number | undefined {
  const encoding = response.headers.get("content-encoding");
  const length = response.headers.get("content-length");
  return length !== null && /^\d+$/.test(length) && (encoding === null || encoding === "identity") ? Number(length) : undefined;
}

async function receive(
  address: string,
  response: Response,
  report: (progress: FetchProgress) => void,
  signal: AbortSignal | undefined,
): Promise<{ weights: Weights; file: Uint8Array<ArrayBuffer> }> {
  const arrival = new Arrival(address, announcedBytes(response));
  const broken = (error: unknown): never => {
    throw asTransferError(address, "the body", "arrive whole", error, signal);
  };
  if (!response.body) {
    // A fetch without streams, as in React Native.
    arrival.push(new Uint8Array(await abortable(response.arrayBuffer(), signal).catch(broken)));
    report(arrival.progress);
    return arrival.finish();
  }

  const reader = response.body.getReader();
  const drop = (): void => void ignoreFailure(() => reader.cancel(signal?.reason));
  // Ends a pending read even where the body knows nothing of the signal, as that of a cached answer.
  signal?.addEventListener("abort", drop, { once: true });
  try {
    for (;;) {
      signal?.throwIfAborted();
      const { done, value } = await reader.read().catch(broken);
      signal?.throwIfAborted();
      if (done) return arrival.finish();
      arrival.push(value);
      report(arrival.progress);
    }
  } catch (error) {
    drop();
    throw error;
  } finally {
    signal?.removeEventListener("abort", drop);
  }
}

/** Collects a file out of pieces of any size, and refuses it as soon as that is possible. */
class Arrival {
  readonly #where: string;
  readonly #announced: number | undefined;
  #bytes = new Uint8Array(0);
  #loaded = 0;
  #headerEnd: number | undefined;
  #header: Header | undefined;

  constructor(address: string, announced: number | undefined) {
    this.#where = place(address);
    this.#announced = announced;
  }

  get progress(): FetchProgress {
    return { loaded: this.#loaded, total: this.#header?.fileBytes ?? this.#announced };
  }

  push(piece: Uint8Array): void {
    const loaded = this.#loaded + piece.length;
    if (this.#header) checkNothingMore(this.#where, this.#header, loaded);
    this.#makeRoom(loaded);
    this.#bytes.set(piece, this.#loaded);
    this.#loaded = loaded;
    if (!this.#header) this.#readHeader();
  }

  #readHeader(): void {
    if (this.#headerEnd === undefined && this.#loaded >= 8) {
      this.#headerEnd = 8 + parseHeaderLength(this.#where, this.#bytes);
      if (this.#announced !== undefined && this.#headerEnd > this.#announced) {
        throw weightsError(
          this.#where,
          "the header",
          "lie within the file",
          `a header of ${this.#headerEnd - 8} bytes in a file of ${this.#announced} (its Content-Length)`,
          "it is truncated, or no safetensors file; export or upload it again",
        );
      }
    }
    if (this.#headerEnd === undefined || this.#loaded < this.#headerEnd) return;
    this.#header = parseHeader(this.#where, this.#bytes.subarray(8, this.#headerEnd));
    if (this.#announced !== undefined) checkFileLength(this.#where, this.#header, this.#announced, "the file, by its Content-Length,");
    checkNothingMore(this.#where, this.#header, this.#loaded);
  }

  /** Memory follows what has arrived, not what is promised, until header and Content-Length agree on the whole length. */
  #makeRoom(needed: number): void {
    if (needed <= this.#bytes.length) return;
    const doubled = Math.max(needed, 2 * this.#bytes.length);
    const whole = this.#header?.fileBytes;
    const room = whole === undefined ? Math.max(doubled, 1 << 16) : this.#announced === undefined ? Math.min(whole, doubled) : whole;
    let bytes: Uint8Array<ArrayBuffer>;
    try {
      bytes = new Uint8Array(room);
    } catch (error) {
      throw weightsError(this.#where, "the file", "fit into memory in one piece", `${room} bytes`, "split it, or use a smaller dtype", {
        cause: error,
      });
    }
    bytes.set(this.#bytes.subarray(0, this.#loaded));
    this.#bytes = bytes;
  }

  finish(): { weights: Weights; file: Uint8Array<ArrayBuffer> } {
    const needed = this.#header?.fileBytes ?? this.#headerEnd ?? 8;
    if (!this.#header || this.#loaded < needed) {
      const rule = this.#header ? `have the ${needed} bytes that its header promises` : `have at least ${needed} bytes, its header`;
      throw weightsError(this.#where, "the body", rule, `${this.#loaded} bytes`, "the connection broke or the file is truncated; try again");
    }
    const file = this.#bytes.length === needed ? this.#bytes : this.#bytes.slice(0, needed);
    return { weights: readTensors(this.#where, this.#header, file), file };
  }
}

function checkNothingMore(where: string, header: Header, loaded: number): void {
  if (loaded > header.fileBytes) checkFileLength(where, header, loaded, "the body");
}

/** Settles as the promise does, or rejects with the signal's reason, whichever is first. */
function abortable<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return promise;
  return new Promise((resolve, reject) => {
    const abort = (): void => reject(signal.reason);
    if (signal.aborted) abort();
    signal.addEventListener("abort", abort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", abort));
  });
}

/** For what must not fail a load: a cache that is full or forbidden, a connection that is closed anyway. */
async function ignoreFailure<T>(action: () => Promise<T> | T): Promise<T | undefined> {
  try {
    return await action();
  } catch {
    return undefined;
  }
}
