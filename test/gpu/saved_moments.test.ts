import { expect, it } from "vitest";
import { momentsOf } from "../../demo/inside/saved_moments.ts";
import { HomLayer, requestGpu, Tensor } from "../../src/index.ts";
import { homMoments } from "../../src/reference/index.ts";
import { normals, randomParams } from "../reference/inputs.ts";
import { expectClose } from "../support/compare.ts";
import { getDevice } from "../support/gpu.ts";
import { LAYER_F32 } from "../support/tolerances.ts";

it("the demo reads the mean moments out of a saved state", async () => {
  const gpu = await requestGpu({ device: await getDevice() });
  const shape = { dim: 5, order: 3, orderExpand: 2 };
  const tokens = 11;
  const params = randomParams(1, shape);
  const weights = Object.fromEntries(Object.entries(params).map(([key, values]) => [key, Float32Array.from(values)]));
  const x = Float32Array.from(normals(2, tokens * shape.dim));
  using layer = await HomLayer.create(gpu, shape, weights);
  using state = layer.createState();
  // Enough additions that some lie in higher partial sums.
  for (let round = 0; round < 70; round++) {
    using context = Tensor.from(gpu, x, [1, tokens, shape.dim]);
    layer.append(state, context);
  }
  const expected = homMoments(shape, params, { query: x.subarray(0, shape.dim), context: x, batch: 1, contextLength: tokens, queryLength: 1 });
  expect(expected.length).toBe(30);
  expectClose(momentsOf(await state.save()), expected, { relL2: LAYER_F32, what: "moments", adapter: gpu.info.description, shape: [30] });
});
