import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { flops, type LayerCost, type LayerFamily, matchFlops, matchParameters, parameterCount } from "../../src/baselines/flops.ts";
import { flopsOf } from "../../src/layers/hom_plan.ts";
import { type PomPlan, pomFlops } from "../../src/layers/pom_plan.ts";

const hom = { layer: "hom", dim: 128, order: 2, orderExpand: 2 } as const;
const attention = { layer: "attention", dim: 128, heads: 2 } as const;

describe("flops", () => {
  it("of the moment layer are those of its plan", () => {
    const call = { batch: 3, queryLength: 100, contextLength: 100, mask: { kind: "none" } } as const;
    for (const order of [1, 2, 5]) {
      const config = { dim: 24, order, orderExpand: 3 };
      const planned = flopsOf({ ...config, activation: "gelu", scratchBudget: 1 }, call);
      expect(flops({ layer: "hom", ...config }, { batch: 3, length: 100 })).toBeCloseTo(planned, 3);
    }
  });

  it("of attention grow with the square of the length, half of it if causal", () => {
    const [N, D] = [1000, 128];
    expect(flops(attention, { length: N })).toBe(8 * N * D * D + 4 * N * N * D);
    // Row t multiplies with t keys and adds t values.
    let pairs = 0;
    for (let t = 1; t <= N; t++) pairs += t;
    expect(flops(attention, { length: N, causal: true })).toBe(8 * N * D * D + 4 * pairs * D);
  });

  it("of linear attention, term by term", () => {
    const [N, D, H, R] = [50, 12, 3, 8];
    const projections = 4 * 2 * N * D * D;
    const features = 2 * N * H * (2 * R * (D / H));
    const sums = N * H * (2 * R * (D / H) + R);
    const read = N * H * (2 * R * (D / H) + 2 * R);
    const favor = { layer: "linear_attention", dim: D, heads: H, featureMap: "favor", features: R } as const;
    expect(flops(favor, { length: N })).toBe(projections + features + sums + read);
    expect(flops({ ...favor, featureMap: "rfa" }, { length: N })).toBe(projections + features / 2 + sums + read);
    expect(flops(favor, { length: N, causal: true })).toBe(flops(favor, { length: N }));
  });

  it("of the polynomial mixer are those of its plan, groups and few gates included", () => {
    const sizes = { batch: 2, queryLength: 50, contextLength: 50 };
    for (const [nGroups, gates] of [
      [1, undefined],
      [4, 8],
    ] as const) {
      const group = nGroups > 1 ? { inputs: 12 / nGroups } : undefined;
      const pom = { degree: 3, planes: 0, group, ...(gates && { gates: { layout: { stride: gates } } }) } as unknown as PomPlan;
      const planned = pomFlops({ dim: 12, order: 1, orderExpand: 2, pom }, sizes, false);
      const layer = { layer: "pom", dim: 12, degree: 3, expand: 2, nGroups, ...(gates && { nSelHeads: gates }) } as const;
      expect(flops(layer, { length: 50, batch: 2 })).toBe(planned);
    }
  });

  it("add a feed-forward part, and multiply by depth and batch", () => {
    const one = flops(hom, { length: 64 });
    expect(flops({ ...hom, ffwExpand: 2, depth: 3 }, { length: 64, batch: 5 })).toBe(15 * (one + 8 * 64 * 128 * 128));
  });
});

describe("parameterCount", () => {
  it("counts what a checkpoint has", () => {
    const [D, M] = [128, 512];
    expect(parameterCount(hom)).toBe(3 * D * M + 2 * M + D);
    expect(parameterCount({ ...hom, bias: false, depth: 2 })).toBe(6 * D * M);
    expect(parameterCount({ ...hom, bias: false, ffwExpand: 2 })).toBe(3 * D * M + 4 * D * D);
    expect(parameterCount(attention)).toBe(4 * D * D + 4 * D);
    expect(parameterCount({ ...attention, layer: "linear_attention", featureMap: "favor", features: 64 })).toBe(4 * D * D + 4 * D);
    // qc_proj [2·M, D], se_bias [M], po_coeff [M, k], ag_proj [D, M]
    expect(parameterCount({ layer: "pom", dim: 16, degree: 3, expand: 2 })).toBe(3 * 32 * 16 + 32 + 3 * 32);
    // po_proj [M, D / G] and bias, se_proj [H, D] and se_bias [H], po_coeff, ag_proj [D, M] and bias
    const grouped = { layer: "pom", dim: 16, degree: 2, expand: 3, nGroups: 2, nSelHeads: 4, bias: true } as const;
    expect(parameterCount(grouped)).toBe(48 * 8 + 48 + 4 * 16 + 4 + 2 * 48 + 16 * 48 + 16);
  });
});

