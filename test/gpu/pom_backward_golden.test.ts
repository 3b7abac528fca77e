import { describe, expect, it } from "vitest";
import { type HomGradients, requestGpu, Tensor } from "../../src/index.ts";
import { PomLayer } from "../../src/pom.ts";
import { expectClose } from "../support/compare.ts";
import { fullMask, goldenCases, loadGolden, pomGolden, pomGoldenGradients } from "../support/golden.ts";
import { getDevice } from "../support/gpu.ts";
import { LAYER_F32, LAYER_GRADIENT_F32 } from "../support/tolerances.ts";

const device = await getDevice();
const small = await requestGpu({ device, tuning: { tile: "8x4" } });
const large = await requestGpu({ device, tuning: { tile: "16x8" } });
const adapter = small.info.description;
const cases = (await goldenCases("pom", "pom_rope")).filter(({ grads }) => grads.length > 0).map((entry) => ({ name: entry.name, entry }));

async function read({ query, context, params }: HomGradients): Promise<Record<string, Float32Array>> {
  const values: Record<string, Float32Array> = {};
  for (const [name, tensor] of Object.entries({ query, ...(context && { context }), ...params })) {
    values[name] = await tensor.read();
    tensor.destroy();
  }
  return values;
}

describe.each([
  { form: "small tiles", on: small },
  { form: "large tiles", on: large },
])("golden gradients, $form", ({ on }) => {
  it("of 17 cases", () => expect(cases.length).toBe(17));
  it.each(cases)("$name", async ({ entry }) => {
    const golden = await loadGolden(entry);
    const { shape, bias, params, args, expected, outputShape } = pomGolden(golden);
    const { gradOutput, expected: gradients } = pomGoldenGradients(entry, golden);
    const { rotary = "none" } = shape;
    using layer = await PomLayer.create(on, { ...shape, rotary, bias }, params);
    using query = Tensor.from(on, args.query, [args.batch, args.queryLength, shape.dim]);
    using context = args.context && Tensor.from(on, args.context, [args.batch, args.contextLength, shape.dim]);
    using gradient = Tensor.from(on, gradOutput, query.shape);
    const { positions, contextPositions } = args;
    const masks = [args.mask];
    if (args.mask && typeof args.mask === "object" && "blockCausal" in args.mask) masks.push({ full: fullMask(golden) });
    for (const mask of masks) {
      const { output, backward } = layer.forwardForTraining(query, { context, mask, positions, contextPositions });
      expectClose(await output.read(), expected, { relL2: LAYER_F32, what: "y", adapter, shape: outputShape });
      output.destroy();
      const actual = await read(backward(gradient));
      expect(Object.keys(actual).sort()).toEqual(Object.keys(gradients).sort());
      for (const [key, values] of Object.entries(gradients)) expectClose(actual[key]!, values, { relL2: LAYER_GRADIENT_F32, what: key, adapter });
    }
  });
});
