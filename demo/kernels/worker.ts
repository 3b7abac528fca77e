/** Runs a moment layer and softmax attention of the same width on the visitor's adapter, and times them. */
import { type Gpu, HomLayer, type PlannedDispatch, Tensor } from "homm-webgpu";
import { AttentionLayer } from "homm-webgpu/baselines";
import type { LayerShape } from "../shared/costs.ts";
import { layerParams, normals } from "../shared/random.ts";
import { type Send, serve, turn } from "../shared/serve.ts";
import { KernelTimer } from "./timer.ts";

export interface MeasureOptions extends LayerShape {
  readonly tokens: number;
  readonly causal: boolean;
}

export type LayerName = "moments" | "attention";

/** All dispatches of one kernel in a call. */
export interface KernelTime {
  readonly kernel: string;
  readonly dispatches: number;
  readonly ms: number;
  /** Multiplications and additions of its products; absent where there are none to speak of. */
  readonly flops?: number;
  /** Inputs and outputs, each counted once a dispatch. */
  readonly bytes: number;
}

export interface Point {
  readonly tokens: number;
  /** Milliseconds of a call; absent where it would have taken too long. */
  readonly moments?: number;
  readonly attention?: number;
  readonly momentsFlops: number;
  readonly attentionFlops: number;
}

export interface Events {
  readonly working: { readonly step: string; readonly fraction: number };
  readonly kernels: { readonly layer: LayerName; readonly tokens: number; readonly total: number; readonly kernels: readonly KernelTime[] };
  readonly point: Point;
}

export type KernelsCalls = ReturnType<typeof work>;

const SEED = 1;
const HEAD = 64;
/** Lengths of the sweep: each twice the one before, up to the visitor's. */
const SHORTEST = 128;
/** A call that would take longer than this is left out. */
const LONGEST_MS = 2000;
/** Rounds of the two layers in turn, until this much time has gone into them. */
const ROUNDS = { fewest: 3, most: 15, ms: 600 };
/** Calls in one go, so that even short ones are long beside a browser's rounding of times (0.1 ms). */
const STRETCH_MS = 10;
const MOST_REPEATS = 64;

