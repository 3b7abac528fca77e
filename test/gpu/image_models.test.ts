import { afterAll, describe, expect, it } from "vitest";
import { requestGpu, Tensor, WeightsError } from "../../src/index.ts";
import { Dih, type DihConfig, HomGnn, HomVision, type HomVisionConfig } from "../../src/models/index.ts";
import { resizeGrid } from "../../src/models/interpolate.ts";
import { dihReference } from "../../src/reference/dih.ts";
import { gnnLayer } from "../../src/reference/gnn.ts";
import { resizeGrid as resizeReference } from "../../src/reference/images.ts";
import { visionReference } from "../../src/reference/vision.ts";
import { normals } from "../reference/inputs.ts";
import { expectClose } from "../support/compare.ts";
import { type DihGolden, dihGolden, type GnnGolden, gnnGolden, goldenCases, loadGolden, type VisionGolden, visionGolden } from "../support/golden.ts";
import { getDevice } from "../support/gpu.ts";
import { borrow, expectSameBits, normals32, poisonScratch } from "../support/hom.ts";
import { instrument } from "../support/instrument.ts";
import { LAYER_F32, MODEL_F32, REFERENCE_GOLDEN } from "../support/tolerances.ts";

const device = await getDevice();
const watch = instrument(device);
afterAll(() => watch.restore());
const gpu = await requestGpu({ device, tuning: { tile: "8x4" } });
const adapter = gpu.info.description;
const named = async (family: string) => (await goldenCases(family)).map((entry) => ({ name: entry.name, entry }));

const visionConfig = ({ shape }: VisionGolden): HomVisionConfig => {
  const { patch, activation: _, ...rest } = shape;
  return { ...rest, patchSize: patch };
};
const dihConfig = ({ shape }: DihGolden): DihConfig => {
  const { patch, ...rest } = shape;
  return { ...rest, patchSize: patch, timesteps: 100 };
};
const gnnConfig = ({ shape, network }: GnnGolden) => {
  const { dim, order, orderExpand, ffwExpand } = shape;
  return { dim, order, orderExpand, ffwExpand, ...network };
};

