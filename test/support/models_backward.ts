import type { GnnBackwardArguments } from "../../src/reference/gnn_backward.ts";
import type { VisionShape } from "../../src/reference/vision.ts";
import type { VisionBackwardArguments } from "../../src/reference/vision_backward.ts";
import { chooser, normals32 } from "./hom.ts";

/** Seeded parameters of blocks: those of the mixer behind `hom`, those of the feed-forward part behind `ffw.1` and `ffw.3`. */
function blockParams(
  seed: number,
  prefix: string,
  hom: string,
  { dim, order, orderExpand, ffwExpand }: { dim: number; order: number; orderExpand: number; ffwExpand: number },
): Record<string, Float32Array> {
  const width = order * orderExpand * dim;
  return {
    ...dense(seed + 1, `${prefix}${hom}ho_proj`, dim, width),
    ...dense(seed + 3, `${prefix}${hom}se_proj`, dim, width),
    ...dense(seed + 5, `${prefix}${hom}ag_proj`, width, dim),
    ...dense(seed + 7, `${prefix}ffw.1`, dim, ffwExpand * dim),
    ...dense(seed + 9, `${prefix}ffw.3`, ffwExpand * dim, dim),
  };
}

function dense(seed: number, name: string, inner: number, outer: number): Record<string, Float32Array> {
  return {
    [`${name}.weight`]: normals32(seed, outer * inner).map((value) => value / Math.sqrt(inner)),
    [`${name}.bias`]: normals32(seed + 1, outer).map((value) => value * 0.3),
  };
}

export interface GnnSizes {
  readonly dim: number;
  readonly order: number;
  readonly orderExpand: number;
  readonly ffwExpand: number;
  /** Absent: a single layer without a prefix. */
  readonly layers?: number | undefined;
  readonly classes?: number | undefined;
  readonly batch: number;
  readonly nodes: number;
  readonly adjacency: "boolean" | "weights" | "one for all";
}

/** A graph model, and a call of it; some nodes see none. */
export function gnnProblem(seed: number, { batch, nodes, adjacency: kind, ...shape }: GnnSizes) {
  const { dim, layers, classes } = shape;
  const pick = chooser(seed);
  const prefixes = layers === undefined ? [""] : Array.from({ length: layers }, (_, i) => `layers.${i}.`);
  const params: Record<string, Float32Array> = classes === undefined ? {} : dense(seed + 5000, "linear", dim, classes);
  for (const [i, prefix] of prefixes.entries()) Object.assign(params, blockParams(seed + 100 * i, prefix, "", shape));
  const graphs = kind === "one for all" ? 1 : batch;
  const edges = Array.from({ length: graphs * nodes * nodes }, (_, i) => (Math.floor(i / nodes) % 5 === 3 ? 0 : pick.integer(0, 2)));
  const args = {
    x: normals32(seed + 6000, batch * nodes * dim),
    adjacency: kind === "boolean" ? Uint8Array.from(edges) : Float32Array.from(edges, (edge) => edge * 0.75),
    batch,
    nodes,
    gradOutput: normals32(seed + 7000, batch * nodes * (classes ?? dim)),
  } satisfies GnnBackwardArguments;
  return { shape, params, args };
}

export interface VisionSizes extends VisionShape {
  readonly imageSize: number;
  readonly batch: number;
  readonly height: number;
  readonly width: number;
  readonly masked: boolean;
}

/** A classifier, and a call of it. */
export function visionProblem(seed: number, { batch, height, width, masked, ...shape }: VisionSizes) {
  const { dim, layers, classes, channels, patch, pooling, imageSize } = shape;
  const pick = chooser(seed);
  const known = Math.floor(imageSize / patch) ** 2;
  const n = Math.floor(height / patch) * Math.floor(width / patch);
  const params: Record<string, Float32Array> = {
    position: normals32(seed + 8000, known * dim),
    cls: normals32(seed + 8001, dim),
    ...dense(seed + 8002, "conv", channels * patch * patch, dim),
    ...dense(seed + 8004, "out_proj", dim, classes),
  };
  for (let i = 0; i < layers; i++) Object.assign(params, blockParams(seed + 100 * i, `layers.${i}.`, "hom.", shape));
  const args = {
    image: normals32(seed + 6000, batch * channels * height * width),
    ...(masked && { mask: Uint8Array.from({ length: batch * n }, () => pick.integer(0, 1)) }),
    batch,
    height,
    width,
    gradOutput: normals32(seed + 7000, batch * (pooling === "cls" ? 1 : n) * classes),
  } satisfies VisionBackwardArguments;
  return { shape, params, args };
}
