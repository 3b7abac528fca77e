import { describe, expect, it } from "vitest";
import { requestGpu, Tensor } from "../../src/index.ts";
import { PomLayer } from "../../src/pom.ts";
import { expectClose } from "../support/compare.ts";
import { fullMask, goldenCases, loadGolden, pomGolden, pomStateGolden } from "../support/golden.ts";
import { getDevice } from "../support/gpu.ts";
import { poisoned } from "../support/poison.ts";
import { LAYER_F32 } from "../support/tolerances.ts";

const device = await getDevice();
const fused = await requestGpu({ device, tuning: { fusedSelectMaxDim: 256, tile: "8x4" } });
const slabs = await requestGpu({ device, tuning: { fusedSelectMaxDim: 0, tile: "16x8" } });
const adapter = fused.info.description;
const cases = (await goldenCases("pom", "pom_rope")).map((entry) => ({ name: entry.name, entry }));
const states = (await goldenCases("pom_state")).map((entry) => ({ name: entry.name, entry }));

describe.each([
  { form: "small tiles, selection in one dispatch", on: fused, select: true },
  { form: "large tiles, selection over slabs", on: slabs, select: false },
])("golden vectors, $form", ({ on, select }) => {
  it.each(cases)("$name", async ({ entry }) => {
    const golden = await loadGolden(entry);
    const { shape, bias, params, args, expected, outputShape, blind } = pomGolden(golden);
    const { rotary = "none" } = shape;
    using layer = await PomLayer.create(on, { ...shape, rotary, bias }, params);
    using query = Tensor.from(on, args.query, [args.batch, args.queryLength, shape.dim]);
    using context = args.context && Tensor.from(on, args.context, [args.batch, args.contextLength, shape.dim]);
    const { positions, contextPositions } = args;
    const masks = [args.mask];
    if (args.mask && typeof args.mask === "object" && "blockCausal" in args.mask) masks.push({ full: fullMask(golden) });
    for (const mask of masks) {
      using out = poisoned(on, outputShape);
      expect(layer.forward(query, { context, mask, out, positions, contextPositions })).toBe(out);
      const y = await out.read();
      expectClose(y, expected, { relL2: LAYER_F32, what: `${entry.name} y`, adapter, shape: outputShape });
      for (const row of blind) {
        const zero = params["ag_proj.bias"] ?? new Float32Array(shape.dim);
        expect(y.slice(row * shape.dim, (row + 1) * shape.dim), `row ${row}, which sees nothing`).toEqual(zero);
      }
    }
    const { dispatches } = layer.plan({ batch: args.batch, queryLength: args.queryLength, contextLength: args.contextLength, mask: args.mask });
    const apart = rotary !== "none" || shape.nSelHeads > 1 || shape.nGroups > 1;
    const kernels = new Set(dispatches.map(({ kernel }) => kernel));
    expect([kernels.has("select"), kernels.has("apply_gates")]).toEqual([select && !apart, apart]);
  });

  it.each(states)("$name, counting calls", async ({ entry }) => {
    const { shape, bias, params, batch, calls } = pomStateGolden(await loadGolden(entry));
    const { dim } = shape;
    using layer = await PomLayer.create(on, { ...shape, rotary: "none", bias }, params);
    using state = layer.createState({ batch, counting: "calls" });
    for (const [i, call] of calls.entries()) {
      using context = Tensor.from(on, call.context, [batch, call.contextLength, dim]);
      using query = Tensor.from(on, call.query, [batch, call.queryLength, dim]);
      using out = poisoned(on, [batch, call.queryLength, dim]);
      layer.append(state, context);
      layer.query(state, query, { out });
      expect(state.count).toEqual(new Array(batch).fill(call.count));
      expectClose(await out.read(), call.expected, { relL2: LAYER_F32, what: `${entry.name}, call ${i}`, adapter });
    }
  });
});
