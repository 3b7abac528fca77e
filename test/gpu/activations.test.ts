import { describe, expect, it } from "vitest";
import source from "../../shaders/shared/activations.wgsl?raw";
import { requestGpu, Tensor } from "../../src/index.ts";
import * as reference from "../../src/reference/activations.ts";
import { getDevice } from "../support/gpu.ts";
import { poisoned } from "../support/poison.ts";

const device = await getDevice();
const gpu = await requestGpu({ device });
const adapter = gpu.info.description;

/** Every activation at the same numbers, elementwise, as the kernels call it. */
async function compute(x: Float32Array): Promise<Record<string, Float32Array>> {
  const names = ["gelu", "x_erf", "hyperbolic_tangent", "sigmoid", "activate"];
  using input = Tensor.from(gpu, x, [x.length]);
  const results: Record<string, Float32Array> = {};
  for (const name of names) {
    const module = device.createShaderModule({
      code: `${source}
const ACTIVATION: u32 = ACTIVATION_SILU;
const GATE: u32 = GATE_SIGMOID;
@group(0) @binding(0) var<storage, read> x: array<vec4f>;
@group(0) @binding(1) var<storage, read_write> y: array<vec4f>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x < arrayLength(&x)) {
    y[id.x] = ${name}(x[id.x]);
  }
}`,
    });
    const pipeline = await device.createComputePipelineAsync({ layout: "auto", compute: { module, entryPoint: "main" } });
    using out = poisoned(gpu, [x.length]);
    const entries = [input, out].map(({ buffer }, binding) => ({ binding, resource: { buffer } }));
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries }));
    pass.dispatchWorkgroups(Math.ceil(x.length / 256));
    pass.end();
    device.queue.submit([encoder.finish()]);
    results[name === "activate" ? "silu" : name] = await out.read();
  }
  return results;
}

/** The largest of `error(i)`, and where it is. */
function worst(x: Float32Array, error: (i: number) => number): { error: number; at: number } {
  let found = { error: 0, at: Number.NaN };
  x.forEach((value, i) => {
    const e = error(i);
    // written so that a NaN is kept
    if (!(e <= found.error)) found = { error: e, at: value };
  });
  return found;
}

const STEP = 1 / 4096;
const grid = Float32Array.from({ length: 2 * 30 * 4096 + 4 }, (_, i) => -30 + i * STEP);
/** Where formulas change or end, both signs. */
const edges = [
  0,
  1e-45,
  1e-38,
  1e-30,
  1e-10,
  1e-5,
  0.35,
  0.5,
  Math.SQRT1_2 * 6.5,
  6.5,
  20,
  79.9,
  80,
  80.1,
  87,
  88,
  89,
  100,
  1e3,
  1e10,
  1e19,
  1e20,
  1e30,
  3e38,
];
const EPSILON = 2 ** -23;

