/** The worker's side of a page: opens the GPU and answers the page's calls. */
import { type Gpu, requestGpu } from "homm-webgpu";
import { type AdapterReport, type CallMessage, type Calls, LOSE, OPEN, type WorkerMessage } from "./messages.ts";

/** Sends an event to the page; buffers in `transfer` move there. */
export type Send<Events> = <K extends keyof Events & string>(name: K, data: Events[K], transfer?: Transferable[]) => void;

/** Answers the page with the calls that `work` makes once there is a GPU. */
export function serve<Events>(work: (gpu: Gpu, send: Send<Events>) => Calls): void {
  let gpu: Gpu | undefined;
  let calls: Calls = {};

  const builtIn: Calls = {
    async [OPEN](): Promise<AdapterReport> {
      gpu = await requestGpu();
      gpu.device.addEventListener("uncapturederror", (event) => {
        event.preventDefault();
        post({ kind: "fault", message: event.error.message });
      });
      void gpu.lost.then(({ reason, message }) => post({ kind: "lost", message: message || reason }));
      calls = work(gpu, (name, data, transfer) => post({ kind: "event", name, data }, transfer));
      const { info, features } = gpu;
      const name = info.description || [info.vendor, info.architecture].filter(Boolean).join(" ") || "unnamed GPU";
      return { name, software: info.software, timestamps: features.has("timestamp-query") };
    },
    [LOSE]() {
      gpu?.device.destroy();
    },
  };

  addEventListener("message", async ({ data }: MessageEvent<CallMessage>) => {
    const { id, name, args } = data;
    try {
      const call = builtIn[name] ?? calls[name];
      if (!call) throw new Error(`the worker offers no ${name}`);
      post({ kind: "result", id, value: await call(...args) });
    } catch (error) {
      const { name: kind, message } = error as Error;
      post({ kind: "error", id, name: kind, message });
    }
  });
}

function post(message: WorkerMessage, transfer: Transferable[] = []): void {
  postMessage(message, { transfer });
}

/** Lets the worker hear its page: a turn of the event loop. Timers would be slowed down in a background tab, messages are not. */
export function turn(): Promise<void> {
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(undefined);
  });
}
