/** Runs a moment layer and its rivals on the visitor's adapter, and times them. */
import { type Gpu, HomLayer, Tensor } from "homm-webgpu";
import {
  type AttentionCost,
  AttentionLayer,
  drawFeatures,
  flops,
  type HomCost,
  type LayerCost,
  type LinearAttentionCost,
  LinearAttentionLayer,
  type PomCost,
} from "homm-webgpu/baselines";
import { PomLayer } from "homm-webgpu/pom";
import { KernelTimer } from "../kernels/timer.ts";
import { layerParams, normals, pomParams } from "../shared/random.ts";
import { type Send, serve, turn } from "../shared/serve.ts";
import { type Comparison, layerFor, type MethodName, methods } from "./methods.ts";

export interface CompareOptions extends Comparison {
  readonly tokens: number;
}

export interface Measured {
  readonly method: MethodName;
  /** Milliseconds of a call; absent where it would have taken too long. */
  readonly ms?: number;
  readonly bytes: number;
  readonly flops: number;
  readonly layer: LayerCost;
}

export interface Point {
  readonly tokens: number;
  readonly measured: readonly Measured[];
}

export interface Events {
  readonly working: { readonly step: string; readonly fraction: number };
  readonly point: Point;
}

export type CompareCalls = ReturnType<typeof work>;

const SEED = 1;
/** Lengths of the sweep: each twice the one before, up to the visitor's. */
const SHORTEST = 128;
/** A call that would take longer than this is left out. */
const LONGEST_MS = 2000;
/** Rounds of all layers in turn, until this much time has gone into them. */
const ROUNDS = { fewest: 3, most: 15, ms: 1000 };
/** Calls in one go, so that even short ones are long beside a browser's rounding of times (0.1 ms). */
const STRETCH_MS = 10;
const MOST_REPEATS = 64;

interface Layer {
  readonly method: MethodName;
  readonly cost: LayerCost;
  readonly bytes: number;
  call(x: Tensor, out: Tensor): void;
  destroy(): void;
}

serve<Events>(work);

