import { describe, expect, it } from "vitest";
import { packLinear } from "../../src/layers/params.ts";
import { arenaLayout, decayedRanges, initialParams, packArena, unpackArena } from "../../src/train/arena.ts";
import { loadGoldenTraining } from "../support/hlm_training.ts";

const config = { vocabSize: 11, dim: 6, layers: 2, contextLength: 8, order: 3, orderExpand: 1, ffwExpand: 3 };

/** A value of its own for every parameter. */
function numbered(): Record<string, Float32Array> {
  let next = 1;
  return Object.fromEntries(Object.entries(initialParams(config, 1)).map(([key, values]) => [key, values.map(() => next++)]));
}

describe("the parameter arena", () => {
  const layout = arenaLayout(config);
  const params = numbered();
  const arena = packArena(layout, params);

  it("aligns every matrix and overlaps none", () => {
    let end = 0;
    for (const { offset, size } of layout.matrices) {
      expect(offset % 256).toBe(0);
      expect(offset).toBeGreaterThanOrEqual(end);
      end = offset + size;
    }
    expect(layout.size).toBeGreaterThanOrEqual(end);
    expect(layout.size % 256).toBe(0);
  });

  it("holds the layers as the kernels read them", () => {
    const packedOf = (name: string) => {
      const matrix = layout.matrices.find((m) => m.name === name)!;
      return arena.subarray(matrix.offset / 4, (matrix.offset + matrix.size) / 4);
    };
    const linear = (name: string, outer: { count: number; width: number }) => ({
      weight: params[`${name}.weight`]!,
      bias: params[`${name}.bias`],
      outer,
    });
    const model = { count: 1, width: 6 };
    const moment = { count: 3, width: 6 };
    expect(packedOf("layers.1.projections")).toEqual(
      packLinear([linear("layers.1.hom.ho_proj", moment), linear("layers.1.hom.se_proj", moment)], model),
    );
    expect(packedOf("layers.0.ag")).toEqual(packLinear([linear("layers.0.hom.ag_proj", model)], moment));
    expect(packedOf("layers.1.ffw.2")).toEqual(packLinear([linear("layers.1.ffw.2", model)], { count: 1, width: 18 }));
    expect(packedOf("output_proj")).toEqual(packLinear([linear("output_proj", { count: 1, width: 11 })], model));
    expect(packedOf("token_emb")).toEqual(params["token_emb.weight"]);
  });

  it("gives every parameter back, and nothing lies in the padding", () => {
    const unpacked = unpackArena(layout, arena);
    expect(Object.fromEntries(Object.entries(unpacked).map(([key, { data }]) => [key, data]))).toEqual(params);
    expect(unpacked["layers.0.hom.ag_proj.weight"]!.shape).toEqual([6, 18]);
    expect(arena.filter((value) => value !== 0)).toHaveLength(Object.values(params).reduce((sum, { length }) => sum + length, 0));
  });

  it("decays weights, not biases", () => {
    const decayed = new Set<number>();
    for (const { start, end } of decayedRanges(layout)) for (let i = start; i < end; i++) if (arena[i] !== 0) decayed.add(arena[i]!);
    const weights = Object.entries(params).flatMap(([key, values]) => (key.endsWith(".weight") ? [...values] : []));
    expect(decayed).toEqual(new Set(weights));
  });
});

describe("initial weights", () => {
  const rms = (values: ArrayLike<number>) => Math.sqrt(Array.from(values).reduce((sum, v) => sum + v * v, 0) / values.length);

  it("are distributed as the original's", async () => {
    const golden = await loadGoldenTraining();
    const ours = initialParams(golden.config, 1);
    expect([...Object.keys(ours), "freqs"].sort()).toEqual(Object.keys(golden.initial).sort());
    for (const [key, values] of Object.entries(ours)) {
      const theirs = golden.initial[key]!;
      expect(values.length, key).toBe(theirs.length);
      if (key.endsWith(".bias")) {
        expect([rms(values), rms(theirs)], key).toEqual([0, 0]);
        continue;
      }
      expect(rms(values) / rms(theirs), key).toBeGreaterThan(0.93);
      expect(rms(values) / rms(theirs), key).toBeLessThan(1.07);
      const largest = (v: Float32Array) => v.reduce((a, b) => Math.max(a, Math.abs(b)), 0);
      // A uniform distribution ends sharply; normal ones differ by chance.
      const tolerance = /token_emb|output_proj/.test(key) ? 0.35 : 0.01;
      expect(Math.abs(largest(values) / largest(theirs) - 1), key).toBeLessThan(tolerance);
    }
  });

  it("depend on the seed alone", () => {
    expect(initialParams(config, 5)).toEqual(initialParams(config, 5));
    expect(initialParams(config, 6)["output_proj.weight"]).not.toEqual(initialParams(config, 5)["output_proj.weight"]);
    const values = Object.values(initialParams(config, 5)).flatMap((v) => [...v.slice(0, 4)].filter((x) => x !== 0));
    expect(new Set(values).size).toBe(values.length);
  });
});
