import { describe, expect, it } from "vitest";
import { requestGpu, Tensor, WeightsError } from "../../src/index.ts";
import { type PomConfig, PomLayer, type PomStateOptions } from "../../src/pom.ts";
import { expectClose } from "../support/compare.ts";
import { getDevice } from "../support/gpu.ts";
import { expectSameBits, normals32 } from "../support/hom.ts";
import { type PomLayerShape, pomExpected, pomParams } from "../support/pom.ts";
import { LAYER_F16, LAYER_I4, LAYER_I8 } from "../support/tolerances.ts";

const gpu = await requestGpu({ device: await getDevice(), tuning: { tile: "8x4" } });
const adapter = gpu.info.description;
const PLAIN: PomLayerShape = { dim: 8, degree: 2, expand: 1, nGroups: 1, nSelHeads: 1, rotary: "none" };
const TURNED: PomLayerShape = { ...PLAIN, rotary: "1d" };
const SQUARE: PomLayerShape = { ...PLAIN, rotary: "2d" };
const make = (shape: PomLayerShape, config: Partial<PomConfig> = {}) => PomLayer.create(gpu, { ...shape, ...config }, pomParams(1, shape, false));

describe("PomLayer.create refuses", () => {
  const configs: [string, object, RegExp][] = [
    ["no degree", { degree: undefined }, /degree must be a number, got undefined/],
    ["a degree of 0", { degree: 0 }, /degree must be an integer from 1 to 16, got 0/],
    ["a degree of 17", { degree: 17 }, /degree must be an integer from 1 to 16, got 17/],
    ["half an expand", { expand: 0.5 }, /expand must be an integer/],
    ["groups that do not divide the dim", { nGroups: 3 }, /nGroups must divide the dim 8, got 3/],
    ["heads that do not divide the channels", { nSelHeads: 3 }, /nSelHeads must divide the 8 channels, got 3/],
    ["odd heads with a rotation", { nSelHeads: 1, rotary: "1d", dim: 9, nGroups: 1 }, /must be a multiple of 2 for a 1d rotation, got 9/],
    ["2 heads with a 2-D rotation", { nSelHeads: 2, rotary: "2d" }, /nSelHeads must be a multiple of 4 for a 2d rotation, got 2/],
    ["an unknown rotation", { rotary: "3d" }, /rotary must be one of "none", "1d", "2d", got "3d"/],
    ["a base of 0", { rotaryBase: 0 }, /rotaryBase must be a finite number > 0, got 0/],
    ["one number of positions for two axes", { rotary: "2d", maxPositions: 9 }, /maxPositions must be \[rows, columns\]/],
    ["f16 of an odd width", { dim: 6, dtype: "f16" }, /dim must be a multiple of 4 for dtype "f16", got 6/],
    ["too little scratch", { scratchBudget: 10 }, /scratchBudget must be at least \d+ bytes/],
    ["unknown options", { order: 2 }, /unknown key "order"/],
  ];
  it.each(configs)("%s", async (_, config, message) => {
    await expect(PomLayer.create(gpu, { ...PLAIN, ...config } as PomConfig, pomParams(1, PLAIN, false))).rejects.toThrow(message);
  });

  const good = pomParams(1, PLAIN, false);
  const without = (key: string) => Object.fromEntries(Object.entries(good).filter(([name]) => name !== key));
  const params: [string, unknown, PomLayerShape, RegExp][] = [
    ["no parameters", null, PLAIN, /params must be an object/],
    ["a missing one", without("se_bias"), PLAIN, /must have a Float32Array "se_bias" of shape \[8\], got undefined/],
    ["one too many", { ...good, "po_proj.weight": new Float32Array(64) }, PLAIN, /must have only .*, got "po_proj.weight"/],
    ["a bias without bias", { ...good, "ag_proj.bias": new Float32Array(8) }, PLAIN, /got "ag_proj.bias"/],
    ["a short one", { ...good, po_coeff: new Float32Array(15) }, PLAIN, /params\["po_coeff"\] must have 16 elements \(\[8, 2\]\), got 15/],
    ["NaN", { ...good, po_coeff: good["po_coeff"]!.with(3, Number.NaN) }, PLAIN, /"po_coeff"\] must be finite, got NaN at element 3/],
    ["tables of another width", { ...good, freqs_cos: new Float32Array(9), freqs_sin: new Float32Array(9) }, TURNED, /rows of 4 elements, got 9/],
    ["half of the tables", { ...good, freqs_cos: new Float32Array(8) }, TURNED, /"freqs_sin" of shape \[2, 4\], got undefined/],
  ];
  it.each(params)("%s", async (_, given, shape, message) => {
    const call = PomLayer.create(gpu, shape, given as Record<string, Float32Array>);
    await expect(call).rejects.toThrow(message);
    if (given !== null) await expect(PomLayer.create(gpu, shape, given as Record<string, Float32Array>)).rejects.toBeInstanceOf(WeightsError);
  });
});

