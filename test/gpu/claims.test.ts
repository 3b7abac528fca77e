import { afterAll, beforeEach, describe, expect, it } from "vitest";
import { type Gpu, HomLayer, type HomParams, type MaskSpec, requestGpu, Tensor } from "../../src/index.ts";
import { expectClose } from "../support/compare.ts";
import { createDevice, getDevice } from "../support/gpu.ts";
import { expectSameBits, layerParams, normals32, reference } from "../support/hom.ts";
import { type Instrument, instrument } from "../support/instrument.ts";
import { poisoned } from "../support/poison.ts";
import { LAYER_F32 } from "../support/tolerances.ts";

const MAP_READ = 0x1;
const MIB = 1 << 20;
/** The tile that compiles quickly everywhere. */
const QUICK = { tile: "8x4" } as const;
const device = await getDevice();
const watch = instrument(device);
afterAll(() => watch.restore());
beforeEach(() => watch.reset());

const slabs = await requestGpu({ device, tuning: { ...QUICK, fusedSelectMaxDim: 0 } });
const fused = await requestGpu({ device, tuning: { ...QUICK, fusedSelectMaxDim: 256 } });
const adapter = slabs.info.description;
const FORMS = [
  { form: "slabs", gpu: slabs, selection: ["gate", "linear"] },
  { form: "fused", gpu: fused, selection: ["select"] },
];

const shape = { dim: 12, order: 2, orderExpand: 2 };
const { dim } = shape;
const params: HomParams = layerParams(1, shape);
const randomTensor = (gpu: Gpu, seed: number, batch: number, tokens: number): Tensor =>
  Tensor.from(gpu, normals32(seed, batch * tokens * dim), [batch, tokens, dim]);

const ones = (size: number): Uint8Array => new Uint8Array(size).fill(1);
/** Every mask for 2 rows of n tokens, or one of 2n. */
const masksFor = (n: number): { name: string; mask: MaskSpec | undefined; packed?: boolean }[] => [
  { name: "none", mask: undefined },
  { name: "padding", mask: { padding: ones(2 * n) } },
  { name: "lengths", mask: { lengths: Uint32Array.of(n, 7) } },
  { name: "full", mask: { full: ones(2 * n * n) } },
  { name: "causal", mask: "causal" },
  { name: "blockCausal 4", mask: { blockCausal: 4 } },
  { name: "blockCausal 5", mask: { blockCausal: 5 } },
  { name: "cuSeqlens", mask: { cuSeqlens: Uint32Array.of(0, 8, 8, 2 * n) }, packed: true },
];
const MASKS = masksFor(130);

