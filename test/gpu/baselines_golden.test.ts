import { describe, expect, it } from "vitest";
import { AttentionLayer, LinearAttentionLayer } from "../../src/baselines/index.ts";
import { requestGpu, Tensor } from "../../src/index.ts";
import { baselineGolden } from "../support/baselines.ts";
import { expectClose } from "../support/compare.ts";
import { goldenCases } from "../support/golden.ts";
import { getDevice } from "../support/gpu.ts";
import { poisoned } from "../support/poison.ts";
import { LAYER_F32 } from "../support/tolerances.ts";

const gpu = await requestGpu({ device: await getDevice() });

describe("golden vectors", async () => {
  it.each(await goldenCases("mha", "favor", "rfa", "maclaurin"))("$name", async (entry) => {
    const { shape, linear, params, args, expected, outputShape } = await baselineGolden(entry);
    using layer = linear ? await LinearAttentionLayer.create(gpu, linear, params) : await AttentionLayer.create(gpu, shape, params);
    using x = Tensor.from(gpu, args.x, [args.batch, args.length, shape.dim]);
    using out = poisoned(gpu, outputShape);
    expect(layer.forward(x, { causal: args.causal, out })).toBe(out);
    expectClose(await out.read(), expected, { relL2: LAYER_F32, what: `${entry.name} y`, adapter: gpu.info.description, shape: outputShape });
  });
});