describe("calls refused", async () => {
  const plain = await make(PLAIN);
  const turned = await make(TURNED, { maxPositions: 10 });
  const square = await make(SQUARE, { maxPositions: [4, 6] });
  const x = Tensor.from(gpu, normals32(1, 2 * 3 * 8), [2, 3, 8]);
  const state = turned.createState({ batch: 2 });
  const calls: [string, () => unknown, RegExp][] = [
    ["positions without a rotation", () => plain.forward(x, { positions: Uint32Array.of(1, 2, 3) }), /positions must be absent/],
    ["an array of numbers", () => turned.forward(x, { positions: [1, 2, 3] as never }), /positions must be a Uint32Array or an Int32Array/],
    ["too few positions", () => turned.forward(x, { positions: Uint32Array.of(1, 2) }), /have 3 \(\[3\]\) or 6 \(\[2, 3\]\) elements, got 2/],
    ["a position past the table", () => turned.forward(x, { positions: Uint32Array.of(1, 2, 10) }), /positions\[2\] must be from 0 to 9, got 10/],
    ["a negative position", () => turned.forward(x, { positions: Int32Array.of(1, -2, 3) }), /positions\[1\] must be from 0 to 9, got -2/],
    ["no positions on two axes", () => square.forward(x), /positions must be given for a 2d rotation/],
    [
      "a column past the table",
      () => square.forward(x, { positions: Uint32Array.of(3, 5, 0, 0, 0, 6) }),
      /positions\[5\] must be from 0 to 5, got 6/,
    ],
    [
      "causal with another context",
      () => plain.forward(x, { context: Tensor.from(gpu, new Float32Array(32), [2, 2, 8]), mask: "causal" }),
      /equally long/,
    ],
    ["a queryMask", () => plain.forward(x, { queryMask: new Uint8Array(6) } as never), /unknown key "queryMask"/],
    ["another layer's state", () => plain.append({} as never, x), /state must be a PomState/],
    ["a shift of a plain state", () => plain.createState().shift(1), /be of a layer with a rotation/],
    ["a shift along two axes of one", () => state.shift([1, 2]), /delta must be one number/],
    ["half a shift", () => state.shift(0.5), /delta must be an integer/],
    ["a window of a rotation", () => turned.createState({ window: 3 }), /window must be absent/],
    ["unknown counting", () => plain.createState({ counting: "chunks" } as unknown as PomStateOptions), /counting must be one of/],
    ["steps of a chunk that count calls", () => plain.step(plain.createState({ batch: 2, counting: "calls" }), x), /have one token a row/],
    ["states that count otherwise", () => plain.createState().merge(plain.createState({ counting: "calls" })), /counting must be the layer's tokens/],
    [
      "positions of a query past the table",
      () => turned.query(state, x, { positions: Uint32Array.of(0, 0, 11) }),
      /positions\[2\] must be from 0 to 9/,
    ],
  ];
  it.each(calls)("%s", (_, call, message) => {
    expect(call).toThrow(message);
    expect([state.count, state.next]).toEqual([
      [0, 0],
      [0, 0],
    ]);
  });

  it("leave the layers usable", async () => {
    using y = turned.forward(x);
    const expected = pomExpected(TURNED, pomParams(1, TURNED, false), { query: normals32(1, 48), batch: 2, queryLength: 3 });
    expectClose(await y.read(), expected, { relL2: 2e-6, what: "y", adapter });
  });
});

describe("storage", () => {
  const shapes: PomLayerShape[] = [
    { dim: 36, degree: 3, expand: 2, nGroups: 1, nSelHeads: 1, rotary: "none" },
    { dim: 32, degree: 2, expand: 2, nGroups: 4, nSelHeads: 8, rotary: "none" },
    { dim: 16, degree: 2, expand: 2, nGroups: 1, nSelHeads: 4, rotary: "2d" },
  ];
  const [batch, n] = [2, 50];
  const positions = Uint32Array.from({ length: 2 * n }, (_, i) => i % 50);
  it.each(
    shapes.flatMap((shape) =>
      (["f16", "i8", "i4"] as const).flatMap((weightDtype) => (["f32", "f16"] as const).map((dtype) => ({ shape, weightDtype, dtype }))),
    ),
  )("weights in $weightDtype, tensors in $dtype, $shape.rotary", async ({ shape, weightDtype, dtype }) => {
    const params = pomParams(3, shape, true);
    using layer = await PomLayer.create(gpu, { ...shape, bias: true, weightDtype, dtype }, params);
    using whole = await PomLayer.create(gpu, { ...shape, bias: true }, params);
    const data = normals32(4, batch * n * shape.dim);
    const at = shape.rotary === "2d" ? { positions } : {};
    const expected = pomExpected(shape, params, { query: data, mask: "causal", batch, queryLength: n, ...at });
    using x = Tensor.from(gpu, data, [batch, n, shape.dim], { dtype });
    using y = layer.forward(x, { mask: "causal", ...at });
    expect(y.dtype).toBe(dtype);
    const relL2 = { f16: LAYER_F16, i8: LAYER_I8, i4: LAYER_I4 }[weightDtype];
    expectClose(await y.read(), expected, { relL2, what: "y", adapter });
    expect(layer.weightBytes).toBeLessThan(whole.weightBytes);
    using state = layer.createState({ batch });
    using stepped = layer.step(state, x, at);
    expectClose(await stepped.read(), expected, { relL2, what: "steps", adapter });
  });
});

describe("encode", () => {
  it("records into the caller's encoder, and gives the bits of forward", async () => {
    using layer = await make(TURNED);
    using x = Tensor.from(gpu, normals32(5, 40), [1, 5, 8]);
    using y = layer.forward(x, { mask: "causal" });
    const encoder = gpu.device.createCommandEncoder();
    using z = layer.encode(encoder, { query: x, mask: "causal", positions: Uint32Array.of(0, 1, 2, 3, 4) });
    gpu.device.queue.submit([encoder.finish()]);
    expectSameBits(await z.read(), await y.read(), "encode");
    const report = layer.plan({ batch: 1, queryLength: 1000, mask: "causal" });
    expect(report.dispatches.map(({ kernel }) => kernel)).toEqual(["prefix_moments", "scan_moments", "linear", "apply_gates", "linear"]);
    expect(report.scratchBytes).toBeGreaterThan(0);
  });
});