describe.each(FORMS)("dispatches, $form", ({ gpu, selection }) => {
  it("an unmasked forward is moments, merge_moments and the selection: one submit, nothing read, copied or written", async () => {
    using layer = await HomLayer.create(gpu, shape, params);
    using x = randomTensor(gpu, 2, 3, 1000);
    using out = poisoned(gpu, x.shape);
    layer.forward(x, { out });
    for (const time of ["first", "second"]) {
      watch.reset();
      layer.forward(x, { out });
      expect(
        watch.dispatches.map(({ kernel }) => kernel),
        time,
      ).toEqual(["moments", "merge_moments", ...selection]);
      const { submits, passes, maps, copies, clears, bytesWritten, bytesMappedAtCreation } = watch;
      expect({ submits, passes, maps, copies, clears, bytesWritten, bytesMappedAtCreation }).toEqual({
        submits: 1,
        passes: 1,
        maps: 0,
        copies: 0,
        clears: 0,
        bytesWritten: 0,
        bytesMappedAtCreation: 0,
      });
      expect(watch.count("createBuffer") + watch.count("createBindGroup"), "objects that a repeated call makes").toBe(0);
    }
  });

  it("a call makes its output and what its mask uploads, nothing that can be mapped", async () => {
    using layer = await HomLayer.create(gpu, shape, params);
    using x = randomTensor(gpu, 2, 2, 130);
    layer.forward(x, { mask: { padding: ones(260) } }).destroy();
    watch.reset();
    using y = layer.forward(x, { mask: { padding: ones(260) } });
    expect(
      watch.created
        .filter(({ method }) => method === "createBuffer")
        .map(({ label }) => label)
        .sort(),
    ).toEqual(["hom.mask.divisors", "hom.mask.mask", "hom.output"]);
    expect(watch.live(/mask/), "mask buffers after the call").toEqual([]);
    expect(y.buffer.usage & MAP_READ).toBe(0);
    expect(watch.buffers.filter(({ usage, destroyed }) => !destroyed && (usage & MAP_READ) !== 0)).toEqual([]);
  });

  it.each(MASKS)("plan() lists what is dispatched: $name", async ({ mask, packed }) => {
    for (const scratchBudget of [64 * MIB, 1 << 16]) {
      using layer = await HomLayer.create(gpu, { ...shape, scratchBudget }, params);
      const [batch, tokens] = packed ? [1, 260] : [2, 130];
      using x = randomTensor(gpu, 3, batch, tokens);
      watch.reset();
      layer.forward(x, { mask }).destroy();
      const dispatches = layer.plan({ batch, queryLength: tokens, mask }).dispatches.map(({ kernel, workgroups }) => ({ kernel, workgroups }));
      expect(watch.dispatches.map(({ kernel, workgroups }) => ({ kernel, workgroups }))).toEqual(dispatches);
      expect(watch.submits).toBe(1);
    }
  });
});

describe("compilation", () => {
  it.each([
    { tuning: { tile: "8x4", fusedSelectMaxDim: 0 } as const, dtype: "f32" as const },
    { tuning: { tile: "8x4", fusedSelectMaxDim: 256 } as const, dtype: "f32" as const },
    { tuning: { tile: "8x4", fusedSelectMaxDim: 0 } as const, dtype: "f16" as const },
    { tuning: { tile: "16x8", fusedSelectMaxDim: 0 } as const, dtype: "f32" as const },
  ])("create() compiles what unmasked and causal calls and steps use: $tuning $dtype", async ({ tuning, dtype }) => {
    const own = await createDevice();
    const seen = instrument(own);
    const gpu = await requestGpu({ device: own, tuning });
    using layer = await HomLayer.create(gpu, { ...shape, dtype }, params);
    expect(seen.count("createComputePipeline"), "compiled while somebody waits").toBe(0);
    expect(seen.count("createComputePipelineAsync")).toBeGreaterThan(3);
    const compiled = seen.count("createShaderModule");
    for (const tokens of [1, 130]) {
      using x = Tensor.from(gpu, normals32(1, 2 * tokens * dim), [2, tokens, dim], { dtype });
      using y = layer.forward(x);
      using z = layer.forward(x, { mask: "causal" });
      using w = layer.forward(x, { mask: { lengths: Uint32Array.of(1, tokens) } });
      await Promise.all([y.read(), z.read(), w.read()]);
    }
    using one = Tensor.from(gpu, normals32(1, dim), [1, 1, dim], { dtype });
    using state = layer.createState({ batch: 1 });
    layer.step(state, one).destroy();
    expect(seen.created.filter(({ method }) => method === "createComputePipeline")).toEqual([]);
    expect(seen.count("createShaderModule")).toBe(compiled);
    gpu.destroy();
    own.destroy();
  });
});

