import type { DihConfig } from "../../src/models/index.ts";
import type { DihShape } from "../../src/reference/dih.ts";
import { chooser, normals32 } from "./hom.ts";

/** Seeded parameters of a diffusion model, registers partly beyond what a DiH++ clamps its tokens to. */
export function dihParams(seed: number, shape: DihShape, sizes: { readonly classes: number; readonly side: number }): Record<string, Float32Array> {
  const { dim, order, orderExpand, ffwExpand, layers, channels, patch, registers } = shape;
  const params: Record<string, Float32Array> = {};
  const add = (name: string, size: number, scale: number) => {
    params[name] = normals32(seed + Object.keys(params).length, size).map((value) => value * scale);
  };
  const dense = (name: string, inner: number, outer: number) => {
    add(`${name}.weight`, outer * inner, 1 / Math.sqrt(inner));
    add(`${name}.bias`, outer, 0.3);
  };
  const [inner, width] = [channels * patch * patch, order * orderExpand * dim];
  params["freqs"] = Float32Array.from({ length: dim / 2 }, (_, i) => 100 ** ((-2 * i) / dim));
  add("classes_emb.weight", (sizes.classes + 1) * dim, 1);
  dense("time_emb.0", dim, 4 * dim);
  dense("time_emb.2", 4 * dim, dim);
  dense("in_conv", inner, dim);
  for (let i = 0; i < layers; i++) {
    const of = `layers.${i}`;
    dense(`${of}.hom.ho_proj`, dim, width);
    dense(`${of}.hom.se_proj`, dim, width);
    dense(`${of}.hom.ag_proj`, width, dim);
    dense(`${of}.ffw.0`, dim, ffwExpand * dim);
    dense(`${of}.ffw.2`, ffwExpand * dim, dim);
    dense(`${of}.cond_mlp.1`, dim, 4 * dim);
    dense(`${of}.gate_mlp.1`, dim, 2 * dim);
  }
  dense("out_mod.1", dim, 2 * dim);
  dense("out_proj", dim, inner);
  if (registers === undefined) return params;
  const n = sizes.side ** 2;
  add("registers", registers * dim, 1);
  params["registers"] = params["registers"]!.map((value, i) => (i % 5 === 0 ? 300 * Math.sign(value) : value));
  add("pos_emb", n * dim, 1);
  add("cond_pos_emb", (registers + n) * dim, 0.5);
  return params;
}

/** A model of random sizes, and a call of it. */
export function dihProblem(seed: number, kind: "DiH" | "DiH++" | "DiH++ resized") {
  const pick = chooser(seed);
  const shape: DihShape & { readonly imageSize: number; readonly classes: number } = {
    dim: 4 * pick.integer(1, 3),
    order: pick.integer(1, 3),
    orderExpand: pick.integer(1, 2),
    ffwExpand: pick.integer(1, 3),
    layers: pick.integer(1, 2),
    channels: pick.integer(1, 3),
    patch: pick.integer(1, 2),
    registers: kind === "DiH" ? undefined : pick.integer(1, 3),
    imageSize: 0,
    classes: 3,
  };
  const side = pick.integer(2, 4);
  const batch = pick.integer(1, 3);
  const size = (kind === "DiH++ resized" ? side + pick.of([-1, 1, 2]) : side) * shape.patch;
  const image = normals32(seed + 1, batch * shape.channels * size * size);
  return {
    shape: { ...shape, imageSize: side * shape.patch },
    params: dihParams(seed + 10, shape, { classes: shape.classes, side }),
    args: {
      image,
      time: Array.from({ length: batch }, () => pick.integer(0, 99)),
      classes: Array.from({ length: batch }, () => pick.integer(0, shape.classes)),
      batch,
      size,
      gradOutput: normals32(seed + 2, image.length),
    },
  };
}

export const dihConfigOf = ({ patch, ...rest }: DihShape & { readonly imageSize: number; readonly classes: number }): DihConfig => ({
  ...rest,
  patchSize: patch,
  timesteps: 100,
});