describe("HomVision", async () => {
  const cases = await named("hom_vision");
  it.each(cases)("$name", async ({ entry }) => {
    const golden = visionGolden(await loadGolden(entry));
    const { params, args, expected, outputShape, shape } = golden;
    using model = await HomVision.create(gpu, visionConfig(golden), params);
    // At an odd offset, which images have that a caller cuts out of a buffer.
    const image = borrow(gpu, [args.batch, shape.channels, args.height, args.width], 12, args.image as Float32Array<ArrayBuffer>);
    using y = model.forward(image.tensor, { mask: args.mask });
    expect(y.shape).toEqual(outputShape);
    const first = await y.read();
    expectClose(first, expected, { relL2: LAYER_F32, what: `${entry.name} logits`, adapter, shape: outputShape });
    poisonScratch(device, watch.live(/^hom\.scratch\./));
    using z = model.forward(image.tensor, { mask: args.mask });
    expectSameBits(await z.read(), first, "on other scratch memory");
    image.destroy();
  });

  it("takes images whose sides are no multiples of a patch, and other sizes, as its twin does", async () => {
    const golden = visionGolden(await loadGolden(cases[0]!.entry));
    using model = await HomVision.create(gpu, visionConfig(golden), golden.params);
    const batch = 2;
    for (const [height, width] of [
      [35, 39],
      [80, 87],
      [16, 20],
    ] as const) {
      const image = normals32(height, batch * 3 * height * width);
      const n = Math.floor(height / 8) * Math.floor(width / 8);
      const square = Number.isInteger(Math.sqrt(n));
      using x = Tensor.from(gpu, image, [batch, 3, height, width]);
      if (!square) {
        expect(() => model.forward(x)).toThrow(/image must have 16 patches, or a square number of them/);
        continue;
      }
      const mask = Float32Array.from({ length: batch * n }, (_, i) => (i % 3) / 2);
      using y = model.forward(x, { mask });
      const expected = visionReference(golden.shape, golden.params, { image, mask, batch, height, width });
      expectClose(await y.read(), expected, { relL2: LAYER_F32, what: `${height} x ${width}`, adapter });
    }
  });

  it("finds its parameters under a training prefix, and says what is missing", async () => {
    const golden = visionGolden(await loadGolden(cases[0]!.entry));
    const prefixed = Object.fromEntries(Object.entries(golden.params).map(([key, value]) => [`model.${key}`, value]));
    using model = await HomVision.create(gpu, visionConfig(golden), prefixed);
    expect(model.config.pooling).toBe("cls");
    const { cls: _, ...without } = golden.params;
    await expect(HomVision.create(gpu, visionConfig(golden), without)).rejects.toBeInstanceOf(WeightsError);
    await expect(HomVision.create(gpu, { ...visionConfig(golden), classes: 11 }, golden.params)).rejects.toThrow(/out_proj/);
    await expect(HomVision.create(gpu, { ...visionConfig(golden), layers: 0 }, golden.params)).rejects.toThrow(/layers must be an integer >= 1/);
  });

  it("refuses what is no image", async () => {
    const golden = visionGolden(await loadGolden(cases[0]!.entry));
    using model = await HomVision.create(gpu, visionConfig(golden), golden.params);
    using grey = Tensor.from(gpu, new Float32Array(32 * 32), [1, 1, 32, 32]);
    using flat = Tensor.from(gpu, new Float32Array(3 * 32 * 32), [3, 32, 32]);
    using image = Tensor.from(gpu, new Float32Array(3 * 32 * 32), [1, 3, 32, 32]);
    expect(() => model.forward(grey)).toThrow(/shape \[B, 3, H, W\]/);
    expect(() => model.forward(flat)).toThrow(/shape \[B, 3, H, W\]/);
    expect(() => model.forward(image, { mask: new Uint8Array(17) })).toThrow(/mask must have 16 elements/);
    expect(() => model.forward(image, { mask: [1] as never })).toThrow(TypeError);
    model.destroy();
    expect(() => model.forward(image)).toThrow(/destroyed model/);
  });
});

describe("Dih", async () => {
  const cases = await named("dih");
  it.each(cases)("$name", async ({ entry }) => {
    const golden = dihGolden(await loadGolden(entry));
    const { params, args, expected, outputShape } = golden;
    using model = await Dih.create(gpu, dihConfig(golden), params);
    const image = borrow(gpu, outputShape, 20, args.image as Float32Array<ArrayBuffer>);
    using y = model.forward(image.tensor, args.time, args.classes);
    const first = await y.read();
    expectClose(first, expected, { relL2: LAYER_F32, what: `${entry.name} image`, adapter, shape: outputShape });
    poisonScratch(device, watch.live(/^hom\.scratch\./));
    using z = model.forward(image.tensor, args.time, args.classes);
    expectSameBits(await z.read(), first, "on other scratch memory");
    image.destroy();
  });

  it.each(cases)("an image of $name is the same alone and at other sizes like its twin", async ({ entry }) => {
    const golden = dihGolden(await loadGolden(entry));
    const { shape, params } = golden;
    const { freqs: _, ...withoutFreqs } = params;
    using model = await Dih.create(gpu, dihConfig(golden), withoutFreqs);
    const size = 20;
    const one = shape.channels * size * size;
    const image = normals32(5, 3 * one);
    const [time, classes] = [
      [3.5, 0, 99],
      [0, shape.classes, 1],
    ];
    using x = Tensor.from(gpu, image, [3, shape.channels, size, size]);
    using y = model.forward(x, time, classes);
    const all = await y.read();
    const args = { image, time, classes, batch: 3, size };
    expectClose(all, dihReference(shape, params, args), { relL2: MODEL_F32, what: "twin", adapter });
    using second = Tensor.from(gpu, image.slice(one, 2 * one), [1, shape.channels, size, size]);
    using alone = model.forward(second, [time[1]!], [classes[1]!]);
    expectClose(await alone.read(), all.slice(one, 2 * one), { relL2: LAYER_F32, what: "alone", adapter });
  });

  it("refuses other shapes, times and classes", async () => {
    const golden = dihGolden(await loadGolden(cases[0]!.entry));
    using model = await Dih.create(gpu, dihConfig(golden), golden.params);
    using image = Tensor.from(gpu, golden.args.image, [2, 4, 8, 8]);
    using oblong = Tensor.from(gpu, new Float32Array(4 * 8 * 6), [1, 4, 8, 6]);
    expect(() => model.forward(oblong, [1], [1])).toThrow(/image must be square/);
    expect(() => model.forward(image, [1], [1, 2])).toThrow(/time must have 2 elements/);
    expect(() => model.forward(image, [1, Number.NaN], [1, 2])).toThrow(/time\[1\] must be finite/);
    expect(() => model.forward(image, [1, 2], [1, 6])).toThrow(/classes\[1\] must be an integer from 0 to 5, got 6/);
    await expect(Dih.create(gpu, { ...dihConfig(golden), dim: 10 }, golden.params)).rejects.toThrow(/dim must be a multiple of 4/);
    await expect(Dih.create(gpu, { ...dihConfig(golden), registers: 3 }, golden.params)).rejects.toBeInstanceOf(WeightsError);
  });
});

