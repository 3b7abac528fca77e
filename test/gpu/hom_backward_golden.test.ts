import { describe, expect, it } from "vitest";
import { HomLayer, requestGpu, Tensor } from "../../src/index.ts";
import { expectClose } from "../support/compare.ts";
import { goldenCases, homGolden, loadGolden } from "../support/golden.ts";
import { getDevice } from "../support/gpu.ts";
import { homGoldenGradients } from "../support/hom_backward.ts";
import { LAYER_F32, LAYER_GRADIENT_F32 } from "../support/tolerances.ts";

const gpu = await requestGpu({ device: await getDevice() });
const adapter = gpu.info.description;
const cases = (await goldenCases("hom", "hom_layer")).filter(({ grads }) => grads.length > 0);

describe("golden gradients", () => {
  it("of 20 cases", () => expect(cases.length).toBe(20));
  it.each(cases)("$name", async (entry) => {
    const golden = await loadGolden(entry);
    const hom = homGolden(golden);
    const { args } = hom;
    const { shape, params, gradOutput, expected, named } = homGoldenGradients(golden, hom);
    const { dim } = shape;
    using layer = await HomLayer.create(gpu, { ...shape, activation: shape.activation ?? "gelu", bias: "ho_proj.bias" in params }, params);
    using query = Tensor.from(gpu, args.query, [args.batch, args.queryLength, dim]);
    using context = args.context && Tensor.from(gpu, args.context, [args.batch, args.contextLength, dim]);
    using gradient = Tensor.from(gpu, Float32Array.from(gradOutput), query.shape);
    const { output, backward } = layer.forwardForTraining(query, { context, mask: args.mask });
    if (entry.family === "hom") expectClose(await output.read(), hom.expected, { relL2: LAYER_F32, what: "y", adapter });
    const gradients = backward(gradient);
    const tensors = { query: gradients.query, ...(gradients.context && { context: gradients.context }), ...gradients.params };
    const values = Object.fromEntries(await Promise.all(Object.entries(tensors).map(async ([key, tensor]) => [key, await tensor.read()] as const)));
    const { query: ofQuery, context: ofContext, ...ofParams } = values;
    const actual = named({ query: ofQuery!, context: ofContext, params: ofParams });
    expect(Object.keys(actual).sort()).toEqual(Object.keys(expected).sort());
    for (const [key, golden] of Object.entries(expected)) expectClose(actual[key]!, golden, { relL2: LAYER_GRADIENT_F32, what: key, adapter });
    expect(gradients.query.shape).toEqual(query.shape);
    expect(gradients.params["ho_proj.weight"]!.shape).toEqual([shape.order * shape.orderExpand * dim, dim]);
    expect(gradients.params["ag_proj.weight"]!.shape).toEqual([dim, shape.order * shape.orderExpand * dim]);
    for (const tensor of [output, ...Object.values(tensors)]) tensor.destroy();
  });
});