const families: readonly LayerFamily[] = ["hom", "pom", "attention", "linear_attention"];

const references = fc.record({
  family: fc.constantFrom(...families),
  heads: fc.integer({ min: 1, max: 8 }),
  headDim: fc.integer({ min: 4, max: 96 }),
  a: fc.integer({ min: 1, max: 6 }),
  b: fc.integer({ min: 1, max: 4 }),
  depth: fc.option(fc.integer({ min: 1, max: 4 }), { nil: undefined }),
  ffwExpand: fc.option(fc.integer({ min: 0, max: 4 }), { nil: undefined }),
});

function layerOf({ family, heads, headDim, a, b, depth, ffwExpand }: typeof references extends fc.Arbitrary<infer T> ? T : never): LayerCost {
  const common = { dim: heads * headDim, ...(depth !== undefined && { depth }), ...(ffwExpand !== undefined && { ffwExpand }) };
  if (family === "hom") return { layer: "hom", ...common, order: a, orderExpand: b };
  if (family === "pom") return { layer: "pom", ...common, degree: a, expand: b };
  if (family === "attention") return { layer: "attention", ...common, heads };
  return { layer: "linear_attention", ...common, heads, featureMap: "rfa", features: 16 * a };
}

/** Sizes that can be solved for. */
const SOLVABLE = {
  hom: ["orderExpand", "order", "dim", "depth", "ffwExpand"],
  pom: ["expand", "degree", "dim", "depth", "ffwExpand"],
  attention: ["dim", "depth", "ffwExpand"],
  linear_attention: ["features", "dim", "depth", "ffwExpand"],
} as const;

