import { describe, expect, it } from "vitest";
import { requestGpu, Tensor } from "../../src/index.ts";
import { HomGnn } from "../../src/models/gnn_trainable.ts";
import { HomVision } from "../../src/models/vision_trainable.ts";
import { gnnBackward, gnnLayerBackward } from "../../src/reference/gnn_backward.ts";
import { visionBackward } from "../../src/reference/vision_backward.ts";
import { expectClose } from "../support/compare.ts";
import { getDevice } from "../support/gpu.ts";
import { borrow, expectSameBits } from "../support/hom.ts";
import { type GnnSizes, gnnProblem, type VisionSizes, visionProblem } from "../support/models_backward.ts";
import { GRADIENT_F32 } from "../support/tolerances.ts";

const gpu = await requestGpu({ device: await getDevice() });
const adapter = gpu.info.description;

/** A whole model's pipelines are compiled at their first use. */
const PIPELINES = 300_000;

/** All of them, read and destroyed. */
async function valuesOf(tensors: Readonly<Record<string, Tensor>>): Promise<Record<string, Float32Array>> {
  const read = await Promise.all(Object.entries(tensors).map(async ([key, tensor]) => [key, await tensor.read()] as const));
  for (const tensor of Object.values(tensors)) tensor.destroy();
  return Object.fromEntries(read);
}

function expectGradients(actual: Readonly<Record<string, Float32Array>>, expected: Readonly<Record<string, Float64Array>>): void {
  expect(Object.keys(actual).sort()).toEqual(Object.keys(expected).sort());
  for (const [key, value] of Object.entries(expected)) expectClose(actual[key]!, value, { relL2: GRADIENT_F32, what: key, adapter });
}

const graph = { dim: 12, order: 2, orderExpand: 1, ffwExpand: 2, batch: 2, nodes: 21, adjacency: "boolean" } as const;

describe("HomGnn's gradients", () => {
  it.each<[string, GnnSizes, number]>([
    ["a layer, nodes without neighbours", graph, 0],
    ["odd sizes, weighted edges, tensors anywhere", { ...graph, dim: 7, order: 3, ffwExpand: 3, nodes: 13, adjacency: "weights" }, 20],
    ["a network, one graph for all", { ...graph, dim: 10, layers: 3, classes: 5, adjacency: "one for all" }, 4],
    ["a network without classes", { ...graph, orderExpand: 2, layers: 2, batch: 1, nodes: 70 }, 256],
    ["a single node", { ...graph, batch: 1, nodes: 1, layers: 1, classes: 1 }, 0],
  ])(
    "%s",
    async (_name, sizes, byteOffset) => {
      const { shape, params, args } = gnnProblem(7, sizes);
      const { batch, nodes } = args;
      const { layers = 0, classes } = shape;
      const expected = classes === undefined && shape.layers === undefined ? gnnLayerBackward(shape, params, args) : undefined;
      using model = await HomGnn.create(gpu, shape, params);
      const x = borrow(gpu, [batch, nodes, shape.dim], byteOffset, args.x);
      const gradient = borrow(gpu, [batch, nodes, classes ?? shape.dim], byteOffset, args.gradOutput);
      const adjacency = args.adjacency.slice();
      const { output, backward } = model.forwardForTraining(x.tensor, adjacency);
      using forward = model.forward(x.tensor, args.adjacency);
      expectSameBits(await output.read(), await forward.read(), "output");
      // What happens to the array later does not matter.
      adjacency.fill(0);
      const first = backward(gradient.tensor);
      const once = await valuesOf({ x: first.x, ...first.params });
      if (expected) expectGradients(once, { x: expected.x, ...expected.params });
      else if (classes !== undefined) {
        const network = gnnBackward({ ...shape, layers, classes }, params, args);
        expectGradients(once, { x: network.x, ...network.params });
      } else {
        // Without classes: the same as with classes that are the channels.
        const identity = Float32Array.from({ length: shape.dim ** 2 }, (_, i) => (i % (shape.dim + 1) === 0 ? 1 : 0));
        const weights = { ...params, "linear.weight": identity, "linear.bias": new Float32Array(shape.dim) };
        const network = gnnBackward({ ...shape, layers, classes: shape.dim }, weights, args);
        const { "linear.weight": _weight, "linear.bias": _bias, ...own } = network.params;
        expectGradients(once, { x: network.x, ...own });
      }
      // Again, by a prepared adjacency: the same bits.
      using prepared = model.createAdjacency(args.adjacency, { batch, nodes });
      const again = model.forwardForTraining(x.tensor, prepared);
      const second = again.backward(gradient.tensor);
      for (const [key, value] of Object.entries(await valuesOf({ x: second.x, ...second.params }))) expectSameBits(value, once[key]!, key);
      for (const part of [output, again.output, x, gradient]) part.destroy();
    },
    PIPELINES,
  );
});

