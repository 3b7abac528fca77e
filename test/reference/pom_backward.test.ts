import { describe, expect, test } from "vitest";
import { type PomArguments, type PomShape, pomReference } from "../../src/reference/pom.ts";
import { pomBackward } from "../../src/reference/pom_backward.ts";
import { expectClose } from "../support/compare.ts";
import { goldenCases, loadGolden, pomGolden, pomGoldenGradients } from "../support/golden.ts";
import { FINITE_DIFFERENCE_F64, REFERENCE_GOLDEN } from "../support/tolerances.ts";
import { normals, randomPomParams } from "./inputs.ts";

describe("the float64 backward pass of the polynomial mixer gives the golden gradients", async () => {
  const cases = (await goldenCases("pom", "pom_rope")).filter(({ grads }) => grads.length > 0);
  test("of 17 cases", () => expect(cases.length).toBe(17));
  test.each(cases)("$name", async (entry) => {
    const golden = await loadGolden(entry);
    const { shape, params, args } = pomGolden(golden);
    const { gradOutput, expected } = pomGoldenGradients(entry, golden);
    const { query, context, params: ofParams } = pomBackward(shape, params, { ...args, gradOutput });
    const actual: Record<string, Float64Array> = { query, ...(context && { context }), ...ofParams };
    expect(Object.keys(actual).sort()).toEqual(Object.keys(expected).sort());
    for (const [key, values] of Object.entries(expected)) expectClose(actual[key]!, values, { relL2: REFERENCE_GOLDEN, what: key });
  });
});

describe("gradients are slopes", () => {
  const shapes: PomShape[] = [
    { dim: 4, degree: 5, expand: 2 },
    { dim: 4, degree: 2, expand: 2, nGroups: 2, nSelHeads: 4, rotary: "2d" },
    { dim: 6, degree: 3, expand: 1, nSelHeads: 2, rotary: "1d" },
  ];
  const masks: [string, PomArguments["mask"]][] = [
    ["none", undefined],
    ["padding that cancels in a row", { padding: Float64Array.of(1, -1, 0, 0, 0, 0.5, 0, 2, 0, 1) }],
    ["lengths", { lengths: [3, 0] }],
    ["blockCausal", { blockCausal: 2 }],
    ["full", { full: Float64Array.from({ length: 25 }, (_, i) => (i < 5 ? 0 : i % 3)) }],
  ];
  test.each(shapes.flatMap((shape) => masks.map(([name, mask]) => ({ name, shape, mask }))))("$name, $shape.rotary", ({ shape, mask }) => {
    const [batch, length] = [2, 5];
    const params = randomPomParams(3, shape, true);
    const query = normals(4, batch * length * shape.dim);
    const gradOutput = normals(5, query.length);
    const positions = shape.rotary === "2d" ? [0, 1, 2, 3, 1, 1, 5, 0, 2, 2] : undefined;
    const args = { mask, positions, batch, queryLength: length };
    const loss = (weights: Record<string, Float64Array>, x: Float64Array) =>
      pomReference(shape, weights, { ...args, query: x }).reduce((sum, value, i) => sum + value * gradOutput[i]!, 0);
    const { query: ofQuery, params: ofParams } = pomBackward(shape, params, { ...args, query, gradOutput });
    const step = 1e-6;
    for (const [key, gradient] of Object.entries({ ...ofParams, query: ofQuery })) {
      const direction = normals(6, gradient.length);
      const moved = (by: number) => {
        const along = (values: Float64Array) => values.map((value, i) => value + by * direction[i]!);
        return key === "query" ? loss(params, along(query)) : loss({ ...params, [key]: along(params[key]!) }, query);
      };
      const slope = (moved(step) - moved(-step)) / (2 * step);
      const expected = gradient.reduce((sum, value, i) => sum + value * direction[i]!, 0);
      if (expected === 0) expect(Math.abs(slope), key).toBeLessThan(1e-8);
      else expectClose([expected], [slope], { relL2: FINITE_DIFFERENCE_F64, what: key });
    }
  });
});