describe("matchFlops and matchParameters", () => {
  it("nothing beside what they find is nearer", () => {
    const problem = fc.record({
      reference: references,
      family: fc.constantFrom(...families),
      choice: fc.nat(4),
      length: fc.integer({ min: 1, max: 20_000 }),
      causal: fc.boolean(),
      byParameters: fc.boolean(),
    });
    fc.assert(
      fc.property(problem, ({ reference, family, choice, length, causal, byParameters }) => {
        const from = layerOf(reference);
        const names = SOLVABLE[family].filter((name) => !byParameters || name !== "features");
        const solve = names[choice % names.length]!;
        const {
          config,
          cost,
          ratio,
          reference: wanted,
        } = byParameters ? matchParameters(from, family, { solve }) : matchFlops(from, family, { length, causal, solve });
        const costOf = (c: LayerCost) => (byParameters ? parameterCount(c) : flops(c, { length, causal }));
        expect(wanted).toBe(costOf(from));
        expect(cost).toBe(costOf(config));
        expect(ratio).toBeCloseTo(cost / wanted, 12);
        const sizes = config as unknown as Record<string, number>;
        const heads = config.layer === "attention" || config.layer === "linear_attention" ? config.heads : 1;
        const step = solve === "dim" ? lcm(4, heads) : solve === "features" ? 4 : 1;
        expect(sizes[solve]! % step).toBe(0);
        for (const other of [sizes[solve]! - step, sizes[solve]! + step]) {
          const limit = { order: 8, degree: 16, features: 4096, dim: 65_536 }[solve as string] ?? 1024;
          if (other < step || other > limit) continue;
          const distance = Math.abs(Math.log(costOf({ ...config, [solve]: other } as LayerCost) / wanted));
          expect(distance, `${solve} ${other} instead of ${sizes[solve]}`).toBeGreaterThanOrEqual(Math.abs(Math.log(ratio)) * (1 - 1e-12));
        }
      }),
      { seed: 1, numRuns: 400 },
    );
  });

  it("find a layer itself", () => {
    for (const layer of [hom, attention, { layer: "pom", dim: 64, degree: 2, expand: 3 } as const]) {
      expect(matchFlops(layer, layer.layer, { length: 512 })).toMatchObject({ config: layer, ratio: 1 });
    }
    const favor = { layer: "linear_attention", dim: 64, heads: 2, featureMap: "favor", features: 96 } as const;
    expect(matchFlops(favor, "linear_attention", { length: 9 })).toMatchObject({ config: favor, ratio: 1 });
    expect(matchParameters(hom, "hom")).toMatchObject({ config: hom, ratio: 1 });
  });

  it("answer with what their defaults say", () => {
    expect(matchFlops(attention, "hom", { length: 1024 }).config).toEqual({ layer: "hom", dim: 128, order: 2, orderExpand: 3 });
    // Twelve D² a token and expansion, and so twice as many where there are no tokens to compare: the smallest there is.
    expect(matchFlops(attention, "hom", { length: 1 })).toMatchObject({ config: { orderExpand: 1 }, ratio: expect.closeTo(1.49, 1) });
    // 8·D² + 16,384·D FLOPs a token, for 393,216 and some.
    expect(matchFlops(hom, "attention", { length: 4096, fixed: { heads: 3 } }).config).toEqual({ layer: "attention", dim: 24, heads: 3 });
    expect(matchFlops(attention, "linear_attention", { length: 1024, fixed: { featureMap: "rfa" }, multipleOf: 3 }).config.features % 6).toBe(0);
    expect(matchFlops({ layer: "hom", dim: 96, order: 1, orderExpand: 1 }, "attention", { length: 4, solve: "depth" }).config).toEqual({
      layer: "attention",
      dim: 96,
      heads: 2,
      depth: 1,
    });
  });

  it("refuse what makes no sense", () => {
    const wrong: [() => unknown, RegExp][] = [
      [
        () => matchFlops(attention, "mamba" as never, { length: 4 }),
        /^matchFlops: family must be one of "hom", "pom", "attention", "linear_attention", got "mamba"/,
      ],
      [() => matchFlops(attention, "hom", {} as never), /^matchFlops: length must be a number, got undefined/],
      [() => matchFlops(attention, "hom", { length: 4, solve: "features" }), /^matchFlops: solve must be one of "dim", .*, got "features"/],
      [
        () => matchFlops(attention, "hom", { length: 4, fixed: { orderExpand: 2 } }),
        /^matchFlops: fixed must leave orderExpand open, got orderExpand: 2/,
      ],
      [
        () => matchFlops(attention, "hom", { length: 4, fixed: { orders: 2 } as never }),
        /^matchFlops: fixed must have only the keys .*, got the unknown key "orders"/,
      ],
      [() => matchFlops(attention, "hom", { length: 4, multipleOf: 5000 }), /^matchFlops: multipleOf must be at most 1024, got 5000/],
      [() => matchFlops({ ...attention, heads: 3 }, "hom", { length: 4 }), /^matchFlops: reference.heads must divide the width 128, got 3/],
      [
        () => matchParameters(attention, "linear_attention", { solve: "features" }),
        /^matchParameters: solve must be a size with parameters, got "features"/,
      ],
      [() => flops({ ...hom, order: 9 }, { length: 4 }), /^flops: config.order must be an integer from 1 to 8, got 9/],
      [() => flops({ ...hom, heads: 2 } as never, { length: 4 }), /^flops: config must have only the keys .*, got the unknown key "heads"/],
      [() => flops(hom, { length: 4, causal: "yes" as never }), /^flops: causal must be true or false, got "yes"/],
      [
        () => parameterCount({ layer: "pom", dim: 16, degree: 2, expand: 1, nGroups: 3 }),
        /^parameterCount: config.nGroups must divide the width 16, got 3/,
      ],
    ];
    for (const [call, message] of wrong) expect(call).toThrow(message);
  });
});

function lcm(a: number, b: number): number {
  let value = a;
  while (value % b !== 0) value += a;
  return value;
}
