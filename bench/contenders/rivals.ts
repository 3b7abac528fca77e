import { requestGpu, Tensor } from "homm-webgpu";
import { AttentionLayer, drawFeatures, LinearAttentionLayer } from "homm-webgpu/baselines";
import { PomLayer } from "homm-webgpu/pom";
import { attentionParams, normals, pomParams, rivalParams, SEEDS } from "../data.mjs";
import { type AttentionTask, type Details, type Prepared, type RivalTask, type Task, Unsupported } from "../types.ts";
import { drive } from "./harness.ts";

/** A layer and how it is called. */
interface Rival {
  forward(x: Tensor, out: Tensor): void;
  readonly plan: NonNullable<Details["plan"]>;
  readonly weightBytes: number;
}

drive(async () => {
  let gpu: Awaited<ReturnType<typeof requestGpu>>;
  return {
    version: "this repository",
    async start() {
      gpu = await requestGpu();
    },
    async prepare(task: Task): Promise<Prepared> {
      if (task.kind !== "rival" && task.kind !== "attention") throw new Unsupported(`the rivals have no ${task.kind}`);
      const { tokens } = task;
      const { dim } = task.kind === "rival" ? task.layer : task;
      const { forward, plan, weightBytes } = await (task.kind === "rival" ? rival(task) : attention(task));
      const shape = [1, tokens, dim];
      const x = Tensor.from(gpu, normals(SEEDS.tokens, tokens * dim), shape);
      const out = Tensor.from(gpu, new Float32Array(tokens * dim).fill(Number.NaN), shape);
      return { call: () => forward(x, out), read: () => out.read(), details: { plan, weightBytes } };
    },
  };

  async function rival({ tokens, causal, layer: cost }: RivalTask): Promise<Rival> {
    if (cost.layer === "pom") {
      const { dim, degree, expand } = cost;
      const layer = await PomLayer.create(gpu, { dim, degree, expand }, pomParams(SEEDS.params, cost));
      const mask = causal ? ("causal" as const) : undefined;
      const plan = layer.plan({ batch: 1, queryLength: tokens, mask });
      return { forward: (x, out) => void layer.forward(x, { mask, out }), plan, weightBytes: layer.weightBytes };
    }
    const { dim, heads } = cost;
    const common = { dim, heads, bias: false };
    const params = rivalParams(SEEDS.params, dim);
    return called(cost.layer === "attention" ? await AttentionLayer.create(gpu, common, params) : await linear(), tokens, causal);

    function linear(): Promise<LinearAttentionLayer> {
      if (cost.layer !== "linear_attention") throw new Unsupported(cost.layer);
      const config = { ...common, featureMap: cost.featureMap, features: cost.features };
      return LinearAttentionLayer.create(gpu, config, { ...params, ...drawFeatures(config, SEEDS.features) });
    }
  }

  async function attention({ tokens, dim, heads, causal }: AttentionTask): Promise<Rival> {
    const { q, k, v, o } = attentionParams(SEEDS.params, dim);
    const params = { "q_proj.weight": q, "k_proj.weight": k, "v_proj.weight": v, "out_proj.weight": o };
    return called(await AttentionLayer.create(gpu, { dim, heads, bias: false }, params), tokens, causal);
  }

  function called(layer: AttentionLayer | LinearAttentionLayer, tokens: number, causal: boolean): Rival {
    const plan = layer.plan({ batch: 1, length: tokens, causal });
    return { forward: (x, out) => void layer.forward(x, { causal, out }), plan, weightBytes: layer.weightBytes };
  }
});