const small = { dim: 12, order: 2, orderExpand: 1, ffwExpand: 2, layers: 2, classes: 10, channels: 3, patch: 4, pooling: "cls" } as const;
const image = { imageSize: 16, batch: 3, height: 16, width: 16, masked: false } as const;

describe("HomVision's gradients", () => {
  it.each<[string, VisionSizes, number]>([
    ["of an image", { ...small, ...image }, 0],
    ["of patches, some of them masked", { ...small, ...image, pooling: "none", masked: true }, 16],
    [
      "odd sizes, borders that fill no patch, tensors anywhere",
      { ...small, ...image, dim: 9, channels: 1, patch: 3, height: 17, width: 16, order: 3 },
      20,
    ],
    ["positions resized to more", { ...small, ...image, height: 24, width: 27, pooling: "none", batch: 2 }, 0],
    ["positions resized to fewer", { ...small, ...image, dim: 6, height: 8, width: 8, batch: 1, layers: 1 }, 4],
    ["more images than a block of sums", { ...small, ...image, dim: 8, batch: 70, layers: 1, imageSize: 8, height: 8, width: 8, masked: true }, 0],
  ])(
    "%s",
    async (_name, sizes, byteOffset) => {
      const { shape, params, args } = visionProblem(11, sizes);
      const { patch: patchSize, ...config } = shape;
      using model = await HomVision.create(gpu, { ...config, patchSize }, params);
      const { batch, height, width, mask } = args;
      const x = borrow(gpu, [batch, shape.channels, height, width], byteOffset, args.image);
      const kept = mask?.slice();
      const { output, backward } = model.forwardForTraining(x.tensor, { mask: kept });
      const gradient = borrow(gpu, output.shape, byteOffset, args.gradOutput);
      using forward = model.forward(x.tensor, { mask });
      expectSameBits(await output.read(), await forward.read(), "output");
      kept?.fill(0);
      const first = backward(gradient.tensor);
      const once = await valuesOf({ image: first.image, ...first.params });
      const expected = visionBackward(shape, params, args);
      expectGradients(once, { image: expected.image, ...expected.params });
      const second = backward(gradient.tensor);
      for (const [key, value] of Object.entries(await valuesOf({ image: second.image, ...second.params }))) expectSameBits(value, once[key]!, key);
      for (const part of [output, x, gradient]) part.destroy();
    },
    PIPELINES,
  );
});

describe("what goes wrong", async () => {
  const { shape, params, args } = gnnProblem(7, graph);
  const model = await HomGnn.create(gpu, shape, params);
  const x = Tensor.from(gpu, args.x, [2, 21, 12]);
  const gradient = Tensor.from(gpu, args.gradOutput, [2, 21, 12]);

  it("says so: shapes, types, tensors and models that are gone", async () => {
    const { output, backward } = model.forwardForTraining(x, args.adjacency);
    const where = "HomGnn.forwardForTraining's backward";
    using flat = Tensor.from(gpu, args.gradOutput, [42, 12]);
    using half = Tensor.from(gpu, args.gradOutput, [2, 21, 12], { dtype: "f16" });
    expect(() => backward(flat)).toThrow(`${where}: gradOutput must have shape [2, 21, 12]`);
    expect(() => backward(half)).toThrow(`${where}: gradOutput must be f32`);
    expect(() => backward(args.gradOutput as unknown as Tensor)).toThrow(`${where}: gradOutput must be a Tensor`);
    using other = await HomGnn.create(gpu, shape, params);
    const gone = Tensor.from(gpu, args.x, [2, 21, 12]);
    const pass = other.forwardForTraining(gone, args.adjacency);
    gone.destroy();
    expect(() => pass.backward(gradient)).toThrow(`${where}: x must be alive`);
    const last = other.forwardForTraining(x, args.adjacency);
    other.destroy();
    expect(() => last.backward(gradient)).toThrow(`${where}: model must be alive`);
    expect(() => model.forwardForTraining(flat, args.adjacency)).toThrow("HomGnn.forwardForTraining: x must have shape");
    for (const tensor of [output, pass.output, last.output]) tensor.destroy();
  });
});