interface Layer {
  readonly name: LayerName;
  call(x: Tensor, out: Tensor): void;
  plan(tokens: number): { readonly dispatches: readonly PlannedDispatch[]; readonly flops: number };
  /** Of the products of all its dispatches in a call. */
  kernelFlops(tokens: number, kernel: string): number | undefined;
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
    async measure(options: MeasureOptions): Promise<boolean> {
      stopped = false;
      const lengths = lengthsUpTo(options.tokens);
      const steps = lengths.length + 2;
      const working = (step: string, done: number) => send("working", { step, fraction: done / steps });
      working("Compiling the kernels …", 0);
      using hom = await HomLayer.create(
        gpu,
        { ...homShape(options), bias: false },
        layerParams(SEED, options.dim, options.order, options.orderExpand),
      );
      const heads = Math.max(1, Math.floor(options.dim / HEAD));
      using attention = await AttentionLayer.create(gpu, { dim: options.dim, heads, bias: false }, attentionParams(options.dim));
      const layers = layersOf(options, hom, attention);

      const skip = new Set<LayerName>();
      for (const [i, tokens] of lengths.entries()) {
        await turn();
        if (stopped) return false;
        working(`Timing ${tokens.toLocaleString("en-US")} tokens …`, 1 + i);
        using x = Tensor.from(gpu, normals(SEED + 9, tokens * options.dim), [1, tokens, options.dim]);
        using out = Tensor.from(gpu, new Float32Array(tokens * options.dim), [1, tokens, options.dim]);
        const times = await inTurns(
          layers.filter(({ name }) => !skip.has(name)),
          x,
          out,
        );
        for (const [name, ms] of times) {
          // Twice the tokens take attention up to four times as long.
          const growth = name === "attention" ? 4 : 2;
          if (ms * growth > LONGEST_MS) skip.add(name);
        }
        const flops = Object.fromEntries(layers.map(({ name, plan }) => [`${name}Flops`, plan(tokens).flops]));
        send("point", { tokens, ...Object.fromEntries(times), ...flops } as unknown as Point);
        if (tokens !== options.tokens || !timer) continue;
        working("Timing each kernel …", steps - 1);
        for (const layer of layers) {
          const total = times.get(layer.name);
          if (total !== undefined) send("kernels", { layer: layer.name, tokens, total, kernels: await kernelTimes(layer, x, out, total) });
        }
      }
      return true;
    },
  };

  /** The median time of a call of each layer. */
  async function inTurns(layers: readonly Layer[], x: Tensor, out: Tensor): Promise<Map<LayerName, number>> {
    const times = new Map(layers.map(({ name }) => [name, [] as number[]]));
    const repeats = new Map<LayerName, number>();
    for (const layer of layers) {
      // The first call of a length may compile.
      await timed(layer, x, out, 1);
      repeats.set(layer.name, Math.min(MOST_REPEATS, Math.max(1, Math.ceil(STRETCH_MS / (await timed(layer, x, out, 1))))));
    }
    const end = performance.now() + ROUNDS.ms;
    for (let round = 0; round < ROUNDS.most && (round < ROUNDS.fewest || performance.now() < end); round++) {
      for (const layer of layers) times.get(layer.name)?.push(await timed(layer, x, out, repeats.get(layer.name) ?? 1));
    }
    return new Map([...times].map(([name, values]) => [name, median(values)]));
  }

  /** Milliseconds of a call: on the GPU's own clock where the adapter lends it, else from submission to completion. */
  async function timed(layer: Layer, x: Tensor, out: Tensor, repeats: number): Promise<number> {
    const run = () => {
      for (let i = 0; i < repeats; i++) layer.call(x, out);
    };
    if (timer) return sum(await timer.passes(run)) / repeats;
    await device.queue.onSubmittedWorkDone();
    const start = performance.now();
    run();
    await device.queue.onSubmittedWorkDone();
    return (performance.now() - start) / repeats;
  }

  async function kernelTimes(layer: Layer, x: Tensor, out: Tensor, total: number): Promise<KernelTime[]> {
    const { dispatches } = layer.plan(x.shape[1] ?? 0);
    const repeats = Math.max(1, Math.min(MOST_REPEATS, Math.floor(2048 / dispatches.length), Math.ceil((5 * STRETCH_MS) / total)));
    const found =
      (await timer?.dispatches(() => {
        for (let i = 0; i < repeats; i++) layer.call(x, out);
      })) ?? [];
    if (found.length !== repeats * dispatches.length)
      throw new Error(`${found.length} dispatches were measured, where the plan has ${dispatches.length} a call`);
    const byKernel = new Map<string, { dispatches: number; ms: number; bytes: number }>();
    dispatches.forEach(({ kernel, bytesRead, bytesWritten }, i) => {
      const entry = byKernel.get(kernel) ?? { dispatches: 0, ms: 0, bytes: 0 };
      entry.dispatches++;
      entry.bytes += bytesRead + bytesWritten;
      for (let at = i; at < found.length; at += dispatches.length) entry.ms += (found[at] ?? 0) / repeats;
      byKernel.set(kernel, entry);
    });
    return [...byKernel].map(([kernel, entry]) => {
      const flops = layer.kernelFlops(x.shape[1] ?? 0, kernel);
      return { kernel, ...entry, ...(flops !== undefined && { flops }) };
    });
  }
}

function layersOf(options: MeasureOptions, hom: HomLayer, attention: AttentionLayer): Layer[] {
  const { dim, order, causal } = options;
  const mask = causal ? ("causal" as const) : undefined;
  const moments = hom.momentDim;
  return [
    {
      name: "moments",
      call: (x, out) => void hom.forward(x, { mask, out }),
      plan: (tokens) => hom.plan({ batch: 1, queryLength: tokens, mask }),
      kernelFlops(tokens, kernel) {
        const context = 2 * dim * moments + (moments * (order - 1)) / order + moments;
        const each: Readonly<Record<string, number>> = {
          moments: context,
          prefix_moments: context,
          gate: 2 * dim * moments,
          linear: 2 * dim * moments,
          select: 4 * dim * moments,
        };
        const flops = each[kernel];
        return flops && flops * tokens;
      },
    },
    {
      name: "attention",
      call: (x, out) => void attention.forward(x, { causal, out }),
      plan: (tokens) => attention.plan({ batch: 1, length: tokens, causal }),
      kernelFlops(tokens, kernel) {
        if (kernel === "linear") return 8 * tokens * dim ** 2;
        if (kernel.startsWith("attention")) return causal ? 2 * tokens * (tokens + 1) * dim : 4 * tokens ** 2 * dim;
        return undefined;
      },
    },
  ];
}

function homShape({ dim, order, orderExpand }: LayerShape): LayerShape {
  return { dim, order, orderExpand };
}

function attentionParams(dim: number): Record<string, Float32Array> {
  const names = ["q_proj", "k_proj", "v_proj", "out_proj"];
  return Object.fromEntries(names.map((name, i) => [`${name}.weight`, normals(SEED + 20 + i, dim * dim, 1 / Math.sqrt(dim))]));
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

function sum(values: readonly number[]): number {
  return values.reduce((a, b) => a + b, 0);
}
