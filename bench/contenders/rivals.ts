import { requestGpu, Tensor } from "homm-webgpu";
import { AttentionLayer, drawFeatures, LinearAttentionLayer } from "homm-webgpu/baselines";
import { normals, rivalParams, SEEDS } from "../data.mjs";
import { type Prepared, type RivalTask, type Task, Unsupported } from "../types.ts";
import { drive } from "./harness.ts";

drive(async () => {
  let gpu: Awaited<ReturnType<typeof requestGpu>>;
  return {
    version: "this repository",
    async start() {
      gpu = await requestGpu();
    },
    async prepare(task: Task): Promise<Prepared> {
      if (task.kind === "rival") return rival(task);
      throw new Unsupported(`the baselines have no ${task.kind}`);
    },
  };

  async function rival({ tokens, causal, layer: cost }: RivalTask): Promise<Prepared> {
    const { dim, heads } = cost;
    const common = { dim, heads, bias: false };
    const params = rivalParams(SEEDS.params, dim);
    const layer = cost.layer === "attention" ? await AttentionLayer.create(gpu, common, params) : await linear();
    const shape = [1, tokens, dim];
    const x = Tensor.from(gpu, normals(SEEDS.tokens, tokens * dim), shape);
    const out = Tensor.from(gpu, new Float32Array(tokens * dim).fill(Number.NaN), shape);
    return {
      call: () => void layer.forward(x, { causal, out }),
      read: () => out.read(),
      details: { plan: layer.plan({ batch: 1, length: tokens, causal }), weightBytes: layer.weightBytes },
    };

    function linear(): Promise<LinearAttentionLayer> {
      if (cost.layer !== "linear_attention") throw new Unsupported(cost.layer);
      const config = { ...common, featureMap: cost.featureMap, features: cost.features };
      return LinearAttentionLayer.create(gpu, config, { ...params, ...drawFeatures(config, SEEDS.features) });
    }
  }
});
