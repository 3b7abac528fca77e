import { describe, expect, it } from "vitest";
import { planHom } from "../../src/layers/hom_plan.ts";
import { blockTokensFor, MAX_INNER_STEPS } from "../../src/layers/planner.ts";
import { type PomConfig, pomPlanConfig } from "../../src/layers/pom_config.ts";

const LIMITS = { maxBufferSize: 2 ** 31, maxStorageBufferBindingSize: 2 ** 27, maxComputeWorkgroupsPerDimension: 65_535 };
const TUNING = { tile: "16x8", blockTokens: 128, prefixBlockTokens: 64, fusedSelectMaxDim: 0, decodeLanes: 16 } as const;

function configOf(config: Partial<PomConfig>): Required<PomConfig> {
  return {
    dim: 64,
    degree: 2,
    expand: 2,
    nGroups: 1,
    nSelHeads: 1,
    bias: false,
    rotary: "none",
    rotaryBase: 10_000,
    maxPositions: config.rotary === "2d" ? [8, 8] : 64,
    dtype: "f32",
    weightDtype: "f32",
    scratchBudget: 64 << 20,
    ...config,
  };
}

const call = { batch: 2, queryLength: 4096, contextLength: 4096, query: 0, context: 0, out: 0 };

describe("the plan of a polynomial mixer", () => {
  it.each([
    { config: {}, mask: { kind: "none" }, kernels: ["moments", "merge_moments", "gate", "linear"] },
    { config: { nSelHeads: 4 }, mask: { kind: "none" }, kernels: ["moments", "merge_moments", "linear", "apply_gates", "linear"] },
    { config: { nGroups: 4 }, mask: { kind: "none" }, kernels: ["moments", "merge_moments", "linear", "apply_gates", "linear"] },
    { config: { rotary: "2d" }, mask: { kind: "none" }, kernels: ["moments", "merge_moments", "linear", "apply_gates", "linear"] },
    { config: {}, mask: { kind: "causal", ahead: 1 }, kernels: ["prefix_moments", "scan_moments", "gate", "linear"] },
  ] as const)("$config, mask $mask.kind", ({ config, mask, kernels }) => {
    const plan = planHom(pomPlanConfig(configOf(config)), TUNING, LIMITS, { ...call, mask });
    expect([...new Set(plan.steps.map(({ kernel }) => kernel.name))]).toEqual([...new Set(kernels)]);
  });

  it("keeps an invocation's loops short at any tuning", () => {
    for (const degree of [1, 2, 5, 16]) {
      for (const dim of [4, 64, 1024, 4096]) {
        for (const rotary of ["none", "1d", "2d"] as const) {
          const plan = pomPlanConfig(configOf({ degree, dim, rotary }));
          const tokens = blockTokensFor(1024, plan);
          const { order } = plan;
          // What polynomial_16x8.wgsl and tile_16x8.wgsl loop over for 16 tokens of a chunk.
          const loops = dim / 4 + 32 + 16 * (degree - 1) + (rotary === "none" ? 0 : 64);
          expect((tokens / 16) * order * loops).toBeLessThanOrEqual(tokens === 8 ? 65_535 : MAX_INNER_STEPS);
          expect(tokens).toBeGreaterThanOrEqual(8);
        }
      }
    }
  });

  it("takes scratch memory that does not grow with the number of tokens, gates apart included", () => {
    for (const config of [{ nSelHeads: 8 }, { rotary: "1d" as const }, { nGroups: 2 }]) {
      for (const mask of [{ kind: "none" }, { kind: "causal", ahead: 1 }, { kind: "blockCausal", block: 100 }, { kind: "full", batch: 1 }] as const) {
        const plan = pomPlanConfig(configOf({ ...config, scratchBudget: 4 << 20 }));
        const bytesOf = (length: number) => {
          const { scratch } = planHom(plan, TUNING, LIMITS, { ...call, batch: 1, queryLength: length, contextLength: length, mask });
          return [...scratch.values()].reduce((a, b) => a + b, 0);
        };
        const bytes = bytesOf(20_000);
        expect(bytes).toBeLessThanOrEqual(4 << 20);
        if (mask.kind !== "full") expect(bytesOf(200_000)).toBeLessThanOrEqual(4 << 20);
      }
    }
  });

  it("counts a group's inputs and a head's gates only", () => {
    const flops = (config: Partial<PomConfig>) => planHom(pomPlanConfig(configOf(config)), TUNING, LIMITS, { ...call, mask: { kind: "none" } }).flops;
    const [rows, dim, M] = [2 * 4096, 64, 128];
    const plain = rows * M * (2 * dim + 2 * 2 + 1) + rows * (2 * dim * M + M + 2 * dim * M);
    expect(flops({})).toBe(plain);
    expect(flops({ nGroups: 4 })).toBe(plain - rows * M * 2 * (dim - dim / 4));
    expect(flops({ nSelHeads: 8 })).toBe(plain - rows * 2 * dim * (M - 8));
  });
});
