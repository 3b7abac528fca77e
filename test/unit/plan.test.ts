import { describe, expect, it } from "vitest";
import { flopsOf, type HomCall, type MaskPlan, planHom } from "../../src/layers/hom_plan.ts";
import { firstBlocks, type HomPlanConfig } from "../../src/layers/planner.ts";
import { BIND_ALIGNMENT } from "../../src/runtime/kernel.ts";
import type { Tuning } from "../../src/runtime/tuning.ts";
import { LIMITS, MIB, masksFor, nameOf, planCases, planLaws, TUNINGS } from "../support/plans.ts";

/** Buffers that a layer brings; all others are scratch. */
const BROUGHT = new Set(["projections", "ag", "query", "context", "out", "residual", "mask", "table", "divisors", "empty"]);

interface Case {
  readonly name: string;
  readonly config: HomPlanConfig;
  readonly tuning: Tuning;
  readonly call: HomCall;
}

const cases: Case[] = planCases.map((c) => ({ ...c, call: { ...c.call, query: 0, context: 0, out: 0 } }));

type Plan = ReturnType<typeof planHom>;

const common = planLaws(BROUGHT, new Set(["projections", "ag"]));

/** What is wrong with a plan, or nothing. */
const laws: Record<string, (c: Case, plan: Plan) => string | undefined> = {
  ...Object.fromEntries(Object.entries(common).map(([law, check]) => [law, ({ config }: Case, plan: Plan) => check(plan, config.scratchBudget)])),

  "writes every output row once": ({ call }, { steps }) => {
    const writers = steps.filter(({ slots }) => slots["y"]?.buffer === "out");
    const rows = writers.reduce((sum, { uniforms }) => sum + (uniforms["slab_rows"] ?? 0), 0);
    const expected = call.mask.kind === "packed" ? (call.mask.cuSeqlens.at(-1) ?? 0) : call.batch * call.queryLength;
    return rows === expected ? undefined : `${rows} of ${expected} rows`;
  },
};

describe("planHom", () => {
  const broken = new Map(Object.keys(laws).map((law) => [law, [] as string[]]));
  for (const c of cases) {
    const plan = planHom(c.config, c.tuning, LIMITS, c.call);
    for (const [law, check] of Object.entries(laws)) {
      const problem = check(c, plan);
      if (problem !== undefined) broken.get(law)?.push(`${c.name}: ${problem}`);
    }
  }

  it("was asked for many plans", () => {
    expect(cases.length).toBeGreaterThan(2000);
  });

  it.each(Object.keys(laws))("%s", (law) => {
    expect(broken.get(law)?.slice(0, 5)).toEqual([]);
  });

  it("is pure: the same arguments give the same plan, and are not changed", () => {
    const essence = ({ steps, scratch, flops }: Plan) => [
      flops,
      [...scratch],
      steps.map((s) => [s.kernel.name, s.variant, s.workgroups, s.uniforms, s.slots]),
    ];
    for (const { config, tuning, call } of cases.filter((_, i) => i % 97 === 0)) {
      const frozenCall = Object.freeze({ ...call, mask: Object.freeze({ ...call.mask }) });
      const a = planHom(Object.freeze({ ...config }), Object.freeze({ ...tuning }), Object.freeze({ ...LIMITS }), frozenCall);
      expect(essence(a)).toEqual(essence(planHom(config, tuning, LIMITS, call)));
    }
  });

  it("spreads work over two dimensions where one is too short", () => {
    const most = 50;
    const { config, tuning, call } = cases.find(
      (c) => c.call.contextLength === 4_099 && c.config.dim === 64 && c.call.mask.kind === "none" && c.config.scratchBudget === 64 * MIB,
    )!;
    const { steps } = planHom(config, tuning, { ...LIMITS, maxComputeWorkgroupsPerDimension: most }, call);
    const flat = planHom(config, tuning, LIMITS, call).steps;
    expect(steps.some(({ workgroups: [, y] }) => y > 1)).toBe(true);
    for (const [i, { workgroups }] of steps.entries()) {
      const [x, y] = workgroups;
      const needed = flat[i]!.workgroups[0];
      expect(x).toBeLessThanOrEqual(most);
      expect(x * y).toBeGreaterThanOrEqual(needed);
      expect((x - 1) * y).toBeLessThan(needed);
    }
  });

  it("takes two dispatches and the selection for one row without a mask, up to a million tokens", () => {
    for (const { config, tuning, call } of cases) {
      if (call.mask.kind !== "none" || call.batch !== 1 || config.scratchBudget < 64 * MIB) continue;
      // More cannot be bound, or are more blocks than an invocation may add.
      if (call.contextLength * config.dim * 4 > 100 * MIB || call.contextLength > 30_000 * tuning.blockTokens) continue;
      const kernels = planHom(config, tuning, LIMITS, { ...call, queryLength: 1 }).steps.map(({ kernel }) => kernel.name);
      expect(kernels).toEqual(["moments", "merge_moments", ...(config.dim <= tuning.fusedSelectMaxDim ? ["select"] : ["gate", "linear"])]);
    }
  });

  it("needs the same scratch for ten times the tokens, once the budget is reached", () => {
    const config = { dim: 64, order: 2, orderExpand: 2, activation: "gelu", scratchBudget: MIB } as const;
    const scratchOf = (length: number, mask: MaskPlan) => [
      ...planHom(config, TUNINGS[0]!, LIMITS, { batch: 1, queryLength: length, contextLength: length, mask, query: 0, context: 0, out: 0 }).scratch,
    ];
    for (const mask of masksFor(1, 100_000)) {
      if (mask.kind === "packed" || mask.kind === "blockCausal") continue;
      expect(scratchOf(1_000_000, mask), nameOf(mask)).toEqual(scratchOf(100_000, mask));
    }
  });
});

