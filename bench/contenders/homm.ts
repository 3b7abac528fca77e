import { HomLayer, requestGpu, Tensor } from "homm-webgpu";
import { layerParams, normals, paddingMask, SEEDS } from "../data.mjs";
import { type DecodeTask, type LayerTask, type Prepared, type Task, Unsupported } from "../types.ts";
import { drive } from "./harness.ts";

/** Tokens of a stream repeat after this many. */
const DISTINCT = 8;

drive(async () => {
  let gpu: Awaited<ReturnType<typeof requestGpu>>;
  return {
    version: "this repository",
    async start() {
      gpu = await requestGpu();
    },
    async prepare(task: Task): Promise<Prepared> {
      if (task.kind === "layer") return layer(task);
      if (task.kind === "decode") return decode(task);
      throw new Unsupported(`the package has no ${task.kind}`);
    },
  };

  async function layer({ batch, tokens, dim, order, orderExpand, mask }: LayerTask): Promise<Prepared> {
    const config = { dim, order, orderExpand };
    const hom = await HomLayer.create(gpu, config, layerParams(SEEDS.params, config));
    const shape = [batch, tokens, dim];
    const x = Tensor.from(gpu, normals(SEEDS.tokens, batch * tokens * dim), shape);
    const out = Tensor.from(gpu, new Float32Array(batch * tokens * dim).fill(Number.NaN), shape);
    const spec = {
      none: undefined,
      causal: "causal" as const,
      padding: { padding: paddingMask(SEEDS.mask, batch * tokens) },
      lengths: { lengths: new Uint32Array(batch).fill(tokens - 3) },
    }[mask];
    const uploaded = typeof spec === "object" ? hom.createMask(spec, { batch, queryLength: tokens }) : spec;
    return {
      call: () => void hom.forward(x, { mask: uploaded, out }),
      read: () => out.read(),
      details: { plan: hom.plan({ batch, queryLength: tokens, mask: spec }), weightBytes: hom.weightBytes },
    };
  }

  async function decode({ dim, order, orderExpand }: DecodeTask): Promise<Prepared> {
    const config = { dim, order, orderExpand };
    const hom = await HomLayer.create(gpu, config, layerParams(SEEDS.params, config));
    const data = normals(SEEDS.tokens, DISTINCT * dim);
    const tokens = Array.from({ length: DISTINCT }, (_, i) => Tensor.from(gpu, data.slice(i * dim, (i + 1) * dim), [1, 1, dim]));
    const out = Tensor.from(gpu, new Float32Array(dim).fill(Number.NaN), [1, 1, dim]);
    const state = hom.createState();
    let seen = 0;
    return {
      call() {
        const token = tokens[seen++ % DISTINCT];
        if (token) hom.step(state, token, { out });
      },
      read: () => out.read(),
      restart() {
        state.reset();
        seen = 0;
      },
      details: { weightBytes: hom.weightBytes },
    };
  }
});
