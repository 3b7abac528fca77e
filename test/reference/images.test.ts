import { describe, expect, test } from "vitest";
import { dihReference } from "../../src/reference/dih.ts";
import { gnnLayer, gnnReference } from "../../src/reference/gnn.ts";
import { bicubicWeights, patchify, resizeGrid, unpatchify } from "../../src/reference/images.ts";
import { visionReference } from "../../src/reference/vision.ts";
import { expectClose } from "../support/compare.ts";
import { dihGolden, gnnGolden, goldenCases, loadGolden, visionGolden } from "../support/golden.ts";
import { REFERENCE_GOLDEN } from "../support/tolerances.ts";
import { normals } from "./inputs.ts";

const relL2 = REFERENCE_GOLDEN;

describe("the float64 models give the golden outputs", async () => {
  test.each(await goldenCases("hom_vision"))("$name", async (entry) => {
    const { shape, params, args, expected, outputShape } = visionGolden(await loadGolden(entry));
    expectClose(visionReference(shape, params, args), expected, { relL2, what: "y", shape: outputShape });
  });

  test.each(await goldenCases("dih"))("$name", async (entry) => {
    const { shape, params, args, expected, outputShape } = dihGolden(await loadGolden(entry));
    expectClose(dihReference(shape, params, args), expected, { relL2, what: "y", shape: outputShape });
  });

  test.each(await goldenCases("gnn"))("$name", async (entry) => {
    const { shape, network, params, args, expected, outputShape, classes } = gnnGolden(await loadGolden(entry));
    const y = network ? gnnReference({ ...shape, ...network }, params, args) : gnnLayer(shape, params, args);
    expectClose(y, expected, { relL2, what: "y", shape: outputShape });
    if (!network || !classes) return;
    const best = Array.from(classes, (_, i) => {
      const row = y.subarray(i * network.classes, (i + 1) * network.classes);
      return row.indexOf(Math.max(...row));
    });
    expect(best).toEqual([...classes]);
  });
});

describe("images", () => {
  test("patches go apart and together", () => {
    const sizes = { batch: 2, channels: 3, height: 6, width: 4, patch: 2 };
    const image = normals(1, 2 * 3 * 6 * 4);
    const apart = patchify(image, sizes);
    // (channel, row, column) of a patch -> (row, column, channel)
    const turned = apart.map((_, i) => apart[Math.floor(i / 12) * 12 + (i % 3) * 4 + Math.floor((i % 12) / 3)]!);
    expect(unpatchify(turned, sizes)).toEqual(image);
    expect(unpatchify(apart, sizes, false)).toEqual(image);
    expect(patchify(image, sizes, true)).toEqual(turned);
    // What fills no patch is 0.
    const wide = unpatchify(Float64Array.of(1, 2, 3, 4), { batch: 1, channels: 1, height: 3, width: 3, patch: 2 });
    expect([...wide]).toEqual([1, 2, 0, 3, 4, 0, 0, 0, 0]);
  });

  test.each([true, false])("weights add up to 1, and the same size changes nothing, antialias %s", (antialias) => {
    for (const [from, to] of [
      [4, 6],
      [6, 4],
      [3, 17],
      [17, 3],
    ] as const) {
      const weights = bicubicWeights(from, to, antialias);
      for (let i = 0; i < to; i++) expectClose([weights.subarray(i * from, (i + 1) * from).reduce((a, b) => a + b)], [1], { relL2, what: "sum" });
    }
    const grid = normals(2, 25 * 3);
    expectClose(resizeGrid(grid, 5, 3, antialias), grid, { relL2, what: "grid" });
  });
});
