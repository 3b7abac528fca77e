import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Gpu, requestGpu, Tensor } from "../../src/index.ts";
import { checkConfig } from "../../src/layers/hom_config.ts";
import { DihSteps } from "../../src/models/dih_steps.ts";
import { Dih, type DihGradients } from "../../src/models/dih_trainable.ts";
import type { DihConfig } from "../../src/models/index.ts";
import { dihReference } from "../../src/reference/dih.ts";
import { dihBackward } from "../../src/reference/dih_backward.ts";
import { expectClose } from "../support/compare.ts";
import { dihConfigOf, dihParams, dihProblem } from "../support/dih.ts";
import { dihGolden, goldenCases, loadGolden } from "../support/golden.ts";
import { getDevice } from "../support/gpu.ts";
import { borrow, expectSameBits, normals32, poisonScratch } from "../support/hom.ts";
import { instrument } from "../support/instrument.ts";
import { GRADIENT_F32, LAYER_F32 } from "../support/tolerances.ts";

const device = await getDevice();
const watch = instrument(device);
afterAll(() => watch.restore());
const small = await requestGpu({ device, tuning: { tile: "8x4" } });
const large = await requestGpu({ device, tuning: { tile: "16x8" } });
const adapter = small.info.description;
const relL2 = GRADIENT_F32;

const KINDS = ["DiH", "DiH++", "DiH++ resized"] as const;
const SEEDS = [1, 2, 3, 4, 5, 6];
const golden = (await goldenCases("dih")).filter(({ grads }) => grads.length > 0).map((entry) => ({ name: entry.name, entry }));
const gpuOf = (seed: number) => (seed % 2 === 0 ? small : large);

// Software adapters take longer to compile some forty kernels than a test may.
beforeAll(async () => {
  for (const kind of KINDS) {
    for (const seed of SEEDS) {
      const { shape, args } = dihProblem(seed, kind);
      await prepare(gpuOf(seed), dihConfigOf(shape), args.batch, args.size, 0);
    }
  }
  const { shape, args } = dihGolden(await loadGolden(golden[0]!.entry));
  for (const gpu of [small, large]) await prepare(gpu, dihConfigOf(shape), args.batch, args.size, 4);
}, 300_000);

async function prepare(gpu: Gpu, config: DihConfig, batch: number, size: number, offset: number): Promise<void> {
  const { dim, order, orderExpand, patchSize } = config;
  const hom = checkConfig("test", { dim, order, orderExpand }, gpu);
  const { steps } = new DihSteps({ config, hom, gpu }, { batch, side: size / patchSize, image: offset, gradOut: offset });
  await Promise.all(steps.map(({ kernel, variant }) => gpu.prepare(kernel, variant)));
}

/** All gradients; their tensors are destroyed. */
async function read({ image, params }: DihGradients): Promise<Record<string, Float32Array>> {
  const values: Record<string, Float32Array> = {};
  for (const [name, tensor] of Object.entries({ "in.img": image, ...params })) {
    values[name] = await tensor.read();
    tensor.destroy();
  }
  return values;
}

describe.each([
  { form: "small tiles", gpu: small },
  { form: "large tiles", gpu: large },
])("golden gradients, $form", ({ gpu }) => {
  it("of one case", () => expect(golden.length).toBe(1));
  it.each(golden)("$name", async ({ entry }) => {
    const golden = await loadGolden(entry);
    const { shape, params, args, expected, outputShape } = dihGolden(golden);
    using model = await Dih.create(gpu, dihConfigOf(shape), params);
    const image = borrow(gpu, outputShape, 20, args.image as Float32Array<ArrayBuffer>);
    const gradOutput = borrow(gpu, outputShape, 12, golden.tensor("in.G").data as Float32Array<ArrayBuffer>);
    const { output, backward } = model.forwardForTraining(image.tensor, args.time, args.classes);
    expectClose(await output.read(), expected, { relL2: LAYER_F32, what: "y", adapter });
    output.destroy();
    const gradients = backward(gradOutput.tensor);
    expect(gradients.image.shape).toEqual(outputShape);
    for (const [key, { shape }] of Object.entries(gradients.params)) expect(shape, key).toEqual(golden.tensor(key).shape);
    const actual = await read(gradients);
    expect(Object.keys(actual).sort()).toEqual(entry.grads.map((key) => key.slice("grad.".length)).sort());
    for (const key of entry.grads) expectClose(actual[key.slice("grad.".length)]!, golden.tensor(key).data, { relL2, what: key, adapter });
    // A second time, on other scratch memory.
    poisonScratch(device, watch.live(/^hom\.scratch\./));
    const again = await read(backward(gradOutput.tensor));
    for (const [key, values] of Object.entries(actual)) expectSameBits(again[key]!, values, key);
    image.destroy();
    gradOutput.destroy();
  });
});