describe("memory", () => {
  const [short, long] = [1000, 200_000];
  // Narrow, so that 200,000 tokens are quick.
  const narrow = { dim: 4, order: 2, orderExpand: 1 };
  const narrowParams = layerParams(4, narrow);
  const momentBytes = 2 * 4 * 4;
  const scratchOf = (w: Instrument) => w.live(/^hom\.scratch\./).reduce((sum, { size }) => sum + size, 0);

  /** Scratch that a fresh device holds after one call, and the largest buffer that the call made. */
  async function run(length: number, mask: MaskSpec | undefined, scratchBudget: number, options: { queries?: number; fused?: boolean } = {}) {
    const { queries = length, fused: isFused = false } = options;
    const own = await requestGpu({ device, tuning: { ...QUICK, fusedSelectMaxDim: isFused ? 256 : 0 } });
    using layer = await HomLayer.create(own, { ...narrow, scratchBudget }, narrowParams);
    const { gpu } = layer;
    using context = Tensor.wrap(gpu, longContext.buffer, [1, length, narrow.dim]);
    using query = Tensor.wrap(gpu, longContext.buffer, [1, queries, narrow.dim]);
    const before = watch.buffers.length;
    const held = scratchOf(watch);
    layer.forward(query, { context, mask }).destroy();
    const made = watch.buffers.slice(before).filter(({ label }) => label !== "hom.output" && !label.startsWith("hom.mask."));
    const scratch = scratchOf(watch) - held;
    const planned = layer.plan({ batch: 1, queryLength: queries, contextLength: length, mask }).scratchBytes;
    gpu.destroy();
    expect(scratchOf(watch), "scratch after destroy()").toBe(held);
    return { scratch, planned, largest: Math.max(...made.map(({ size }) => size)) };
  }
  const longContext = Tensor.from(slabs, normals32(4, long * narrow.dim), [1, long, narrow.dim]);

  const means: { name: string; mask: (n: number) => MaskSpec | undefined }[] = [
    { name: "none", mask: () => undefined },
    { name: "padding", mask: (n) => ({ padding: ones(n) }) },
    { name: "lengths", mask: (n) => ({ lengths: Uint32Array.of(n) }) },
  ];
  it.each(means)("$name: partial sums only, and no more for 200,000 tokens than the budget", async ({ mask }) => {
    // One row of sums for every block of tokens, as far as the budget goes.
    const free = await run(long, mask(long), 64 * MIB, { fused: true });
    expect(free.largest).toBeLessThan((long * momentBytes) / 16);
    expect(free.scratch).toBeLessThan((long * momentBytes) / 16);
    const budget = 1 << 14;
    const few = { queries: 5, fused: true };
    const [a, b] = [await run(50_000, mask(50_000), budget, few), await run(long, mask(long), budget, few)];
    expect(b.planned).toBe(a.planned);
    expect(b.scratch).toBe(a.scratch);
    expect(b.scratch).toBeLessThanOrEqual(budget);
    const tiny = await run(short, mask(short), budget, few);
    expect(tiny.scratch).toBeLessThanOrEqual(a.scratch);
  });

  const masked: { name: string; mask: (n: number) => MaskSpec }[] = [
    { name: "causal", mask: () => "causal" },
    { name: "blockCausal 8", mask: () => ({ blockCausal: 8 }) },
    { name: "blockCausal 100", mask: () => ({ blockCausal: 100 }) },
    { name: "cuSeqlens", mask: (n) => ({ cuSeqlens: Uint32Array.of(0, n / 2, n) }) },
  ];
  it.each(masked)("$name: scratch within the budget for any length, no row of moments for every token", async ({ mask }) => {
    for (const budget of [1 << 17, 64 * MIB]) {
      const { scratch, planned, largest } = await run(long, mask(long), budget);
      expect(planned).toBeLessThanOrEqual(budget);
      expect(scratch).toBeLessThanOrEqual(budget);
      if (budget < long * momentBytes) expect(largest).toBeLessThan((long * momentBytes) / 16);
    }
  });

  it("a full mask: scratch within the budget", async () => {
    const n = 2000;
    for (const budget of [1 << 15, MIB]) {
      const { scratch, planned } = await run(n, { full: ones(n * n) }, budget);
      expect(planned).toBeLessThanOrEqual(budget);
      expect(scratch).toBeLessThanOrEqual(budget);
    }
  });

  it("200 rounds of create, forward, read, destroy leave nothing behind and compile once", async () => {
    const gpu = slabs;
    const data = normals32(5, 2 * 9 * dim);
    const masks = masksFor(9);
    const round = async (i: number) => {
      const { mask, packed } = masks[i % masks.length]!;
      using layer = await HomLayer.create(gpu, shape, params);
      using x = Tensor.from(gpu, data, packed ? [1, 18, dim] : [2, 9, dim]);
      using y = layer.forward(x, { mask });
      using prepared = layer.createMask({ lengths: Uint32Array.of(3, 4) }, { batch: 2, queryLength: 9 });
      using z = packed ? undefined : layer.forward(x, { mask: prepared });
      if (i % 10 === 0) {
        await y.read();
        await z?.read();
      }
    };
    for (let i = 0; i < MASKS.length; i++) await round(i);
    watch.reset();
    const [buffers, bytes] = [watch.liveBuffers, watch.liveBytes];
    for (let i = 0; i < 200; i++) await round(i);
    expect(watch.liveBuffers).toBe(buffers);
    expect(watch.liveBytes).toBe(bytes);
    const compiled = ["createShaderModule", "createComputePipeline", "createComputePipelineAsync"].map((method) => watch.count(method));
    expect(compiled).toEqual([0, 0, 0]);
    expect(watch.peakBytes - bytes, "the most that one round held").toBeLessThan(MIB);
  });

  it("a refused call leaves nothing behind", async () => {
    using layer = await HomLayer.create(slabs, shape, params);
    using x = randomTensor(slabs, 6, 2, 130);
    const buffers = watch.liveBuffers;
    expect(() => layer.forward(x, { mask: { padding: ones(3) } })).toThrow(RangeError);
    expect(() => Tensor.from(slabs, new Float32Array(3), [4])).toThrow(RangeError);
    await expect(HomLayer.create(slabs, shape, { ...params, "ag_proj.bias": new Float32Array(dim).fill(Number.NaN) })).rejects.toThrow(/finite/);
    expect(watch.liveBuffers).toBe(buffers);
    expect(watch.submits).toBe(0);
  });
});

