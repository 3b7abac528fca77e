import { checkInteger, checkObject, typeError } from "../checks.ts";
import { WeightsError } from "../errors.ts";
import { Arrival } from "./arrival.ts";
import { type Digest, otherDigest, parseIntegrity, writeDigest } from "./integrity.ts";
import { type Weights, type WeightTensor, weightsError } from "./safetensors.ts";

/** How far a download is. */
export interface FetchProgress {
  /** Bytes that have arrived; it never falls, and ends at `total`. */
  loaded: number;
  /** Bytes of the whole file: from Content-Length, and from the file's own header once that is there; undefined before either. */
  total: number | undefined;
}

/**
 * The part of the browser's `Cache` that is used, so that any store can stand in for it: `opfsCache()` in browsers, `fileCache(folder)` of
 * `homm-webgpu/node`, or one's own.
 */
export interface WeightsCache {
  /** The answer that was put there for this address, or undefined. */
  match(url: string): Promise<Response | undefined>;
  /** Keeps a complete file. Whoever writes piece by piece must not let `match` see the pieces. */
  put(url: string, response: Response): Promise<unknown>;
}

/** Options of {@link fetchSafetensors}. */
export interface FetchSafetensorsOptions {
  /** Called after every piece that arrives. */
  onProgress?: ((progress: FetchProgress) => void) | undefined;
  /**
   * Called with each tensor as soon as it has arrived, in the order of the file's data: to upload it while the rest is on its way. It comes before `integrity`
   * is checked, and a file that has to be read again from its start, after a damaged cache entry or in a retry, gives its tensors again.
   */
  onTensor?: ((tensor: WeightTensor) => void) | undefined;
  /** Aborting rejects with the signal's own reason (an AbortError by default) and drops the connection. */
  signal?: AbortSignal | undefined;
  /** Stands in for the global `fetch`: for headers, credentials or a test. */
  fetch?: ((url: string, init: RequestInit) => Promise<Response>) | undefined;
  /**
   * Where complete, valid files are kept: a cache, or the name of one in `globalThis.caches` (where there is no such thing, in Node or on a page without
   * https, the file is fetched every time). A cached file that does not parse, or not have the digest of `integrity`, is fetched again, and a cache that fails
   * (full, forbidden) fails no load.
   */
  cache?: WeightsCache | string | undefined;
  /**
   * The file's digest as in an HTML integrity attribute: `"sha256-"`, `"sha384-"` or `"sha512-"` with base64, or with the hexadecimal digits that
   * `sha256sum` and model hubs print. Any other file is a `WeightsError`. It needs `crypto.subtle`: https, localhost or Node.
   */
  integrity?: string | undefined;
  /**
   * How often a download that broke off, or a server that is busy (408, 429, 5xx), is tried again, after 0.25, 0.5, 1, … seconds; default 0. It goes on where it
   * broke off if the server can do that and the file is still the same (by ETag, Last-Modified or `integrity`).
   */
  retries?: number | undefined;
}

const WHERE = "fetchSafetensors";
const OPTION_KEYS = ["onProgress", "onTensor", "signal", "fetch", "cache", "integrity", "retries"];

/** An error on its way out of a load, with what it means: one that may pass is worth a retry, one of the caller's own functions is nobody's fault here. */
class Failure {
  readonly error: unknown;
  readonly kind: "may pass" | "caller's";
  constructor(error: unknown, kind: Failure["kind"]) {
    this.error = error;
    this.kind = kind;
  }
}

/** What one call is about, its options checked. */
interface Load {
  readonly address: string;
  readonly signal: AbortSignal | undefined;
  readonly fetch: FetchSafetensorsOptions["fetch"];
  readonly retries: number;
  readonly digest: Digest | undefined;
  readonly onTensor: ((tensor: WeightTensor) => void) | undefined;
  readonly report: (arrival: Arrival) => void;
}

