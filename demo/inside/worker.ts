/** Follows a text through the moments of the language model's layers, and draws its path. */
import { fetchSafetensors, type Gpu } from "homm-webgpu";
import { type CharVocabulary, charVocabulary, Hlm, hlmConfigOf } from "homm-webgpu/models";
import { type Send, serve, turn } from "../shared/serve.ts";
import { type Atlas, drawAtlas } from "./atlas.ts";
import { type Orbit, seenAt, viewProjection } from "./camera.ts";
import { principalComponents } from "./components.ts";
import { axisName, type Path, pictureOf, type Theme, visible } from "./picture.ts";
import { Renderer } from "./renderer.ts";
import { momentsOf } from "./saved_moments.ts";
import { screenFor } from "./screen.ts";

export interface ModelReport {
  readonly layers: number;
  readonly order: number;
  readonly characters: string;
}

export interface Selection {
  readonly layer: number;
  /** The mean of all tokens so far, or each token's own products. */
  readonly kind: "mean" | "own";
  /** One order of moments, or all. */
  readonly order: number | undefined;
  /** Each axis as long as the others, whatever lies along it. */
  readonly stretched: boolean;
}

export interface View {
  readonly orbit: Orbit;
  readonly theme: Theme;
  readonly chosen: number;
  /** Of the canvas, in its pixels, and how many of them a pixel of the page is wide. */
  readonly width: number;
  readonly height: number;
  readonly pixel: number;
}

export interface Events {
  readonly working: { readonly step: string; readonly fraction: number | null };
}

export type InsideCalls = ReturnType<typeof work>;

/** Tokens whose moments are on their way back while the next are computed. */
const IN_FLIGHT = 8;
/** A click may miss a token by so many pixels of the page. */
const NEAR = 24;

serve<Events>(work);

function work(gpu: Gpu, send: Send<Events>) {
  let model: Hlm;
  let vocabulary: CharVocabulary;
  let renderer: Renderer;
  let atlas: Atlas;
  let characters: string[] = [];
  /** Of every layer, the mean moments after each token. */
  let means: Float32Array[][] = [];
  let path: Path | undefined;
  let view: View | undefined;
  let drawing = false;
  let wanted = false;
  /** Who waits for the picture that shows what they asked for. */
  let waiting: (() => void)[] = [];
  let isLost = false;
  void gpu.lost.then(() => {
    isLost = true;
  });

  return {
    async load(url: string): Promise<ModelReport> {
      const step = "Downloading the model …";
      send("working", { step, fraction: 0 });
      const onProgress = ({ loaded, total }: { loaded: number; total: number | undefined }) =>
        send("working", { step, fraction: total ? loaded / total : null });
      const weights = await fetchSafetensors(url, { onProgress });
      send("working", { step: "Compiling the kernels …", fraction: null });
      model = await Hlm.create(gpu, hlmConfigOf(weights), weights);
      vocabulary = charVocabulary(weights);
      const { layers, order } = model.config;
      return { layers, order, characters: vocabulary.decode(Array(vocabulary.size).keys()) };
    },

    /** @param copy whether pictures go through main memory */
    async attach(canvas: OffscreenCanvas, copy: boolean): Promise<void> {
      renderer = await Renderer.create(gpu.device, screenFor(gpu.device, canvas, copy));
    },

    /** Takes in the text token by token and keeps what each layer remembers after each. */
    async read(text: string): Promise<void> {
      const ids = vocabulary.encode(text);
      characters = [...text];
      atlas = drawAtlas([...characters.map(visible), ...[0, 1, 2].flatMap((axis) => [...axisName(axis, 0)]), ..."0123456789."]);
      renderer.setAtlas(atlas);
      using state = model.createState();
      const found: Promise<Float32Array[]>[] = [];
      for (const [i, id] of ids.entries()) {
        model.step(state, Int32Array.of(id), { logits: "last" }).destroy();
        found.push(Promise.all(state.layers.map(async (layer) => momentsOf(await layer.save()))));
        if (i >= IN_FLIGHT) await found[i - IN_FLIGHT];
        if (i % IN_FLIGHT === 0) {
          send("working", { step: "Following the text through the layers …", fraction: i / ids.length });
          await turn();
        }
      }
      const byToken = await Promise.all(found);
      means = state.layers.map((_, layer) => byToken.map((all) => all[layer] ?? new Float32Array()));
    },

    /** Projects what is selected on its three principal axes. @returns the shares of the spread that they hold */
    select({ layer, kind, order, stretched }: Selection): readonly number[] {
      const chosen = means[layer] ?? [];
      const points = (kind === "mean" ? chosen : ownMoments(chosen)).map((all) => {
        const width = all.length / model.config.order;
        return order === undefined ? all : all.subarray((order - 1) * width, order * width);
      });
      const { coordinates, shares } = principalComponents(points);
      path = { coordinates: withinBall(coordinates, stretched), shares, characters };
      redraw();
      return shares;
    },

    /** @returns when it is to be seen */
    look(next: View): Promise<void> {
      view = next;
      redraw();
      return new Promise((resolve) => waiting.push(resolve));
    },

    /** The token nearest to a place on the canvas, in fractions of it from the upper left; -1 where none is near. */
    pick(x: number, y: number): number {
      if (!path || !view) return -1;
      const { width, height, pixel } = view;
      const matrix = viewProjection(view.orbit, width / height);
      let best = -1;
      let least = NEAR * pixel;
      for (let i = 0; i < characters.length; i++) {
        const [sx, sy] = seenAt(matrix, [...path.coordinates.subarray(3 * i, 3 * i + 3)]);
        const distance = Math.hypot((sx - x) * width, (sy - y) * height);
        if (distance < least) [best, least] = [i, distance];
      }
      return best;
    },
  };

  /** At the next frame, however often it is asked for until then. */
  function redraw(): void {
    wanted = true;
    if (drawing || !view || !path) return;
    drawing = true;
    requestAnimationFrame(async () => {
      try {
        if (!view || !path) return;
        wanted = false;
        const shown = waiting;
        waiting = [];
        const { orbit, theme, chosen, width, height, pixel } = view;
        renderer.setPicture(pictureOf(path, chosen, theme, pixel, atlas));
        await renderer.draw(orbit, theme.ground, width, height);
        // The page gets what was drawn at the end of this frame.
        requestAnimationFrame(() => {
          for (const resolve of shown) resolve();
        });
      } catch (error) {
        // After a loss the page starts another worker.
        await Promise.race([gpu.lost, new Promise((resolve) => setTimeout(resolve, 1000))]);
        if (!isLost) throw error;
      } finally {
        drawing = false;
        if (wanted) redraw();
      }
    });
  }
}

/** A token's own products, out of the means with and without it. */
function ownMoments(means: readonly Float32Array[]): Float32Array[] {
  return means.map((mean, t) => {
    const before = means[t - 1];
    return before ? mean.map((value, j) => (t + 1) * value - t * (before[j] ?? 0)) : mean;
  });
}

/** Scaled so that the farthest of the points `[n, 3]` is at distance 1. */
function withinBall(points: Float32Array, stretched: boolean): Float32Array {
  const reach = [0, 0, 0];
  points.forEach((value, i) => {
    reach[i % 3] = Math.max(reach[i % 3] ?? 0, Math.abs(value));
  });
  const scaled = stretched ? points.map((value, i) => value / (reach[i % 3] || 1)) : points;
  let farthest = 0;
  for (let i = 0; i < scaled.length; i += 3) farthest = Math.max(farthest, Math.hypot(...scaled.subarray(i, i + 3)));
  return scaled.map((value) => value / (farthest || 1));
}
