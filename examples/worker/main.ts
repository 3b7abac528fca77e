import { type Answer, dim, type Request } from "./messages.ts";

const status = document.querySelector("#status") as HTMLElement;
const worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module" });

function send(kind: Request["kind"], count: number): void {
  const tokens = Float32Array.from({ length: count * dim }, Math.random);
  worker.postMessage({ kind, tokens } satisfies Request, [tokens.buffer]);
}

worker.onmessage = ({ data }: MessageEvent<Answer>) => {
  if (data.kind === "ready") send("append", 1000);
  if (data.kind === "seen") {
    status.textContent = `${data.count} tokens seen`;
    send(data.count < 10_000 ? "append" : "query", data.count < 10_000 ? 1000 : 1);
  }
  if (data.kind === "read") status.textContent += `; the query reads ${[...data.values.slice(0, 4)].map((v) => v.toFixed(3)).join(" ")}`;
  if (data.kind === "failed") status.textContent = data.message;
};
worker.onerror = ({ message }) => {
  status.textContent = message;
};