interface Received {
  readonly weights: Weights;
  readonly file: Uint8Array<ArrayBuffer>;
}

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
 *   integrity: "sha256-3q2+7w…",
 *   retries: 3,
 * });
 * ```
 * @throws WeightsError; TypeError and RangeError for arguments
 */
export async function fetchSafetensors(url: string | URL, options: FetchSafetensorsOptions = {}): Promise<Weights> {
  const load = checkLoad(url, options);
  try {
    return await run(load, await openCache(options.cache));
  } catch (error) {
    throw error instanceof Failure ? error.error : error;
  }
}

async function run(load: Load, cache: WeightsCache | undefined): Promise<Weights> {
  const { address, signal } = load;
  signal?.throwIfAborted();
  if (cache) {
    const cached = await abortable(
      ignoreFailure(() => cache.match(address)),
      signal,
    );
    if (cached?.ok) {
      try {
        const arrival = new Arrival(place(address), announcedBytes(cached), load.onTensor);
        return (await receive(load, arrival, cached)).weights;
      } catch (error) {
        // Only a damaged entry is worth a download: an abort is not, nor what the caller's own functions throw.
        const isDamage = error instanceof WeightsError || (error instanceof Failure && error.kind === "may pass");
        if (!isDamage) throw error;
      }
    }
  }
  const { weights, file } = await download(load);
  if (cache) {
    const headers = { "content-type": "application/octet-stream", "content-length": String(file.byteLength) };
    await ignoreFailure(() => cache.put(address, new Response(file, { headers })));
  }
  return weights;
}

/** A download that broke off, and the version of the file it was of; undefined where it has to begin anew. */
interface Begun {
  readonly arrival: Arrival;
  readonly version: string | undefined;
}

async function download(load: Load): Promise<Received> {
  let begun: Begun | undefined;
  for (let attempt = 0; ; attempt++) {
    try {
      const response = await request(load, begun);
      if (response.status !== 206) begun = undefined;
      if (begun && !continues(load, begun, response)) {
        begun = undefined;
        drop(response);
        const hint = "it changed during the download; try again";
        throw new Failure(weightsError(place(load.address), "the file", "stay as it is", "another version", hint), "may pass");
      }
      begun ??= { arrival: new Arrival(place(load.address), announcedBytes(response), load.onTensor), version: versionOf(load, response) };
      return await receive(load, begun.arrival, response);
    } catch (error) {
      if (!(error instanceof Failure) || error.kind === "caller's" || attempt >= load.retries) throw error;
      if (begun?.version === undefined) begun = undefined;
      await abortable(new Promise((resolve) => setTimeout(resolve, 250 * 2 ** attempt)), load.signal);
    }
  }
}

/** What tells one version of a file from the next. Part of an encoded body cannot be asked for by its decoded length. */
function versionOf({ digest }: Load, response: Response): string | undefined {
  if (isEncoded(response)) return undefined;
  const etag = response.headers.get("etag");
  const strong = etag?.startsWith("W/") ? null : etag;
  return strong ?? response.headers.get("last-modified") ?? (digest && "any, its digest will tell");
}

function continues(load: Load, { arrival, version }: Begun, response: Response): boolean {
  const start = /^bytes (\d+)-/.exec(response.headers.get("content-range") ?? "")?.[1];
  if (start !== undefined && Number(start) !== arrival.loaded) return false;
  return load.digest !== undefined || versionOf(load, response) === version;
}

/** Function and address, the head of every message; a data: address can be megabytes long. */
function place(address: string): string {
  return `${WHERE}: ${address.length > 200 ? `${address.slice(0, 197)}...` : address}`;
}

function checkLoad(url: unknown, options: FetchSafetensorsOptions): Load {
  const address = checkUrl(url);
  checkObject(WHERE, "options", options, OPTION_KEYS);
  const { onProgress, onTensor, signal, fetch, cache, integrity, retries = 0 } = options;
  for (const [name, value] of Object.entries({ onProgress, onTensor, fetch })) {
    if (value !== undefined && typeof value !== "function") throw typeError(WHERE, name, "be a function", value);
  }
  if (signal !== undefined && (typeof signal?.throwIfAborted !== "function" || typeof signal.addEventListener !== "function")) {
    throw typeError(WHERE, "signal", "be an AbortSignal", signal, "pass `controller.signal`");
  }
  if (cache !== undefined && typeof cache !== "string" && (typeof cache?.match !== "function" || typeof cache.put !== "function")) {
    throw typeError(WHERE, "cache", "be a cache name or an object with match and put", cache);
  }
  checkInteger(WHERE, "retries", retries, 0, 10);
  const digest = integrity === undefined ? undefined : parseIntegrity(WHERE, integrity);
  let reached = 0;
  return {
    address,
    signal,
    fetch,
    retries,
    digest,
    onTensor: onTensor && ((tensor) => asCallers(() => onTensor(tensor))),
    // A damaged cache entry makes the bytes start again; what the caller sees does not.
    report: ({ loaded, total }) => {
      if (loaded <= reached) return;
      reached = loaded;
      asCallers(() => onProgress?.({ loaded, total }));
    },
  };
}

function asCallers(call: () => void): void {
  try {
    call();
  } catch (error) {
    throw new Failure(error, "caller's");
  }
}

function checkUrl(url: unknown): string {
  if (typeof url === "string") return url;
  const href = (url as { href?: unknown } | null | undefined)?.href;
  if (typeof href !== "string") throw typeError(WHERE, "url", "be a string or a URL", url);
  return href;
}

async function openCache(cache: WeightsCache | string | undefined): Promise<WeightsCache | undefined> {
  if (typeof cache !== "string") return cache;
  return ignoreFailure(() => globalThis.caches?.open(cache));
}

/** Asks for the file, or for what is left of a download that broke off. */
async function request(load: Load, begun: Begun | undefined): Promise<Response> {
  const { address, fetch, signal } = load;
  if (!fetch && typeof globalThis.fetch !== "function") {
    throw typeError(
      WHERE,
      "fetch",
      "be given where there is no global fetch",
      undefined,
      "pass { fetch }, or read the file and call parseSafetensors",
    );
  }
  const init: RequestInit = { ...(signal && { signal }), ...(begun && { headers: { Range: `bytes=${begun.arrival.loaded}-` } }) };
  let response: Response;
  try {
    response = await abortable(fetch ? fetch(address, init) : globalThis.fetch(address, init), signal);
  } catch (error) {
    throw asTransferError(load, "the request", "be answered", error);
  }
  if (response.ok) return response;
  drop(response);
  const { status, statusText } = response;
  const got = `${status}${statusText && ` ${statusText}`}`;
  const error = weightsError(place(address), "the answer", "have a status from 200 to 299", got, "check the address and the access rights");
  const mayPass = [408, 416, 429].includes(status) || status >= 500;
  throw mayPass ? new Failure(error, "may pass") : error;
}

/** What a failing request or body means: an abort stays what it is, anything else is a `WeightsError` with the failure as its cause. */
function asTransferError({ address, signal }: Load, subject: string, rule: string, error: unknown): unknown {
  if (signal?.aborted || (error as { name?: unknown } | null | undefined)?.name === "AbortError") return error;
  const hint = "check the address and the network (and CORS, across origins), and try again";
  return new Failure(weightsError(place(address), subject, rule, String(error), hint, { cause: error }), "may pass");
}

/** Bytes of the body if the server says so. With a Content-Encoding the number counts the compressed bytes, which are not what arrives here. */
function announcedBytes(response: Response): number | undefined {
  const length = response.headers.get("content-length");
  return length !== null && /^\d+$/.test(length) && !isEncoded(response) ? Number(length) : undefined;
}

function isEncoded(response: Response): boolean {
  return !["identity", null].includes(response.headers.get("content-encoding"));
}

/** Takes in a body, to the end of the file. */
async function receive(load: Load, arrival: Arrival, response: Response): Promise<Received> {
  const { address, digest, report, signal } = load;
  const broken = (error: unknown): never => {
    throw asTransferError(load, "the body", "arrive whole", error);
  };
  if (response.body) await readBody(response.body, signal, broken, take);
  // A fetch without streams, as in React Native.
  else take(new Uint8Array(await abortable(response.arrayBuffer(), signal).catch(broken)));

  function take(piece: Uint8Array): void {
    arrival.push(piece);
    report(arrival);
  }

  const { missing } = arrival;
  if (missing) {
    const hint = "the connection broke or the file is truncated; try again";
    throw new Failure(weightsError(place(address), "the body", missing.rule, `${arrival.loaded} bytes`, hint), "may pass");
  }
  const received = arrival.finish();
  const other = digest && (await abortable(otherDigest(received.file, digest), signal));
  if (digest && other !== undefined) {
    const wanted = `have the digest ${writeDigest(digest.algorithm, digest.bytes)}`;
    throw weightsError(place(address), "the file", wanted, other, "it was changed or damaged, or the digest is that of another version");
  }
  return received;
}

async function readBody(
  body: ReadableStream<Uint8Array>,
  signal: AbortSignal | undefined,
  broken: (error: unknown) => never,
  take: (piece: Uint8Array) => void,
): Promise<void> {
  const reader = body.getReader();
  const cancel = (): void => void ignoreFailure(() => reader.cancel(signal?.reason));
  // Ends a pending read even where the body knows nothing of the signal, as that of a cached answer.
  signal?.addEventListener("abort", cancel, { once: true });
  try {
    for (;;) {
      signal?.throwIfAborted();
      const { done, value } = await reader.read().catch(broken);
      signal?.throwIfAborted();
      if (done) return;
      take(value);
    }
  } catch (error) {
    cancel();
    throw error;
  } finally {
    signal?.removeEventListener("abort", cancel);
  }
}

/** Ends an answer that is not wanted. */
function drop(response: Response): void {
  void ignoreFailure(() => response.body?.cancel());
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