describe("labels", () => {
  it("every object is labelled hom.*", async () => {
    const own = await createDevice();
    const seen = instrument(own);
    const gpu = await requestGpu({ device: own, tuning: QUICK });
    using layer = await HomLayer.create(gpu, shape, params);
    for (const { mask, packed } of MASKS) {
      using x = randomTensor(gpu, 7, packed ? 1 : 2, packed ? 260 : 130);
      using y = layer.forward(x, { mask });
      await y.read();
    }
    using prepared = layer.createMask({ lengths: Uint32Array.of(3) }, { batch: 1, queryLength: 9 });
    const encoder = own.createCommandEncoder({ label: "hom.test.encoder" });
    using x = randomTensor(gpu, 7, 1, 9);
    layer.encode(encoder, { query: x, mask: prepared });
    own.queue.submit([encoder.finish({ label: "hom.test.commands" })]);
    const unlabelled = seen.created.filter(({ label }) => !/^hom\.[\w/.]+$/.test(label));
    expect([...new Set(unlabelled.map(({ method, label }) => `${method} "${label}"`))]).toEqual([]);
    expect(new Set(seen.created.map(({ method }) => method)).size).toBeGreaterThan(7);
    gpu.destroy();
    own.destroy();
  });
});

describe("who owns the device", () => {
  it("a device brought along lives on after gpu.destroy()", async () => {
    const own = await createDevice();
    const seen = instrument(own);
    const gpu = await requestGpu({ device: own, tuning: QUICK });
    using layer = await HomLayer.create(gpu, shape, params);
    using x = randomTensor(gpu, 8, 1, 9);
    await layer.forward(x).read();
    expect(seen.live(/^hom\.(scratch|empty)/).length).toBeGreaterThan(1);
    gpu.destroy();
    gpu.destroy();
    expect(seen.deviceDestroyed).toBe(false);
    expect(seen.live(/^hom\.(scratch|empty)/)).toEqual([]);
    const again = await requestGpu({ device: own, tuning: QUICK });
    using second = await HomLayer.create(again, shape, params);
    using y = second.forward(randomTensor(again, 8, 1, 9));
    expect((await y.read()).length).toBe(9 * dim);
    again.destroy();
    own.destroy();
  });

  it("a device that was requested here is destroyed with its Gpu", async () => {
    const gpu = await requestGpu();
    const seen = instrument(gpu.device);
    gpu.destroy();
    expect(seen.deviceDestroyed).toBe(true);
    expect((await gpu.lost).reason).toBe("destroyed");
  });

  it("several Gpus of a device share what is compiled", async () => {
    await HomLayer.create(slabs, shape, params).then((layer) => layer.destroy());
    watch.reset();
    const other = await requestGpu({ device, tuning: { ...QUICK, fusedSelectMaxDim: 0 } });
    using layer = await HomLayer.create(other, shape, params);
    expect(watch.count("createShaderModule")).toBe(0);
    expect(layer.gpu).toBe(other);
    other.destroy();
  });
});

