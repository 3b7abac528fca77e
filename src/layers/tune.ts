import { checkInteger, checkObject } from "../checks.ts";
import { SELECT_MAX_DIM } from "../ops/select.ts";
import { Gpu } from "../runtime/gpu.ts";
import { checkGpu, Tensor } from "../runtime/tensor.ts";
import type { Tuning } from "../runtime/tuning.ts";
import { HomLayer } from "./hom.ts";

/** Options of {@link tune}. */
export interface TuneOptions {
  /** The layer to tune for. Default: 128, order 2, expansion 2. */
  readonly dim?: number;
  readonly order?: number;
  readonly orderExpand?: number;
  /** Tokens of a call. Default 512. */
  readonly tokens?: number;
  /** Time to spend on measuring, in milliseconds; compiling comes on top. Default 300. */
  readonly milliseconds?: number;
}

/**
 * Measures which register tile, which form of the selection and how many lanes for decoding this adapter runs fastest, and returns the tuning: a
 * plain object, to keep (as JSON) and to pass to `requestGpu({ device, tuning })`. Every tuning gives right results; they differ in speed, and in rounding.
 *
 * @example
 * const tuning = await tune(gpu, { dim: 512 });
 * const tuned = await requestGpu({ device: gpu.device, tuning });
 */
export async function tune(gpu: Gpu, options: TuneOptions = {}): Promise<Tuning> {
  const where = "tune";
  checkGpu(where, gpu);
  checkObject(where, "options", options, ["dim", "order", "orderExpand", "tokens", "milliseconds"]);
  const { dim = 128, order = 2, orderExpand = 2, tokens = 512, milliseconds = 300 } = options;
  checkInteger(where, "tokens", tokens, 1, 1 << 20);
  checkInteger(where, "milliseconds", milliseconds, 1, 60_000);
  gpu.checkUsable(where);
  const forms = dim <= SELECT_MAX_DIM ? [0, SELECT_MAX_DIM] : [0];
  const tiles = ["8x4", "16x8", ...(gpu.features.has("subgroups") ? (["16x8_quads"] as const) : [])] as const;
  const candidates = tiles.flatMap((tile) => forms.map((fusedSelectMaxDim) => ({ ...gpu.tuning, tile, fusedSelectMaxDim })));
  const M = order * orderExpand * dim;
  const params = { "ho_proj.weight": ramp(M * dim), "se_proj.weight": ramp(M * dim), "ag_proj.weight": ramp(dim * M) };
  const start = (length: number, decode: boolean) => async (own: Gpu) => {
    const layer = await HomLayer.create(own, { dim, order, orderExpand, bias: false }, params);
    const x = Tensor.from(own, ramp(length * dim), [1, length, dim]);
    const out = Tensor.from(own, ramp(length * dim), [1, length, dim]);
    const state = decode ? layer.createState() : undefined;
    const run = () => {
      if (!state) layer.forward(x, { out });
      else for (let i = 0; i < STEPS; i++) layer.step(state, x, { out });
    };
    return { out, run, parts: [layer, x, out, ...(state ? [state] : [])] };
  };
  const best = await fastest(gpu, candidates, milliseconds / 2, start(tokens, false));
  const lanes = ([1, 4, 16, 64] as const).map((decodeLanes) => ({ ...best, decodeLanes }));
  const tuning = await fastest(gpu, lanes, milliseconds / 2, start(1, true));
  gpu.checkUsable(where);
  return tuning;
}

/** Steps of a trial: one alone would be lost in what a submit takes. */
const STEPS = 16;

const ramp = (length: number) => Float32Array.from({ length }, (_, i) => ((i * 37) % 101) / 101 - 0.5);

interface Trial {
  readonly out: Tensor;
  readonly run: () => void;
  readonly parts: readonly { destroy(): void }[];
}

/** The candidate whose trial takes the least time. Those whose output is not the first one's are left out. */
async function fastest(gpu: Gpu, candidates: readonly Tuning[], milliseconds: number, start: (own: Gpu) => Promise<Trial>): Promise<Tuning> {
  let expected: Float32Array | undefined;
  const runs: { tuning: Tuning; run: () => Promise<number>; times: number[]; free: () => void }[] = [];
  try {
    for (const tuning of candidates) {
      const own = new Gpu(gpu.device, false, gpu.info, tuning);
      const trial = await start(own);
      const run = async () => {
        const from = performance.now();
        trial.run();
        await own.device.queue.onSubmittedWorkDone();
        return performance.now() - from;
      };
      const free = () => {
        for (const part of [...trial.parts, own]) part.destroy();
      };
      runs.push({ tuning, run, times: [], free });
      await run();
      const y = await trial.out.read();
      expected ??= y;
      // Quads rely on an order of lanes that WGSL leaves open: an adapter with another order never gets them.
      if (!agrees(y, expected)) runs.pop()?.free();
    }
    // In turn, so that a slow moment of the machine meets all of them.
    const end = performance.now() + milliseconds;
    do {
      for (const { run, times } of runs) times.push(await run());
    } while (performance.now() < end);
    const median = (times: number[]) => times.sort((a, b) => a - b)[times.length >> 1] ?? Number.POSITIVE_INFINITY;
    const [best] = runs.map(({ tuning, times }) => ({ tuning, time: median(times) })).sort((a, b) => a.time - b.time);
    return best?.tuning ?? gpu.tuning;
  } finally {
    for (const { free } of runs) free();
  }
}

/** To what another order of additions can change; a wrong row or column is far off. */
function agrees(a: Float32Array, b: Float32Array): boolean {
  let difference = 0;
  let size = 0;
  for (let i = 0; i < a.length; i++) {
    difference += ((a[i] ?? 0) - (b[i] ?? 0)) ** 2;
    size += (b[i] ?? 0) ** 2;
  }
  return difference <= 1e-8 * size;
}
