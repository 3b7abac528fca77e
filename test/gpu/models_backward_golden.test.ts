import { describe, expect, it } from "vitest";
import { requestGpu, Tensor } from "../../src/index.ts";
import { HomGnn } from "../../src/models/gnn_trainable.ts";
import { HomVision } from "../../src/models/vision_trainable.ts";
import { expectClose } from "../support/compare.ts";
import { type GoldenCase, gnnGolden, goldenCases, loadGolden, visionGolden } from "../support/golden.ts";
import { getDevice } from "../support/gpu.ts";
import { GRADIENT_F32, MODEL_F32 } from "../support/tolerances.ts";

const gpu = await requestGpu({ device: await getDevice() });
const adapter = gpu.info.description;
/** A whole model's pipelines are compiled at their first use. */
const PIPELINES = 300_000;
const withGradients = async (family: string) => (await goldenCases(family)).filter(({ grads }) => grads.length > 0);

async function expectGolden(entry: GoldenCase, gradients: Readonly<Record<string, Tensor>>): Promise<void> {
  const golden = await loadGolden(entry);
  expect(Object.keys(gradients).sort()).toEqual(entry.grads.map((key) => key.slice("grad.".length)).sort());
  for (const key of entry.grads) {
    const { data, shape } = golden.tensor(key);
    const tensor = gradients[key.slice("grad.".length)]!;
    expect(tensor.shape, key).toEqual(shape);
    expectClose(await tensor.read(), data, { relL2: GRADIENT_F32, what: key, adapter });
    tensor.destroy();
  }
}

describe("golden gradients of graph models", async () => {
  const cases = await withGradients("gnn");
  it("of a layer and a network", () => expect(cases.length).toBe(2));
  it.each(cases)(
    "$name",
    async (entry) => {
      const golden = await loadGolden(entry);
      const { shape, network, params, args, expected, outputShape } = gnnGolden(golden);
      using model = await HomGnn.create(gpu, { ...shape, ...network }, params);
      using x = Tensor.from(gpu, args.x, [args.batch, args.nodes, shape.dim]);
      using gradient = Tensor.from(gpu, golden.tensor("in.G").data as Float32Array, outputShape);
      const { output, backward } = model.forwardForTraining(x, args.adjacency);
      expectClose(await output.read(), expected, { relL2: MODEL_F32, what: "y", shape: outputShape, adapter });
      const of = backward(gradient);
      await expectGolden(entry, { "in.x": of.x, ...of.params });
      output.destroy();
    },
    PIPELINES,
  );
});

describe("golden gradients of the image classifier", async () => {
  const cases = await withGradients("hom_vision");
  it("of one case", () => expect(cases.length).toBe(1));
  it.each(cases)(
    "$name",
    async (entry) => {
      const golden = await loadGolden(entry);
      const { shape, params, args, expected, outputShape } = visionGolden(golden);
      const { patch: patchSize, ...config } = shape;
      using model = await HomVision.create(gpu, { ...config, patchSize }, params);
      using image = Tensor.from(gpu, args.image, [args.batch, shape.channels, args.height, args.width]);
      using gradient = Tensor.from(gpu, golden.tensor("in.G").data as Float32Array, outputShape);
      const { output, backward } = model.forwardForTraining(image, { mask: args.mask });
      expectClose(await output.read(), expected, { relL2: MODEL_F32, what: "y", shape: outputShape, adapter });
      const of = backward(gradient);
      await expectGolden(entry, { "in.img": of.image, ...of.params });
      output.destroy();
    },
    PIPELINES,
  );
});