describe("activations.wgsl", async () => {
  const y = await compute(grid);
  const at = (name: string, i: number): number => y[name]?.[i] ?? Number.NaN;
  const exact = (f: (v: number) => number) => Float64Array.from(grid, f);

  it("erf, inside x·erf(x): absolute error at most 2e-7 on [-30, 30]", () => {
    const erf = exact(reference.erf);
    // x·erf(x) is rounded once more, to half a step of f32.
    const { error, at: where } = worst(grid, (i) =>
      grid[i] === 0 ? at("x_erf", i) : Math.abs(at("x_erf", i) / grid[i]! - erf[i]!) - (EPSILON / 2) * Math.abs(erf[i]!),
    );
    expect(error, `at ${where} on ${adapter}`).toBeLessThanOrEqual(2e-7);
  });

  it("erf, inside gelu: absolute error at most 2e-7", () => {
    const phi = exact((v) => 0.5 * reference.erfc(-v * Math.SQRT1_2));
    const { error, at: where } = worst(grid, (i) =>
      grid[i] === 0 ? at("gelu", i) : 2 * Math.abs(at("gelu", i) / grid[i]! - phi[i]!) - EPSILON * phi[i]!,
    );
    expect(error, `at ${where} on ${adapter}`).toBeLessThanOrEqual(2e-7);
  });

  it("gelu is the exact form: nowhere off by more than a few steps of f32, the tanh form is off by 4.7e-4", () => {
    const gelu = exact(reference.gelu);
    const { error, at: where } = worst(grid, (i) => Math.abs(at("gelu", i) - gelu[i]!) / Math.max(1, Math.abs(grid[i]!)));
    expect(error, `at ${where} on ${adapter}`).toBeLessThanOrEqual(1.5e-7);
  });

  it("tanh: absolute error at most 2e-7", () => {
    const tanh = exact(Math.tanh);
    const { error, at: where } = worst(grid, (i) => Math.abs(at("hyperbolic_tangent", i) - tanh[i]!));
    expect(error, `at ${where} on ${adapter}`).toBeLessThanOrEqual(2e-7);
  });

  it("small arguments keep their relative accuracy in tanh and x·erf(x)", () => {
    const near = grid.map((v) => (Math.abs(v) < 1 ? v : 0));
    for (const [name, f] of [
      ["hyperbolic_tangent", Math.tanh],
      ["x_erf", reference.x_erf],
    ] as const) {
      const { error, at: where } = worst(near, (i) => (near[i] === 0 ? 0 : Math.abs(at(name, i) / f(near[i]!) - 1)));
      expect(error, `${name} at ${where} on ${adapter}`).toBeLessThanOrEqual(1e-6);
    }
  });

  it("sigmoid: relative error at most 1e-5 where it is a normal number of f32, absolute at most 2e-7", () => {
    const sigmoid = exact(reference.sigmoid);
    const absolute = worst(grid, (i) => Math.abs(at("sigmoid", i) - sigmoid[i]!));
    expect(absolute.error, `at ${absolute.at} on ${adapter}`).toBeLessThanOrEqual(2e-7);
    const relative = worst(grid, (i) => Math.abs(at("sigmoid", i) / sigmoid[i]! - 1));
    expect(relative.error, `at ${relative.at} on ${adapter}`).toBeLessThanOrEqual(1e-5);
  });

  it("silu: error at most 2e-7 of the larger of 1 and the argument", () => {
    const silu = exact(reference.silu);
    const { error, at: where } = worst(grid, (i) => Math.abs(at("silu", i) - silu[i]!) / Math.max(1, Math.abs(grid[i]!)));
    expect(error, `at ${where} on ${adapter}`).toBeLessThanOrEqual(2e-7);
  });

  it("is finite from the smallest to the largest numbers, and right at the far ends", async () => {
    const x = Float32Array.from(edges.flatMap((v) => [v, -v]));
    const values = await compute(x);
    const expected: Record<string, (v: number) => number> = { ...reference, hyperbolic_tangent: Math.tanh } as never;
    for (const [name, results] of Object.entries(values)) {
      results.forEach((value, i) => {
        const v = x[i]!;
        const right = expected[name]!(v);
        const what = `${name}(${v}) = ${value}, expected ${right}, on ${adapter}`;
        expect(Number.isFinite(value), what).toBe(true);
        expect(Math.abs(value - right), what).toBeLessThanOrEqual(
          2e-7 * Math.max(1, Math.abs(right)) + (name === "silu" && v < -80 ? 2e-35 * -v : 0),
        );
      });
    }
  });

  it("keeps its signs and bounds", () => {
    for (let i = 0; i < grid.length; i++) {
      const v = grid[i]!;
      if (Math.abs(at("hyperbolic_tangent", i)) > 1 || at("hyperbolic_tangent", i) * v < 0)
        throw new Error(`tanh(${v}) = ${at("hyperbolic_tangent", i)}`);
      if (!(at("sigmoid", i) >= 0 && at("sigmoid", i) <= 1)) throw new Error(`sigmoid(${v}) = ${at("sigmoid", i)}`);
      if (!(at("x_erf", i) >= 0 && at("x_erf", i) <= Math.abs(v))) throw new Error(`x_erf(${v}) = ${at("x_erf", i)}`);
      if (!(at("gelu", i) >= -0.17 && at("gelu", i) <= Math.max(v, 0))) throw new Error(`gelu(${v}) = ${at("gelu", i)}`);
    }
  });
});