describe("HomGnn", async () => {
  const cases = await named("gnn");
  it.each(cases)("$name", async ({ entry }) => {
    const golden = gnnGolden(await loadGolden(entry));
    const { params, args, expected, outputShape, network, classes } = golden;
    using model = await HomGnn.create(gpu, gnnConfig(golden), params);
    using x = Tensor.from(gpu, args.x, [args.batch, args.nodes, golden.shape.dim]);
    using adjacency = model.createAdjacency(args.adjacency, { batch: args.batch, nodes: args.nodes });
    for (const given of [args.adjacency, adjacency]) {
      using y = model.forward(x, given);
      expect(y.shape).toEqual(outputShape);
      const values = await y.read();
      expectClose(values, expected, { relL2: LAYER_F32, what: `${entry.name} y`, adapter, shape: outputShape });
      if (!network || !classes) continue;
      const best = Array.from(classes, (_, i) => {
        const row = values.subarray(i * network.classes, (i + 1) * network.classes);
        return row.indexOf(Math.max(...row));
      });
      expect(best).toEqual([...classes]);
    }
  });

  it("nodes without neighbours read zeros, and weights of any size are divided by their own sum", async () => {
    const golden = gnnGolden(await loadGolden(cases[0]!.entry));
    const { shape, params } = golden;
    const [batch, nodes] = [2, 9];
    const data = normals32(3, batch * nodes * shape.dim);
    // Row 0 sees none; the others have weights far below the epsilon of a masked mean.
    const adjacency = Float32Array.from({ length: nodes * nodes }, (_, i) => (i < nodes ? 0 : 1e-9 * (1 + (i % 4))));
    using model = await HomGnn.create(gpu, gnnConfig(golden), params);
    using x = Tensor.from(gpu, data, [batch, nodes, shape.dim]);
    using y = model.forward(x, adjacency);
    const expected = gnnLayer(shape, params, { x: data, adjacency, batch, nodes });
    expectClose(await y.read(), expected, { relL2: LAYER_F32, what: "y", adapter });
    expect(() => model.forward(x, new Uint8Array(5))).toThrow(/mask.full must have 162 .* or 81/);
    using flat = Tensor.from(gpu, data, [batch * nodes, shape.dim]);
    expect(() => model.forward(flat, adjacency)).toThrow(/x must have shape \[B, N, 16\]/);
  });
});

describe("grids", () => {
  it.each([
    [4, 6],
    [6, 4],
    [5, 17],
    [14, 3],
    [7, 7],
  ] as const)("of %d x %d become %d x %d as the twin's do", (from, to) => {
    const grid = Float32Array.from(normals(from, from * from * 3));
    for (const antialias of [true, false]) {
      const expected = resizeReference(grid, to, 3, antialias);
      expectClose(resizeGrid("test", grid, 3, to, antialias), expected, { relL2: REFERENCE_GOLDEN, what: `antialias ${antialias}` });
    }
  });
});
