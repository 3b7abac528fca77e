import { describe, expect, it } from "vitest";
import { HomLayer, type MaskSpec, requestGpu, Tensor } from "../../src/index.ts";
import { normals, randomParams } from "../reference/inputs.ts";
import { getDevice } from "../support/gpu.ts";

const device = await getDevice();
const subgroups = device.features.has("subgroups");

/** E = e·D is a multiple of 32 in the first two: the others run without quads, by the same name. */
const CONFIGS = [
  { dim: 32, order: 2, orderExpand: 1 },
  { dim: 16, order: 3, orderExpand: 2 },
  { dim: 20, order: 2, orderExpand: 2 },
  { dim: 7, order: 2, orderExpand: 1 },
];
const BATCH = 2;
const TOKENS = 37;

const MASKS: readonly [string, MaskSpec | undefined][] = [
  ["none", undefined],
  ["causal", "causal"],
  ["blockCausal", { blockCausal: 5 }],
  ["padding", { padding: Uint8Array.from({ length: BATCH * TOKENS }, (_, i) => (i % 7 === 0 ? 0 : 1)) }],
  ["lengths", { lengths: Uint32Array.of(TOKENS, 3) }],
  ["full", { full: Float32Array.from({ length: BATCH * TOKENS * TOKENS }, (_, i) => (i % 5) / 4) }],
];

describe.runIf(subgroups)("quads", () => {
  for (const config of CONFIGS) {
    for (const [name, mask] of MASKS) {
      it(`give the bits of the same tile without them: D=${config.dim} k=${config.order} e=${config.orderExpand}, ${name}`, async () => {
        const params = Object.fromEntries(Object.entries(randomParams(3, config)).map(([key, values]) => [key, Float32Array.from(values)]));
        const x = Float32Array.from(normals(4, BATCH * TOKENS * config.dim));
        const run = async (tile: "16x8" | "16x8_quads") => {
          using gpu = await requestGpu({ device, tuning: { tile, fusedSelectMaxDim: 0 } });
          using layer = await HomLayer.create(gpu, config, params);
          using input = Tensor.from(gpu, x, [BATCH, TOKENS, config.dim]);
          using y = layer.forward(input, { mask });
          return await y.read();
        };
        const plain = await run("16x8");
        const quads = await run("16x8_quads");
        expect(plain.every(Number.isFinite)).toBe(true);
        expect(new Uint32Array(quads.buffer)).toEqual(new Uint32Array(plain.buffer));
      });
    }
  }
});

describe.runIf(!subgroups)("quads", () => {
  it("are refused where the device has no subgroups", async () => {
    await expect(requestGpu({ device, tuning: { tile: "16x8_quads" } })).rejects.toThrow(
      /requestGpu: tuning.tile must be a tile that the device can run/,
    );
  });
});