describe("flops", () => {
  it.each([
    { B: 1, N: 100, T: 100, D: 64, k: 2, e: 2 },
    { B: 3, N: 257, T: 7, D: 12, k: 3, e: 4 },
    { B: 2, N: 1, T: 1, D: 1, k: 8, e: 1 },
  ])("of B$B N$N T$T D$D k$k e$e are those of the specification", ({ B, N, T, D, k, e }) => {
    const M = k * e * D;
    const config = { dim: D, order: k, orderExpand: e, activation: "gelu", scratchBudget: 64 * MIB } as const;
    const context = 2 * B * N * D * M + (B * N * M * (k - 1)) / k + B * N * M;
    const call = { batch: B, queryLength: T, contextLength: N };
    for (const kind of ["none", "padding", "lengths"] as const)
      expect(flopsOf(config, { ...call, mask: { kind } })).toBe(context + 4 * B * T * D * M);
    expect(flopsOf(config, { ...call, mask: { kind: "full", batch: 1 } })).toBe(context + 4 * B * T * D * M + 2 * B * T * N * M);
    const square = { ...call, queryLength: N, mask: { kind: "causal", ahead: 1 }, query: 0, context: 0, out: 0 } as const;
    expect(planHom(config, TUNINGS[0]!, LIMITS, square).flops).toBe(context + 4 * B * N * D * M);
  });
});

describe("offsets of the caller's tensors", () => {
  const config = { dim: 12, order: 2, orderExpand: 1, activation: "gelu", scratchBudget: MIB } as const;
  const call = { batch: 2, queryLength: 9, contextLength: 70, mask: { kind: "none" } } as const;
  it.each([0, 4, 16, 252, 256, 260, 1 << 20, 2 ** 32 + 4])("byte %d", (byteOffset) => {
    const { steps } = planHom(config, TUNINGS[0]!, LIMITS, {
      ...call,
      query: byteOffset,
      context: byteOffset,
      out: byteOffset,
      residual: byteOffset,
    });
    const slots = steps.flatMap((step) => Object.values(step.slots));
    for (const buffer of ["query", "context", "out", "residual"]) {
      const slot = slots.find((s) => s.buffer === buffer)!;
      expect(slot.offset).toBe(byteOffset - (byteOffset % BIND_ALIGNMENT));
      expect(slot.offset + slot.size).toBe(byteOffset + (buffer === "context" ? 140 : 18) * 12 * 4);
    }
    const loads = byteOffset % 16 === 0 ? "vec4" : "scalar";
    for (const { kernel, variant } of steps) {
      if (kernel.name === "moments" || kernel.name === "gate") expect(variant.x).toBe(loads);
      if (kernel.name === "linear") expect(variant).toMatchObject({ x: "vec4", y: loads });
    }
  });
});

describe("firstBlocks", () => {
  it("counts the blocks before each segment", () => {
    expect([...firstBlocks(Uint32Array.of(0, 0, 1, 9, 17, 17, 40), 8)]).toEqual([0, 0, 1, 2, 3, 3, 6]);
  });
});