describe.each(KINDS)("gradients of a %s", (kind) => {
  it.each(SEEDS)("are its twin's, sizes of seed %d", async (seed) => {
    const { shape, params, args } = dihProblem(seed, kind);
    const { batch, size } = args;
    using model = await Dih.create(gpuOf(seed), dihConfigOf(shape), params);
    using image = Tensor.from(model.gpu, args.image, [batch, shape.channels, size, size]);
    using gradOutput = Tensor.from(model.gpu, args.gradOutput, image.shape);
    const [time, classes] = [[...args.time], [...args.classes]];
    const { output, backward } = model.forwardForTraining(image, time, classes);
    time.fill(0);
    classes.fill(0);
    const { gradOutput: _, ...forward } = args;
    expectClose(await output.read(), dihReference(shape, params, forward), { relL2: LAYER_F32, what: "y", adapter });
    output.destroy();
    const expected = dihBackward(shape, params, args);
    const actual = await read(backward(gradOutput));
    expect(Object.keys(actual).sort()).toEqual(["in.img", ...Object.keys(expected.params)].sort());
    for (const [key, values] of Object.entries({ "in.img": expected.image, ...expected.params })) {
      expectClose(actual[key]!, values, { relL2, what: key, adapter });
    }
  });
});

describe("a backward pass", () => {
  it.each([
    { dim: 16, side: 17, batch: 2, registers: undefined },
    { dim: 8, side: 4, batch: 66, registers: 3 },
  ])("of $batch images of $side x $side patches, registers $registers", async ({ dim, side, batch, registers }) => {
    const shape = { dim, order: 2, orderExpand: 1, ffwExpand: 2, layers: 1, channels: 3, patch: 1, registers, imageSize: side, classes: 5 };
    const params = dihParams(7, shape, { classes: 5, side });
    const image = normals32(1, batch * 3 * side * side);
    const gradOutput = normals32(2, image.length);
    const [time, classes] = [Array.from({ length: batch }, (_, b) => (b * 37) % 100), Array.from({ length: batch }, (_, b) => (b * b) % 6)];
    using model = await Dih.create(small, dihConfigOf(shape), params);
    using x = Tensor.from(small, image, [batch, 3, side, side]);
    using dy = Tensor.from(small, gradOutput, x.shape);
    const { output, backward } = model.forwardForTraining(x, time, classes);
    output.destroy();
    const expected = dihBackward(shape, params, { image, time, classes, batch, size: side, gradOutput });
    const actual = await read(backward(dy));
    for (const [key, values] of Object.entries({ "in.img": expected.image, ...expected.params })) {
      expectClose(actual[key]!, values, { relL2, what: key, adapter });
    }
  });

  it("refuses other gradients, and a destroyed model", async () => {
    const { shape, params, args } = dihProblem(1, "DiH++");
    const { batch, size } = args;
    using model = await Dih.create(small, dihConfigOf(shape), params);
    using image = Tensor.from(small, args.image, [batch, shape.channels, size, size]);
    using other = Tensor.from(small, args.image, [args.image.length]);
    const { output, backward } = model.forwardForTraining(image, args.time, args.classes);
    expect(() => backward(other)).toThrow(/backward: gradOutput must have shape/);
    expect(() => model.forwardForTraining(image, [], args.classes)).toThrow(/Dih.forwardForTraining: time must have/);
    output.destroy();
    model.destroy();
    expect(() => backward(image)).toThrow(/destroyed model/);
  });
});