function work(gpu: Gpu, send: Send<Events>) {
  let stopped = false;
  const { device } = gpu;
  const timer = gpu.features.has("timestamp-query") ? new KernelTimer(device) : undefined;

  return {
    stop(): void {
      stopped = true;
    },

    /** Sends what it measures, and @returns whether it came to its end. */
    async compare(options: CompareOptions): Promise<boolean> {
      stopped = false;
      const lengths = lengthsUpTo(options.tokens);
      const last = new Map<MethodName, { ms: number; flops: number }>();
      for (const [i, tokens] of lengths.entries()) {
        const shape = { length: tokens, causal: options.causal };
        const costs = methods.map(({ name }) => ({ name, cost: layerFor(name, options, tokens) }));
        const layers: Layer[] = [];
        try {
          for (const { name, cost } of costs) {
            await turn();
            if (stopped) return false;
            const before = last.get(name);
            if (before && (before.ms * flops(cost, shape)) / before.flops > LONGEST_MS) continue;
            send("working", { step: `Preparing ${tokens.toLocaleString("en-US")} tokens …`, fraction: i / lengths.length });
            layers.push(await make(name, cost, tokens, options.causal));
          }
          send("working", { step: `Timing ${tokens.toLocaleString("en-US")} tokens …`, fraction: (i + 0.5) / lengths.length });
          using x = Tensor.from(gpu, normals(SEED + 9, tokens * options.dim), [1, tokens, options.dim]);
          using out = Tensor.from(gpu, new Float32Array(tokens * options.dim), [1, tokens, options.dim]);
          const times = await inTurns(layers, x, out);
          if (!times) return false;
          const measured = costs.flatMap(({ name, cost }): Measured[] => {
            const layer = layers.find(({ method }) => method === name);
            const ms = times.get(name);
            if (!layer || ms === undefined) return [];
            last.set(name, { ms, flops: flops(cost, shape) });
            return [{ method: name, ms, bytes: layer.bytes + 8 * tokens * options.dim, flops: flops(cost, shape), layer: cost }];
          });
          send("point", { tokens, measured });
        } finally {
          for (const layer of layers) layer.destroy();
        }
      }
      return true;
    },
  };

  async function make(method: MethodName, cost: LayerCost, tokens: number, causal: boolean): Promise<Layer> {
    if (cost.layer === "hom" || cost.layer === "pom") {
      const layer = cost.layer === "hom" ? await moments(cost) : await mixer(cost);
      const mask = causal ? ("causal" as const) : undefined;
      const { scratchBytes } = layer.plan({ batch: 1, queryLength: tokens, mask });
      return {
        method,
        cost,
        bytes: layer.weightBytes + scratchBytes,
        call: (x, out) => void layer.forward(x, { mask, out }),
        destroy: () => layer.destroy(),
      };
    }
    const layer = cost.layer === "linear_attention" ? await linear(cost) : await softmax(cost);
    const { scratchBytes } = layer.plan({ batch: 1, length: tokens, causal });
    return {
      method,
      cost,
      bytes: layer.weightBytes + scratchBytes,
      call: (x, out) => void layer.forward(x, { causal, out }),
      destroy: () => layer.destroy(),
    };
  }

  function moments({ dim, order, orderExpand }: HomCost): Promise<HomLayer> {
    return HomLayer.create(gpu, { dim, order, orderExpand, bias: false }, layerParams(SEED, dim, order, orderExpand));
  }

  function mixer({ dim, degree, expand }: PomCost): Promise<PomLayer> {
    return PomLayer.create(gpu, { dim, degree, expand }, pomParams(SEED, dim, degree, expand));
  }

  function softmax({ dim, heads }: AttentionCost): Promise<AttentionLayer> {
    return AttentionLayer.create(gpu, { dim, heads, bias: false }, projections(dim));
  }

  function linear({ dim, heads, featureMap, features }: LinearAttentionCost): Promise<LinearAttentionLayer> {
    const config = { dim, heads, featureMap, features, bias: false };
    return LinearAttentionLayer.create(gpu, config, { ...projections(dim), ...drawFeatures(config, SEED) });
  }

  /** The median time of a call of each layer; undefined when it was stopped. */
  async function inTurns(layers: readonly Layer[], x: Tensor, out: Tensor): Promise<Map<MethodName, number> | undefined> {
    const times = new Map(layers.map(({ method }) => [method, [] as number[]]));
    const repeats = new Map<MethodName, number>();
    for (const layer of layers) {
      await turn();
      if (stopped) return undefined;
      // The first call of a length may compile.
      await timed(layer, x, out, 1);
      repeats.set(layer.method, Math.min(MOST_REPEATS, Math.max(1, Math.ceil(STRETCH_MS / (await timed(layer, x, out, 1))))));
    }
    const end = performance.now() + ROUNDS.ms;
    for (let round = 0; round < ROUNDS.most && (round < ROUNDS.fewest || performance.now() < end); round++) {
      for (const layer of layers) {
        await turn();
        if (stopped) return undefined;
        times.get(layer.method)?.push(await timed(layer, x, out, repeats.get(layer.method) ?? 1));
      }
    }
    return new Map([...times].map(([name, values]) => [name, median(values)]));
  }

  /** Milliseconds of a call: on the GPU's own clock where the adapter lends it, else from submission to completion. */
  async function timed(layer: Layer, x: Tensor, out: Tensor, repeats: number): Promise<number> {
    const run = () => {
      for (let i = 0; i < repeats; i++) layer.call(x, out);
    };
    if (timer) return (await timer.passes(run)).reduce((a, b) => a + b, 0) / repeats;
    await device.queue.onSubmittedWorkDone();
    const start = performance.now();
    run();
    await device.queue.onSubmittedWorkDone();
    return (performance.now() - start) / repeats;
  }
}

/** Queries and keys are short: random Maclaurin features add up to something well away from 0 then. */
function projections(dim: number): Record<string, Float32Array> {
  const deviations = { q_proj: 0.25, k_proj: 0.25, v_proj: 1, out_proj: 1 };
  return Object.fromEntries(
    Object.entries(deviations).map(([name, size], i) => [`${name}.weight`, normals(SEED + 20 + i, dim * dim, size / Math.sqrt(dim))]),
  );
}

function lengthsUpTo(tokens: number): number[] {
  const lengths: number[] = [];
  for (let length = SHORTEST; length < tokens; length *= 2) lengths.push(length);
  return [...lengths, tokens];
}

function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[sorted.length >> 1] ?? Number.NaN;
}
