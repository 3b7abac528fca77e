/** A stream of tokens through one moment layer. */
import { type Gpu, HomLayer, HomState, Tensor } from "homm-webgpu";
import type { LayerShape } from "../shared/costs.ts";
import { layerParams, normals } from "../shared/random.ts";
import { type Send, serve, turn } from "../shared/serve.ts";

export interface StreamOptions extends LayerShape {
  readonly tokens: number;
  /** A state that was saved, to go on from. */
  readonly from?: Uint8Array<ArrayBuffer>;
}

export interface Events {
  readonly working: { readonly step: string };
  readonly streamed: {
    readonly seen: number;
    /** Tokens and milliseconds since the last report. */
    readonly tokens: number;
    readonly ms: number;
    readonly bytes: number;
  };
  /** The state now and then, for the case that the GPU is lost. */
  readonly saved: Uint8Array<ArrayBuffer>;
}

export type LongCalls = ReturnType<typeof work>;

const SEED = 1;
const REPORT_MS = 120;
const SAVE_MS = 1500;
/** The GPU has that long with a piece of the stream, so that others can use it in between. */
const PIECE_MS = 25;
const PIECES = { smallest: 64, largest: 8192 };

serve<Events>(work);

function work(gpu: Gpu, send: Send<Events>) {
  let stopped = false;
  const { queue } = gpu.device;

  return {
    stop(): void {
      stopped = true;
    },

    /** Streams until `tokens` have been seen, or until `stop`. @returns tokens seen */
    async stream({ tokens, from, ...shape }: StreamOptions): Promise<number> {
      stopped = false;
      send("working", { step: "Compiling the kernels …" });
      const { dim, order, orderExpand } = shape;
      using layer = await HomLayer.create(gpu, { ...shape, bias: false }, layerParams(SEED, dim, order, orderExpand));
      using state = from ? HomState.load(gpu, from, { layer }) : layer.createState();
      send("working", { step: "Finding out how much the GPU takes at once …" });
      const most = Math.min(PIECES.largest, largestPiece(gpu, dim));
      const length = await fittingPiece(layer, most);
      const data = normals(SEED + 3, length * dim);
      using piece = Tensor.from(gpu, data, [1, length, dim]);
      using out = Tensor.from(gpu, new Float32Array(length * dim), [1, length, dim]);

      const seen = () => state.count[0] ?? 0;
      let inFlight = Promise.resolve();
      let reported = performance.now();
      let savedAt = reported;
      let counted = seen();
      const report = () => {
        const now = performance.now();
        send("streamed", { seen: seen(), tokens: seen() - counted, ms: now - reported, bytes: state.bytes });
        counted = seen();
        reported = now;
      };
      while (!stopped && seen() < tokens) {
        const rest = tokens - seen();
        if (rest >= length) layer.step(state, piece, { out });
        else {
          using last = Tensor.from(gpu, data.subarray(0, rest * dim), [1, rest, dim]);
          layer.step(state, last).destroy();
        }
        // One piece runs while the next is recorded.
        const done = queue.onSubmittedWorkDone();
        await inFlight;
        inFlight = done;
        if (performance.now() - reported > REPORT_MS) {
          report();
          await turn();
        }
        if (performance.now() - savedAt > SAVE_MS) {
          send("saved", await state.save());
          savedAt = performance.now();
        }
      }
      await inFlight;
      report();
      send("saved", await state.save());
      return seen();
    },
  };

  /** The largest piece, in powers of two, that the GPU is done with in PIECE_MS. */
  async function fittingPiece(layer: HomLayer, most: number): Promise<number> {
    const { dim } = layer.config;
    using state = layer.createState();
    for (let length = PIECES.smallest; ; length *= 2) {
      using piece = Tensor.from(gpu, normals(SEED, length * dim), [1, length, dim]);
      const time = async () => {
        const start = performance.now();
        layer.step(state, piece).destroy();
        await queue.onSubmittedWorkDone();
        return performance.now() - start;
      };
      // The first call of a length may compile.
      await time();
      const ms = Math.min(await time(), await time());
      if (ms * 2 > PIECE_MS || length * 2 > most) return length;
    }
  }
}

function largestPiece({ limits }: Gpu, dim: number): number {
  return Math.max(PIECES.smallest, Math.floor(limits.maxStorageBufferBindingSize / (dim * 4)));
}
