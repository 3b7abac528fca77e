import { HomLayer, requestGpu, Tensor } from "homm-webgpu";
import { type Answer, dim, type Request } from "./messages.ts";

const send = (answer: Answer) => self.postMessage(answer);

async function start(): Promise<(request: Request) => Promise<void>> {
  const [order, orderExpand] = [2, 2];
  const M = order * orderExpand * dim;
  const random = (n: number) => Float32Array.from({ length: n }, () => Math.random() - 0.5);
  const params = { "ho_proj.weight": random(M * dim), "se_proj.weight": random(M * dim), "ag_proj.weight": random(dim * M) };
  const gpu = await requestGpu();
  const hom = await HomLayer.create(gpu, { dim, order, orderExpand, bias: false }, params);
  const state = hom.createState();
  send({ kind: "ready", adapter: gpu.info.description });

  return async ({ kind, tokens }) => {
    const input = Tensor.from(gpu, tokens, [1, tokens.length / dim, dim]);
    if (kind === "append") {
      hom.append(state, input);
      send({ kind: "seen", count: state.count[0] ?? 0 });
    } else {
      const output = hom.query(state, input);
      send({ kind: "read", values: await output.read() });
      output.destroy();
    }
    input.destroy();
  };
}

const failed = (error: Error) => send({ kind: "failed", message: error.message });
const ready = start();
ready.catch(failed);
self.onmessage = ({ data }: MessageEvent<Request>) => ready.then((handle) => handle(data)).catch(failed);
