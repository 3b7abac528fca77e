import { describe, expect, it } from "vitest";
import { HomLayer, requestGpu, Tensor } from "../../src/index.ts";
import { expectClose } from "../support/compare.ts";
import { goldenCases, homGolden, loadGolden } from "../support/golden.ts";
import { getDevice } from "../support/gpu.ts";
import { poisoned } from "../support/poison.ts";
import { LAYER_F32 } from "../support/tolerances.ts";

const gpu = await requestGpu({ device: await getDevice() });
const fused = await requestGpu({ device: gpu.device, tuning: { fusedSelectMaxDim: 256 } });
const cases = (await goldenCases("hom", "hom_stream")).map((entry) => ({ name: entry.name, entry }));
const slabs = await requestGpu({ device: gpu.device, tuning: { fusedSelectMaxDim: 0 } });

describe.each([
  { form: "selection in one dispatch", on: fused, select: true },
  { form: "selection over slabs", on: slabs, select: false },
])("golden vectors, $form", ({ on, select }) => {
  it.each(cases)("$name", async ({ entry }) => {
    const { shape, params, args, expected, outputShape } = homGolden(await loadGolden(entry));
    const { dim, order, orderExpand } = shape;
    using layer = await HomLayer.create(on, { dim, order, orderExpand, bias: "ho_proj.bias" in params }, params);
    using query = Tensor.from(on, args.query, [args.batch, args.queryLength, dim]);
    using context = args.context && Tensor.from(on, args.context, [args.batch, args.contextLength, dim]);
    using out = poisoned(on, outputShape);
    expect(layer.forward(query, { context, mask: args.mask, out })).toBe(out);
    expectClose(await out.read(), expected, { relL2: LAYER_F32, what: `${entry.name} y`, adapter: gpu.info.description, shape: outputShape });
    const { dispatches } = layer.plan({ batch: args.batch, queryLength: args.queryLength, contextLength: args.contextLength, mask: args.mask });
    expect(dispatches.some(({ kernel }) => kernel === "select")).toBe(select);
  });
});
