/** The page's side of its worker: calls, events, and what to do when the GPU is missing or lost. */
import { make } from "./dom.ts";
import { type AdapterReport, type CallMessage, type Calls, LOSE, OPEN, type WorkerMessage } from "./messages.ts";
import { hideBanner, showBanner, showNoWebGpu } from "./notices.ts";

/** Rejects calls whose worker has lost its GPU; `prepare` has been called again, or will be. */
export class EngineLost extends Error {
  override readonly name = "EngineLost";
}

export interface EngineOptions<Events> {
  /** `() => new Worker(new URL("./worker.ts", import.meta.url), { type: "module" })`, written out so that the bundler finds the worker. */
  readonly spawn: () => Worker;
  /** Loads what the page needs into a new worker. `again` after a loss: bring back what was there, and say in words what came back. */
  // biome-ignore lint/suspicious/noConfusingVoidType: a page may have nothing to say
  readonly prepare: (adapter: AdapterReport, again: boolean) => Promise<string | void>;
  /** The GPU is gone, or was never there: nothing can be computed until `prepare` is called. */
  readonly stopped: (because: "lost" | "unavailable" | "failed") => void;
  readonly on: { readonly [K in keyof Events]: (data: Events[K]) => void };
}

/** A second loss within this time is not repaired by itself: a GPU that cannot bear the work would be lost for ever. */
const PATIENCE_MS = 30_000;

interface Waiting {
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: Error) => void;
}

export class Engine<C extends Calls, Events> {
  readonly #options: EngineOptions<Events>;
  readonly #waiting = new Map<number, Waiting>();
  #worker: Worker | undefined;
  #calls = 0;
  #lostAt = Number.NEGATIVE_INFINITY;

  constructor(options: EngineOptions<Events>) {
    this.#options = options;
    // For trying out what happens then: ?debug has a button that takes the GPU away.
    if (new URLSearchParams(location.search).has("debug")) {
      const button = make("button", { type: "button", textContent: "Lose the GPU", onclick: () => this.#post(LOSE, []) });
      document.querySelector("footer")?.append(make("p", {}, button));
    }
  }

  /** Starts a worker with a GPU and prepares the page's work in it. */
  async start(): Promise<void> {
    await this.#launch(false);
  }

  /** Calls a function of the worker. @throws EngineLost, or the worker's error */
  call<K extends keyof C & string>(name: K, ...args: Parameters<C[K]>): Promise<Awaited<ReturnType<C[K]>>> {
    return this.#post(name, args) as Promise<Awaited<ReturnType<C[K]>>>;
  }

  /** The same, with objects that move to the worker. */
  callWith<K extends keyof C & string>(transfer: Transferable[], name: K, ...args: Parameters<C[K]>): Promise<Awaited<ReturnType<C[K]>>> {
    return this.#post(name, args, transfer) as Promise<Awaited<ReturnType<C[K]>>>;
  }

  #post(name: string, args: readonly unknown[], transfer: Transferable[] = []): Promise<unknown> {
    const worker = this.#worker;
    if (!worker) return Promise.reject(new EngineLost("there is no GPU at the moment"));
    const id = ++this.#calls;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      worker.postMessage({ id, name, args } satisfies CallMessage, transfer);
    });
  }

  async #launch(again: boolean, because = ""): Promise<void> {
    const worker = this.#options.spawn();
    this.#worker = worker;
    worker.addEventListener("message", ({ data }: MessageEvent<WorkerMessage>) => {
      if (worker === this.#worker) this.#hear(data);
    });
    worker.addEventListener("error", (event) => {
      if (worker === this.#worker) this.#fail(event.message || "The worker could not be loaded.", again);
    });
    try {
      const adapter = (await this.#post(OPEN, [])) as AdapterReport;
      const restored = await this.#options.prepare(adapter, again);
      if (worker !== this.#worker) return;
      if (again) {
        const message = ["The GPU is back", because && ` after a loss (${because})`, ". ", restored ?? ""].join("");
        showBanner("good", message.trim(), { label: "Close", press: () => {} });
      } else hideBanner();
    } catch (error) {
      if (worker !== this.#worker || error instanceof EngineLost) return;
      const { name, message } = error as Error;
      if (name === "GpuUnavailableError" && !again) {
        this.#end();
        this.#options.stopped("unavailable");
        hideBanner();
        showNoWebGpu(() => void this.#launch(false));
      } else this.#fail(message, again);
    }
  }

  #hear(message: WorkerMessage): void {
    if (message.kind === "event") {
      const handlers = this.#options.on as Readonly<Record<string, (data: unknown) => void>>;
      handlers[message.name]?.(message.data);
    } else if (message.kind === "lost") this.#lose(message.message);
    else if (message.kind === "fault") {
      console.error(message.message);
      showBanner("wrong", `The GPU refused some work: ${message.message}`, { label: "Close", press: () => {} });
    } else {
      const waiting = this.#waiting.get(message.id);
      this.#waiting.delete(message.id);
      if (message.kind === "result") waiting?.resolve(message.value);
      // The loss itself is on its way.
      else if (message.name === "GpuLostError") waiting?.reject(new EngineLost(message.message));
      else waiting?.reject(Object.assign(new Error(message.message), { name: message.name }));
    }
  }

  #lose(because: string): void {
    this.#end();
    this.#options.stopped("lost");
    const recently = performance.now() - this.#lostAt < PATIENCE_MS;
    this.#lostAt = performance.now();
    const again = () => {
      showBanner("busy", "The browser took the GPU away. Starting again …");
      void this.#launch(true, because);
    };
    if (recently) showBanner("wrong", `The browser took the GPU away again (${because}).`, { label: "Try again", press: again });
    else again();
  }

  #fail(message: string, again: boolean): void {
    this.#end();
    this.#options.stopped("failed");
    showBanner("wrong", `This did not work: ${message}`, { label: "Try again", press: () => void this.#launch(again) });
  }

  #end(): void {
    this.#worker?.terminate();
    this.#worker = undefined;
    for (const { reject } of this.#waiting.values()) reject(new EngineLost("the GPU was lost"));
    this.#waiting.clear();
  }
}

/** In words, for a meter. */
export function adapterName({ name, software }: AdapterReport): string {
  return software ? `${name} (software, computed on the CPU)` : name;
}
