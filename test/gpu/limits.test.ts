import { afterAll, beforeEach, describe, expect, it } from "vitest";
import { type Gpu, type GpuLimits, HomLayer, type MaskSpec, requestGpu, Tensor } from "../../src/index.ts";
import { LinearLayer } from "../../src/layers/linear.ts";
import { linear } from "../../src/reference/linear.ts";
import { expectClose } from "../support/compare.ts";
import { getDevice } from "../support/gpu.ts";
import { borrow, layerParams, normals32, reference } from "../support/hom.ts";
import { instrument } from "../support/instrument.ts";
import { poisoned } from "../support/poison.ts";
import { LAYER_F32 } from "../support/tolerances.ts";

const device = await getDevice();
const watch = instrument(device);
afterAll(() => watch.restore());
beforeEach(() => watch.reset());

/** A Gpu that believes its device to be smaller than it is: long inputs are not needed to reach a limit. */
async function smallGpu(limits: Partial<GpuLimits>, fusedSelectMaxDim: number): Promise<Gpu> {
  const gpu = await requestGpu({ device, tuning: { blockTokens: 8, prefixBlockTokens: 8, fusedSelectMaxDim } });
  Object.defineProperty(gpu, "limits", { value: { ...gpu.limits, ...limits } });
  return gpu;
}

const adapter = (await requestGpu({ device })).info.description;
const shape = { dim: 12, order: 2, orderExpand: 1 };
const params = layerParams(1, shape);
/** Room for the weights, and so for 52 tokens of width 12 or 26 rows of moments at once. */
const SMALL_BINDING = 256 + 2496;

const uneven = (size: number): Float32Array => Float32Array.from(normals32(3, size), (value) => (Math.abs(value) < 0.3 ? 0 : Math.abs(value)));

interface Problem {
  readonly name: string;
  readonly batch: number;
  readonly queries: number;
  readonly tokens: number;
  readonly mask: MaskSpec | undefined;
}

const problems: Problem[] = [
  { name: "one long row", batch: 1, queries: 3, tokens: 1000, mask: undefined },
  { name: "many queries", batch: 3, queries: 257, tokens: 7, mask: undefined },
  { name: "many short rows", batch: 65, queries: 1, tokens: 5, mask: undefined },
  { name: "padding, a long row", batch: 2, queries: 2, tokens: 257, mask: { padding: uneven(514) } },
  { name: "padding, short rows", batch: 13, queries: 2, tokens: 9, mask: { padding: uneven(117) } },
  { name: "lengths", batch: 3, queries: 5, tokens: 257, mask: { lengths: Uint32Array.of(257, 0, 129) } },
  { name: "causal, a long row", batch: 2, queries: 257, tokens: 257, mask: "causal" },
  { name: "causal, short rows", batch: 33, queries: 7, tokens: 7, mask: "causal" },
  { name: "blockCausal 4", batch: 2, queries: 129, tokens: 129, mask: { blockCausal: 4 } },
  { name: "blockCausal 5", batch: 2, queries: 129, tokens: 129, mask: { blockCausal: 5 } },
  { name: "blockCausal 100, more than a binding and a short last block", batch: 2, queries: 257, tokens: 257, mask: { blockCausal: 100 } },
  { name: "full", batch: 2, queries: 65, tokens: 129, mask: { full: uneven(2 * 65 * 129) } },
  { name: "full for all rows", batch: 2, queries: 65, tokens: 129, mask: { full: uneven(65 * 129) } },
  { name: "cuSeqlens", batch: 1, queries: 400, tokens: 400, mask: { cuSeqlens: Uint32Array.of(0, 1, 1, 10, 30, 250, 260, 400, 400) } },
];

async function solve(gpu: Gpu, { name, batch, queries, tokens, mask }: Problem): Promise<void> {
  using layer = await HomLayer.create(gpu, shape, params);
  const xq = normals32(4, batch * queries * shape.dim);
  const xc = queries === tokens ? xq : normals32(5, batch * tokens * shape.dim);
  using query = Tensor.from(gpu, xq, [batch, queries, shape.dim]);
  using context = xc === xq ? undefined : Tensor.from(gpu, xc, [batch, tokens, shape.dim]);
  using residual = Tensor.from(gpu, xq, query.shape);
  using out = poisoned(gpu, query.shape);
  layer.forward(query, { context, mask, residual, out });
  const expected = reference(shape, params, { query: xq, context: xc, mask, batch, queryLength: queries, contextLength: tokens });
  const sum = expected.map((value, i) => value + xq[i]!);
  expectClose(await out.read(), sum, { relL2: LAYER_F32, what: name, adapter, shape: query.shape });
  const planned = layer.plan({ batch, queryLength: queries, contextLength: tokens, mask });
  expect(planned.dispatches.map(({ kernel, workgroups }) => [kernel, ...workgroups])).toEqual(
    watch.dispatches.map(({ kernel, workgroups }) => [kernel, ...workgroups]),
  );
  // Each dispatch reads and writes something, and together they do what the call does.
  for (const key of ["bytesRead", "bytesWritten"] as const) {
    expect(Math.min(...planned.dispatches.map((dispatch) => dispatch[key]))).toBeGreaterThan(0);
    expect(planned.dispatches.reduce((sum, dispatch) => sum + dispatch[key], 0)).toBe(planned[key]);
  }
}