describe("encode", () => {
  const other = { dim, order: 3, orderExpand: 1, activation: "tanh" } as const;
  const otherParams = layerParams(9, other);

  it.each(FORMS)("records only, between the caller's own commands ($form)", async ({ gpu }) => {
    using first = await HomLayer.create(gpu, shape, params);
    using second = await HomLayer.create(gpu, other, otherParams);
    const data = normals32(10, 2 * 70 * dim);
    using x = Tensor.from(gpu, new Float32Array(data.length), [2, 70, dim]);
    using source = Tensor.from(gpu, data, x.shape);
    using out = poisoned(gpu, x.shape);
    using copy = poisoned(gpu, x.shape);
    const encoder = device.createCommandEncoder({ label: "test.encoder" });
    watch.reset();
    encoder.copyBufferToBuffer(source.buffer, 0, x.buffer, 0, data.byteLength);
    encoder.beginComputePass().end();
    // A chain of two layers, then the first one again on the other mask: all share scratch memory.
    using middle = first.encode(encoder, { query: x, mask: "causal" });
    expect(second.encode(encoder, { query: middle, context: x, out, residual: x, mask: { lengths: Uint32Array.of(70, 33) } })).toBe(out);
    using last = first.encode(encoder, { query: out });
    encoder.beginComputePass().end();
    encoder.copyBufferToBuffer(out.buffer, 0, copy.buffer, 0, data.byteLength);
    expect(watch.submits).toBe(0);
    device.queue.submit([encoder.finish()]);

    const sizes = { batch: 2, queryLength: 70 };
    const y1 = Float32Array.from(reference(shape, params as Record<string, Float32Array>, { query: data, mask: "causal", ...sizes }));
    const lengths = { lengths: Uint32Array.of(70, 33) };
    const y2 = reference(other, otherParams, { query: y1, context: data, contextLength: 70, mask: lengths, ...sizes }).map((v, i) => v + data[i]!);
    const y3 = reference(shape, params as Record<string, Float32Array>, { query: Float32Array.from(y2), ...sizes });
    expectClose(await middle.read(), y1, { relL2: LAYER_F32, what: "first layer", adapter });
    expectClose(await out.read(), y2, { relL2: LAYER_F32, what: "second layer", adapter });
    expectSameBits(await copy.read(), await out.read(), "the caller's copy");
    expectClose(await last.read(), y3, { relL2: LAYER_F32, what: "third layer", adapter });
  });

  it("gives the same bits as forward, for every mask", async () => {
    using layer = await HomLayer.create(slabs, shape, params);
    for (const { name, mask, packed } of MASKS) {
      using x = randomTensor(slabs, 11, packed ? 1 : 2, packed ? 260 : 130);
      using expected = layer.forward(x, { mask });
      const encoder = device.createCommandEncoder();
      using actual = layer.encode(encoder, { query: x, mask });
      // A call in between uses the same scratch and the same programs, and may drop them.
      layer.forward(x, { mask }).destroy();
      device.queue.submit([encoder.finish()]);
      expectSameBits(await actual.read(), await expected.read(), name);
    }
  });

  it("survives the layer's later calls: 40 other lengths between encode and submit", async () => {
    using layer = await HomLayer.create(slabs, shape, params);
    using x = randomTensor(slabs, 12, 1, 60);
    using expected = layer.forward(x, { mask: "causal" });
    const encoder = device.createCommandEncoder();
    using actual = layer.encode(encoder, { query: x, mask: "causal" });
    for (let tokens = 1; tokens <= 40; tokens++) {
      using other = randomTensor(slabs, 13, 1, tokens);
      layer.forward(other, { mask: "causal" }).destroy();
    }
    device.queue.submit([encoder.finish()]);
    expectSameBits(await actual.read(), await expected.read(), "causal");
  });
});

