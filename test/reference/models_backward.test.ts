import { describe, expect, test } from "vitest";
import { gnnLayer, gnnReference } from "../../src/reference/gnn.ts";
import { gnnBackward, gnnLayerBackward } from "../../src/reference/gnn_backward.ts";
import type { Weights } from "../../src/reference/types.ts";
import { visionReference } from "../../src/reference/vision.ts";
import { visionBackward } from "../../src/reference/vision_backward.ts";
import { expectClose } from "../support/compare.ts";
import { expectDerivative } from "../support/derivative.ts";
import { type GoldenCase, gnnGolden, goldenCases, loadGolden, visionGolden } from "../support/golden.ts";
import { type GnnSizes, gnnProblem, type VisionSizes, visionProblem } from "../support/models_backward.ts";
import { REFERENCE_GOLDEN } from "../support/tolerances.ts";

const withGradients = async (family: string) => (await goldenCases(family)).filter(({ grads }) => grads.length > 0);

async function expectGolden(entry: GoldenCase, actual: Record<string, Float64Array>): Promise<void> {
  const golden = await loadGolden(entry);
  expect(Object.keys(actual).sort()).toEqual(entry.grads.map((key) => key.slice("grad.".length)).sort());
  for (const key of entry.grads) {
    expectClose(actual[key.slice("grad.".length)]!, golden.tensor(key).data, { relL2: REFERENCE_GOLDEN, what: key });
  }
}

describe("the float64 backward pass of graph models gives the golden gradients", async () => {
  const cases = await withGradients("gnn");
  test("of a layer and a network", () => expect(cases.length).toBe(2));
  test.each(cases)("$name", async (entry) => {
    const golden = await loadGolden(entry);
    const { shape, network, params, args } = gnnGolden(golden);
    const call = { ...args, gradOutput: golden.tensor("in.G").data };
    const { x, params: grads } = network ? gnnBackward({ ...shape, ...network }, params, call) : gnnLayerBackward(shape, params, call);
    await expectGolden(entry, { "in.x": x, ...grads });
  });
});

describe("the float64 backward pass of the classifier gives the golden gradients", async () => {
  const cases = await withGradients("hom_vision");
  test("of one case", () => expect(cases.length).toBe(1));
  test.each(cases)("$name", async (entry) => {
    const golden = await loadGolden(entry);
    const { shape, params, args } = visionGolden(golden);
    const { image, params: grads } = visionBackward(shape, params, { ...args, gradOutput: golden.tensor("in.G").data });
    await expectGolden(entry, { "in.img": image, ...grads });
  });
});

const step = 2e-4;

describe("the float64 backward pass is the derivative: central differences along a random direction of every tensor", () => {
  const graph = { dim: 3, order: 2, orderExpand: 1, ffwExpand: 2, batch: 2, nodes: 5, adjacency: "boolean" } as const;
  test.each<[string, GnnSizes]>([
    ["a layer", graph],
    ["weighted edges", { ...graph, order: 3, adjacency: "weights" }],
    ["a network, one graph for all", { ...graph, layers: 2, classes: 4, adjacency: "one for all" }],
    ["a single node", { ...graph, batch: 1, nodes: 1, orderExpand: 2, layers: 1, classes: 1 }],
  ])("graphs: %s", (_name, sizes) => {
    const { shape, params, args } = gnnProblem(3, sizes);
    const { gradOutput, ...forward } = args;
    const network = { ...shape, layers: shape.layers ?? 0, classes: shape.classes ?? 0 };
    const of = shape.classes === undefined ? gnnLayerBackward(shape, params, args) : gnnBackward(network, params, args);
    const loss = (weights: Weights, x: ArrayLike<number>) => {
      const y = shape.classes === undefined ? gnnLayer(shape, weights, { ...forward, x }) : gnnReference(network, weights, { ...forward, x });
      return y.reduce((sum, value, i) => sum + value * gradOutput[i]!, 0);
    };
    expectDerivative("x", of.x, args.x, (x) => loss(params, x), { seed: 1, step });
    expect(Object.keys(of.params).sort()).toEqual(Object.keys(params).sort());
    for (const [key, value] of Object.entries(params)) {
      expectDerivative(key, of.params[key]!, value, (changed) => loss({ ...params, [key]: changed }, args.x), { seed: 2, step });
    }
  });

  const small = { dim: 4, order: 2, orderExpand: 1, ffwExpand: 2, layers: 2, classes: 3, channels: 2, patch: 2, pooling: "cls" } as const;
  const image = { imageSize: 6, batch: 2, height: 6, width: 6, masked: false } as const;
  test.each<[string, VisionSizes]>([
    ["of an image", { ...small, ...image }],
    ["of patches, some of them masked", { ...small, ...image, pooling: "none", masked: true }],
    ["borders that fill no patch", { ...small, ...image, height: 7, width: 7, order: 3, layers: 1 }],
    ["another size, whose positions are resized", { ...small, ...image, height: 10, width: 11, pooling: "none", batch: 1 }],
    ["a smaller size", { ...small, ...image, height: 4, width: 4 }],
  ])("images: %s", (_name, sizes) => {
    const { shape, params, args } = visionProblem(5, sizes);
    const { gradOutput, ...forward } = args;
    const of = visionBackward(shape, params, args);
    const loss = (weights: Weights, image: ArrayLike<number>) =>
      visionReference(shape, weights, { ...forward, image }).reduce((sum, value, i) => sum + value * gradOutput[i]!, 0);
    expectDerivative("image", of.image, args.image, (image) => loss(params, image), { seed: 1, step });
    expect(Object.keys(of.params).sort()).toEqual(Object.keys(params).sort());
    for (const [key, value] of Object.entries(params)) {
      expectDerivative(key, of.params[key]!, value, (changed) => loss({ ...params, [key]: changed }, args.image), { seed: 2, step });
    }
  });
});
