import { describe, expect, it } from "vitest";
import type { PlanConfig } from "../../src/layers/planner.ts";
import { pomPlanConfig } from "../../src/layers/pom_config.ts";
import { planState, type StateOperation } from "../../src/layers/state_plan.ts";
import { tilesOver } from "../../src/runtime/kernel.ts";
import { type Tuning, tuningFor } from "../../src/runtime/tuning.ts";
import { LIMITS } from "../support/plans.ts";

const adapter = { vendor: "", architecture: "", description: "" };
const onGpu = tuningFor({ ...adapter, software: false }, new Set());
const onSoftware = tuningFor({ ...adapter, software: true }, new Set());
const config: PlanConfig = { dim: 100, order: 3, orderExpand: 2, activation: "gelu", scratchBudget: 64 << 20 };
const mixer = (nSelHeads: number) =>
  pomPlanConfig({
    dim: 64,
    degree: 2,
    expand: 2,
    nGroups: 1,
    nSelHeads,
    bias: false,
    rotary: "none",
    rotaryBase: 10_000,
    maxPositions: 64,
    dtype: "f32",
    weightDtype: "f32",
    scratchBudget: 64 << 20,
  });
const plan = (of: PlanConfig, tuning: Tuning, batch: number, length: number, operation: StateOperation) =>
  planState(of, tuning, LIMITS, { batch, queryLength: length, contextLength: length, query: 0, context: 0, out: 0 }, operation).steps;

describe("the plan of decoding", () => {
  it("gives a GPU lanes to fill, and a software adapter one a tile", () => {
    expect([onGpu.decodeLanes, onSoftware.decodeLanes]).toEqual([16, 1]);
  });

  for (const decodeLanes of [4, 16, 64] as const) {
    const tuning: Tuning = { ...onSoftware, tile: "16x8", decodeLanes };

    it(`takes two dispatches with ${decodeLanes} lanes a tile in any batch, enough of them for every tile`, () => {
      for (const of of [config, { ...config, decay: true }, mixer(1)]) {
        for (const operation of [{ kind: "step" }, ...(of.decay ? [] : [{ kind: "stepWindow", ring: 5 } as const])] as const) {
          for (const batch of [1, 2, 3, 8, 9, 16, 100]) {
            const steps = plan(of, tuning, batch, 1, operation);
            expect(steps.map(({ kernel }) => kernel.name)).toEqual(["step", "linear"]);
            for (const { kernel, variant, uniforms, workgroups } of steps) {
              expect(variant).toMatchObject({ tile: batch <= 2 ? "1x4" : "8x4", split: decodeLanes });
              const columns = uniforms[kernel.name === "step" ? "expand4" : "stride4"]!;
              const lanes = tilesOver(variant.tile!, batch, columns) * decodeLanes;
              expect(workgroups[0] * workgroups[1]).toBe(Math.ceil(lanes / 64));
            }
          }
        }
      }
    });

    it(`shares the gates of a mixer's heads among ${decodeLanes} lanes, too`, () => {
      const steps = plan(mixer(4), tuning, 1, 1, { kind: "step" });
      expect(steps.map(({ kernel, variant }) => [kernel.name, variant.split])).toEqual([
        ["step", decodeLanes],
        ["linear", decodeLanes],
        ["apply_gates", undefined],
        ["linear", decodeLanes],
      ]);
    });

    it(`asks only for variants that are listed, ${decodeLanes} lanes`, () => {
      for (const of of [config, { ...config, dim: 7 }, { ...config, weightDtype: "i4" as const }, { ...config, decay: true }, mixer(1), mixer(4)]) {
        for (const batch of [1, 20]) {
          for (const { kernel, variant } of plan(of, tuning, batch, 1, { kind: "step" })) {
            // PoM's variants are the registry's: its expansion is told from HoM's by the name.
            if (variant.expand || variant.gate === "none" || variant.activation === "hard_sigmoid") continue;
            expect(kernel.variants.map((v) => kernel.key(v))).toContain(kernel.key(variant));
          }
        }
      }
    });

    it(`leaves chunks, queries and additions alone, ${decodeLanes} lanes`, () => {
      const others = [
        { operation: { kind: "append", lengths: false }, length: 1 },
        { operation: { kind: "query" }, length: 1 },
        { operation: { kind: "step" }, length: 2 },
      ] as const;
      for (const { operation, length } of others) {
        const steps = plan(config, tuning, 1, length, operation);
        expect(steps.length).toBeGreaterThan(0);
        expect(steps.filter(({ variant }) => variant.split !== undefined)).toEqual([]);
      }
    });
  }

  it("is what it was with one lane: the adapter's tile, no lanes named", () => {
    for (const batch of [1, 3, 20]) {
      const [first, second] = plan(config, { ...onSoftware, tile: "16x8", decodeLanes: 1 }, batch, 1, { kind: "step" });
      expect([first?.variant.split, second?.variant.split]).toEqual([undefined, undefined]);
      expect(second?.variant.tile).toBe(batch <= 2 ? "1x4" : batch < 16 ? "8x4" : "16x8");
    }
  });
});