describe("HomMask", () => {
  it.each(MASKS.filter(({ mask }) => mask !== undefined))("$name: uploaded once, used by calls and layers", async ({ mask, packed }) => {
    using first = await HomLayer.create(slabs, shape, params);
    using second = await HomLayer.create(slabs, { dim, order: 3, orderExpand: 1 }, layerParams(9, { dim, order: 3, orderExpand: 1 }));
    const [batch, tokens] = packed ? [1, 260] : [2, 130];
    using x = randomTensor(slabs, 14, batch, tokens);
    using prepared = first.createMask(mask!, { batch, queryLength: tokens });
    for (const layer of [first, second]) {
      using expected = layer.forward(x, { mask });
      using once = layer.forward(x, { mask: prepared });
      watch.reset();
      using twice = layer.forward(x, { mask: prepared });
      const uploads = watch.created.filter(({ method, label }) => method === "createBuffer" && label.startsWith("hom.mask"));
      expect(uploads).toEqual([]);
      const [a, b, c] = [await expected.read(), await once.read(), await twice.read()];
      expectSameBits(b, a, "prepared mask");
      expectSameBits(c, a, "prepared mask, again");
    }
  });

  it("is not destroyed by the layer that made it", async () => {
    const layer = await HomLayer.create(slabs, shape, params);
    using prepared = layer.createMask({ lengths: Uint32Array.of(5, 7) }, { batch: 2, queryLength: 9 });
    layer.destroy();
    using second = await HomLayer.create(slabs, shape, params);
    using x = randomTensor(slabs, 15, 2, 9);
    using y = second.forward(x, { mask: prepared });
    using z = second.forward(x, { mask: { lengths: Uint32Array.of(5, 7) } });
    expectSameBits(await y.read(), await z.read(), "lengths");
  });
});

describe("out", () => {
  it("is written and returned, with no other output made; the same out serves many calls", async () => {
    using layer = await HomLayer.create(slabs, shape, params);
    using x = randomTensor(slabs, 16, 2, 130);
    using out = poisoned(slabs, x.shape);
    using expected = layer.forward(x);
    layer.forward(x, { out });
    watch.reset();
    for (let i = 0; i < 3; i++) expect(layer.forward(x, { out })).toBe(out);
    expect(watch.count("createBuffer")).toBe(0);
    expectSameBits(await out.read(), await expected.read(), "out");
  });

  it("read() gives what the call before it computed, even where the tensor is destroyed or overwritten at once", async () => {
    using layer = await HomLayer.create(slabs, shape, params);
    using x = randomTensor(slabs, 17, 1, 33);
    using z = randomTensor(slabs, 18, 1, 33);
    using out = poisoned(slabs, x.shape);
    const first = layer.forward(x, { out }).read();
    const second = layer.forward(z, { out }).read();
    const y = layer.forward(x);
    const third = y.read();
    y.destroy();
    expectSameBits(await first, await third, "read, then destroyed");
    expect([...(await second)]).not.toEqual([...(await first)]);
  });
});