describe.each([0, 256])("bindings of 2.7 KB, selection fused up to %d", (fused) => {
  it.each(problems)("$name", async (problem) => {
    await solve(await smallGpu({ maxStorageBufferBindingSize: SMALL_BINDING }, fused), problem);
    const sizes = watch.dispatches.flatMap(({ bindings }) => bindings);
    expect(Math.max(...sizes)).toBeLessThanOrEqual(SMALL_BINDING);
    expect(watch.dispatches.length).toBeGreaterThan(4);
  });
});

describe.each([0, 256])("2 workgroups a dimension, selection fused up to %d", (fused) => {
  const wide: Problem = { name: "full, 257 x 257", batch: 1, queries: 257, tokens: 257, mask: { full: uneven(257 * 257) } };
  it.each([...problems.filter(({ name }) => !name.startsWith("full")), wide])("$name", async (problem) => {
    await solve(await smallGpu({ maxComputeWorkgroupsPerDimension: 2 }, fused), problem);
    for (const { workgroups } of watch.dispatches) expect(workgroups[0]).toBeLessThanOrEqual(2);
    const large = problem.batch * Math.max(problem.queries, problem.tokens) > 200;
    if (large) expect(watch.dispatches.some(({ workgroups }) => workgroups[1] > 1)).toBe(true);
  });
});

describe("LinearLayer", () => {
  it.each([
    { inner: 12, outer: 20, rows: 100, activation: "gelu" as const, limits: { maxStorageBufferBindingSize: 256 + 1040 } },
    { inner: 20, outer: 12, rows: 100, activation: "silu" as const, limits: { maxStorageBufferBindingSize: 256 + 1040 } },
    { inner: 5, outer: 3, rows: 257, activation: "identity" as const, limits: { maxStorageBufferBindingSize: 256 + 144 } },
    { inner: 5, outer: 33, rows: 1000, activation: "identity" as const, limits: { maxComputeWorkgroupsPerDimension: 3 } },
  ])("$inner -> $outer, $rows rows, $activation, $limits", async ({ inner, outer, rows, activation, limits }) => {
    const gpu = await smallGpu(limits, 0);
    const weight = normals32(6, outer * inner);
    const bias = normals32(7, outer);
    const layer = new LinearLayer(gpu, { label: "test", inner, outer, activation }, weight, bias);
    await layer.prepare();
    const [x, residual] = [normals32(8, rows * inner), normals32(9, rows * outer)];
    for (const [from, to] of [
      [0, 0],
      [4, 16],
      [256, 12],
    ] as const) {
      watch.reset();
      const input = borrow(gpu, [rows, inner], from, x);
      const added = borrow(gpu, [rows, outer], to, residual);
      const output = borrow(gpu, [rows, outer], to);
      gpu.submit("test", (pass) => layer.record(pass, { x: input.tensor, y: output.tensor, residual: added.tensor, rows }));
      const expected = linear(x, weight, bias, { inDim: inner, outDim: outer, activation, residual });
      expectClose(await output.readInside(), expected, { relL2: LAYER_F32, what: `bytes ${from} and ${to}`, adapter });
      expect(Math.max(...watch.dispatches.flatMap(({ bindings }) => bindings))).toBeLessThanOrEqual(gpu.limits.maxStorageBufferBindingSize);
      expect(Math.max(...watch.dispatches.map(({ workgroups }) => workgroups[0]))).toBeLessThanOrEqual(gpu.limits.maxComputeWorkgroupsPerDimension);
      if (limits.maxStorageBufferBindingSize) expect(watch.dispatches.length).toBeGreaterThan(4);
      for (const borrowed of [input, added, output]) borrowed.destroy();
    }
    layer.destroy();
  });
});

describe("tensors far inside a buffer", () => {
  it.each([8 << 20, (8 << 20) + 4, (4 << 20) + 256 + 16])("at byte %d", async (byteOffset) => {
    const gpu = await smallGpu({}, 0);
    using layer = await HomLayer.create(gpu, shape, params);
    const data = normals32(10, 70 * shape.dim);
    const query = borrow(gpu, [1, 70, shape.dim], byteOffset, data);
    const out = borrow(gpu, [1, 70, shape.dim], byteOffset - 4);
    layer.forward(query.tensor, { mask: "causal", out: out.tensor });
    const expected = reference(shape, params, { query: data, mask: "causal", batch: 1, queryLength: 70 });
    expectClose(await out.readInside(), expected, { relL2: LAYER_F32, what: `byte ${byteOffset}`, adapter });
    query.destroy();
    out.destroy();
  });
});
